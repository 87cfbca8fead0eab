"""The two layouts: their names, which of them a folder is in, and what a mask folder holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, cast

from matrix_video.data.metadata import FILE_NAME
from matrix_video.data.sample import Sample
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import parse_json

Layout = Literal["matrix", "authors"]
Files = Mapping[str, bytes]
"""Contents of a mask folder by path below it; an empty folder ends in ``/``."""

VIDEOS: Final = "videos"
MASKS: Final = "mask_annotation"
MERGED: Final = "merged"
TABLES: Final = ("metadata.csv", "metadata.json", "metadata.jsonl")
"""The authors' metadata files; where there are several, the first is read."""
AUTHORS: Final = "authors"
"""Folder of ours for the authors' own files: their table, ``clips/<id>.json`` and ``.zip``, and
``extra/`` for all files that are no clip's."""
MATRIX: Final = "matrix"
MATRIX_LINES: Final = "matrix.jsonl"
"""What lies in theirs for us: samples, and the folder of all other files of ours."""
_FOLDER = re.compile(r"<id0*([1-9][0-9]{0,8})>|id0*([1-9][0-9]{0,8})", re.IGNORECASE)
_FRAME = re.compile(r"([0-9]{1,9})\.png")


def recognise(source: Path) -> Layout:
    """The layout of a folder; ``MatrixError`` says what was looked for where it is neither.

    The first line of ``metadata.jsonl`` decides (``file_name``: ours, ``video``: the authors');
    without one, or where it is broken, the files and folders that only one layout has.
    """
    if not source.is_dir():
        raise MatrixError(
            "there is no such folder", remedy="Give the folder of a data set", file=source
        )
    fields: Any = None
    try:
        with (source / FILE_NAME).open("rb") as lines:
            fields = parse_json(next((line for line in lines if line.strip()), b""))
    except (OSError, ValueError):
        pass
    fields = cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}
    if "file_name" in fields:
        return "matrix"
    theirs = (source / MASKS).is_dir() or any((source / name).is_file() for name in TABLES[:2])
    if "video" in fields or theirs:
        return "authors"
    if (source / FILE_NAME).is_file():
        return "matrix"
    raise MatrixError(
        f"the folder is in no layout that is known: looked for {FILE_NAME} (matrix), and for "
        f"{MASKS}/ or {', '.join(TABLES)} with 'video' and 'prompt' (authors)",
        remedy="Give the folder that holds these files; for videos with masks of your own, add "
        "--from masks",
        file=source,
    )


def find_table(root: Path) -> str | None:
    """The authors' metadata file in a folder."""
    return next((name for name in TABLES if (root / name).is_file()), None)


def mask_name(path: str) -> str:
    """The mask folder of a video: its path below ``videos`` without the suffix."""
    whole = PurePosixPath(path)
    below = whole.relative_to(VIDEOS) if whole.parts[0] == VIDEOS and whole.name != path else whole
    return str(below.with_suffix(""))


def video_field(sample: Sample) -> str:
    """How a row names the sample's video: its path below ``videos``, else by the sample's id."""
    path = PurePosixPath(sample.file_name)
    if path.parts[0] == VIDEOS and len(path.parts) > 1:
        return str(path.relative_to(VIDEOS))
    return sample.id + path.suffix


def id_number(name: str) -> int:
    """1 for id1; ids are sorted by it."""
    return int(name[2:])


@dataclass(frozen=True)
class Pictures:
    """The pictures of one id: their folder (``<id1>``, or ``id1``), and the file of each frame."""

    folder: str
    frames: dict[int, str]

    def new(self, t: int) -> str:
        """A file for one more frame, named as the others are."""
        digits = min((len(PurePosixPath(file).stem) for file in self.frames.values()), default=3)
        return f"{self.folder}/{t:0{digits}d}.png"


def pictures(files: Files, place: Path, num_frames: int) -> tuple[dict[str, Pictures], Pictures]:
    """What the mask folder at ``place`` holds for each id, in the order of ids, and ``merged``.

    ``MatrixError`` where an id has two folders, or a frame has two pictures or is not one of
    ``num_frames``.
    """
    merged = Pictures(MERGED, {})
    found: dict[str, Pictures] = {}
    for file in sorted(files):
        folder, slash, name = file.partition("/")
        if not slash:
            continue
        one = merged
        if folder != MERGED:
            if (match := _FOLDER.fullmatch(folder)) is None:
                continue
            known = f"id{match.group(1) or match.group(2)}"
            one = found.setdefault(known, Pictures(folder, {}))
            if one.folder != folder:
                raise MatrixError(
                    f"{known} has two mask folders, {one.folder!r} and {folder!r}",
                    remedy="Keep one of them",
                    file=place,
                )
        if (match := _FRAME.fullmatch(name)) is None:
            continue
        t = int(match.group(1))
        if t >= num_frames:
            raise MatrixError(
                f"there is a mask for frame {t}, but the video has {num_frames} frames "
                f"(0 to {num_frames - 1})",
                remedy="Make the masks from this very video, numbered from 0",
                file=place / file,
            )
        if one.frames.setdefault(t, file) != file:
            raise MatrixError(
                f"frame {t} has two masks, {one.frames[t]!r} and {file!r}",
                remedy="Name all frames of an id alike, such as 000.png, 001.png",
                file=place,
            )
    return {name: found[name] for name in sorted(found, key=id_number)}, merged
