"""What one layout keeps for the other, clip by clip.

In ours ``authors/clips/<id>.json`` tells where a clip came from, and ``<id>.zip`` beside it holds
its mask folder as it was. In theirs ``matrix.jsonl`` holds samples. All of it may come from
strangers: it is validated when read, and nothing of it names a place outside the data set.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from matrix_video.data.convert.layout import AUTHORS, MATRIX_LINES, Files
from matrix_video.data.metadata import place
from matrix_video.data.paths import VideoPath, check_stored, inside
from matrix_video.data.sample import Record, Sample
from matrix_video.services.errors import MatrixError
from matrix_video.services.records import json_lines, read_record

_REMEDY = "Restore the file, or remove it: what the other layout alone held is lost then"


class Facts(Record):
    """Where a clip came from, and the name and tracks that it was given here."""

    format: Literal[2] = 2
    row: int = Field(ge=0, description="in the authors' metadata, from 0")
    video: str = Field(description="as the row writes it")
    path: VideoPath = Field(description="where it lay below the root")
    file_name: VideoPath
    tracks: str = Field(description="sha256 of the track file")


class MatrixLine(Record):
    """A sample as we had it, the row that was written for it, and ``masks``, the digest of its
    mask folder, where those pictures were drawn from our tracks."""

    video: str
    prompt: str
    sample: Sample
    masks: str | None = None


def facts_paths(root: Path, id: str) -> tuple[Path, Path]:
    """The two files of a clip, which need not exist."""
    name = f"{AUTHORS}/clips/{id}"
    return inside(root, f"{name}.json"), inside(root, f"{name}.zip")


def write_facts(target: Path, id: str, facts: Facts, files: Files) -> None:
    """Keep a clip of the authors in a data set of ours; equal files give equal bytes."""
    path, archive = facts_paths(target, id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(facts.model_dump_json() + "\n", encoding="utf-8")
    archive.unlink(missing_ok=True)
    if files:
        with zipfile.ZipFile(archive, "w") as out:  # stored: PNGs do not get smaller
            for name in sorted(files):
                out.writestr(zipfile.ZipInfo(name), files[name])


def read_facts(source: Path, id: str) -> Facts | None:
    """Where a clip came from; None for one that came from nowhere."""
    path, _ = facts_paths(source, id)
    if not path.is_file():
        return None
    return read_record(path, Facts, what="a record of a clip", remedy=_REMEDY, strict=True)


def read_files(source: Path, id: str) -> Files:
    """The mask folder that was kept; ``MatrixError`` for a torn archive or a name outside it."""
    _, path = facts_paths(source, id)
    if not path.is_file():
        return {}
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                check_stored(entry.filename.removesuffix("/"))
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{entry.filename!r} is compressed, not stored")
                files[entry.filename] = archive.read(entry)
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise MatrixError(
            f"the archive of the authors' masks is broken ({error})",
            remedy="Restore the file, or remove it: the masks are then drawn from the tracks",
            file=path,
        ) from error
    return files


def digest(files: Files) -> str:
    """Changes with any name or content."""
    found = hashlib.sha256()
    for name in sorted(files):
        found.update(f"{name}\0{len(files[name])}\0".encode())
        found.update(files[name])
    return found.hexdigest()


def read_lines(root: Path) -> list[MatrixLine]:
    """``matrix.jsonl`` of a data set in the authors' layout."""
    path = inside(root, MATRIX_LINES)
    lines: list[MatrixLine] = []
    for number, fields in json_lines(path) if path.is_file() else ():
        if isinstance(fields, MatrixError):
            raise fields
        try:
            lines.append(MatrixLine.model_validate(fields))
        except ValidationError as error:
            item = error.errors()[0]
            raise MatrixError(
                f"the record is broken ({item['msg'].removeprefix('Value error, ')})",
                remedy=_REMEDY,
                file=path,
                field=f"line {number}: {place(item['loc'])}",
            ) from error
    return lines
