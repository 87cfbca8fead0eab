"""Names in the two layouts, and which of them a folder is in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal, cast

from matrix_video.data.metadata import FILE_NAME
from matrix_video.services.errors import MatrixError

Layout = Literal["matrix", "authors"]

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


def recognise(source: Path) -> Layout:
    """The layout of a folder; ``MatrixError`` says what was looked for where it is neither.

    The first line of ``metadata.jsonl`` decides (``file_name``: ours, ``video``: the authors');
    without one, or where it is broken, the files and folders that only one layout has.
    """
    if not source.is_dir():
        raise MatrixError(
            "there is no such folder", remedy="Give the folder of a data set", file=source
        )
    fields = _first_fields(source / FILE_NAME)
    if "file_name" in fields:
        return "matrix"
    if "video" in fields:
        return "authors"
    if (source / MASKS).is_dir() or any((source / name).is_file() for name in TABLES[:2]):
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


def _first_fields(path: Path) -> set[str]:
    try:
        with path.open("rb") as lines:
            first = next((line for line in lines if line.strip()), b"")
        value: Any = json.loads(first)
    except (OSError, ValueError, RecursionError):
        return set()
    return set(cast("dict[str, Any]", value)) if isinstance(value, dict) else set()
