"""Paths that stand in files of other people: the one type for them, and the check before writing.

A stored path is relative to the folder of the file that holds it, has POSIX separators and one
spelling. The rules are our choice; they hold on every file system that we know of.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

from pydantic import AfterValidator

from matrix_video.services.errors import MatrixError
from matrix_video.services.files import is_temporary

_MOST_BYTES: Final = 240
"""Of one name; file systems take 255, and temporary names are a little longer."""
_MOST_IN_ALL: Final = 1000
"""Bytes of a whole path; systems take 1,024 or 4,096, with the folder's own path before it."""
_ODD: Final = re.compile(r"[\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""The backslash, control characters, and halves of characters."""
_OWN_FOLDERS: Final = frozenset({"tracks", "authors"})
_OWN_SUFFIXES: Final = (
    *(".json", ".jsonl", ".csv", ".yaml", ".html", ".lock"),
    *(".sqlite", ".sqlite-wal", ".sqlite-shm", ".sqlite-journal"),
)


def check_stored(value: str) -> str:
    """The path itself; ``ValueError`` where it could lead anywhere but to one place below."""
    parts = value.split("/")
    drive = len(value) > 1 and value[1] == ":" and value[0].isalpha()
    odd = _ODD.search(value) is not None
    if drive or odd or any(part in ("", ".", "..") for part in parts):
        raise ValueError(
            f"{value!r} is no path inside the data set; expected one such as 'videos/0001.mp4': "
            "relative, with '/' between names, without '.', '..', '\\' and control characters"
        )
    for part in parts:
        if len(part.encode()) > _MOST_BYTES:
            raise ValueError(
                f"the name {part[:20]!r}... has {len(part.encode())} bytes; at most {_MOST_BYTES}"
            )
        if is_temporary(Path(part)):
            raise ValueError(
                f"{value!r} is a temporary name, since it holds {part!r}; expected another"
            )
    if len(value.encode()) > _MOST_IN_ALL:
        raise ValueError(
            f"the path {value[:20]!r}... has {len(value.encode())} bytes; at most {_MOST_IN_ALL}"
        )
    return value


def _check_video(value: str) -> str:
    folded = PurePosixPath(check_stored(value).casefold())
    hidden = any(part[0] == "." for part in folded.parts)  # no run notices when they change
    if hidden or folded.name.endswith(_OWN_SUFFIXES) or folded.parts[0] in _OWN_FOLDERS:
        raise ValueError(
            f"{value!r} is the name of a file of the data set's own, or hidden; expected a video, "
            "such as 'videos/0001.mp4'"
        )
    return value


VideoPath = Annotated[str, AfterValidator(_check_video)]
"""A stored path of a video: no hidden name, and none that a data set keeps for its own files."""


def inside(root: Path, stored: str) -> Path:
    """``root / stored`` where that lies below ``root``, through all links; else ``MatrixError``.

    The last check before a file is copied from a strange folder or written into an output.
    """
    path = root / stored
    try:
        check_stored(stored)
        below = path.resolve().is_relative_to(root.resolve())
    except (ValueError, OSError, RuntimeError) as error:
        raise MatrixError(str(error), remedy="Correct the path", file=root, field="path") from error
    if not below:
        raise MatrixError(
            f"this is a link out of {root}",
            remedy="Put the file itself in its place (cp -L), or remove the link",
            file=path,
        )
    return path
