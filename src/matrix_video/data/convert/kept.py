"""What one layout keeps for the other, clip by clip.

In ours ``authors/clips/<id>.json`` tells where a clip came from, and ``<id>.zip`` beside it holds
its mask folder as it was. In theirs ``matrix.jsonl`` holds samples. All of it may come from
strangers: it is validated when read, and nothing of it names a place outside the data set.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from matrix_video.data.convert.recognise import AUTHORS, MATRIX_LINES
from matrix_video.data.paths import VideoPath, check_stored, inside
from matrix_video.data.sample import Record, Sample
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import LOCK, TEMPORARY

Files = dict[str, bytes]
"""Contents of a mask folder by path below it; an empty folder ends in ``/``."""

_R = TypeVar("_R", bound=Record)


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


def write_facts(target: Path, id: str, facts: Facts, files: Mapping[str, bytes]) -> None:
    """Keep a clip of the authors in a data set of ours; equal files give equal bytes."""
    folder = inside(target, f"{AUTHORS}/clips")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{id}.json").write_text(facts.model_dump_json() + "\n", encoding="utf-8")
    archive = folder / f"{id}.zip"
    archive.unlink(missing_ok=True)
    if files:
        with zipfile.ZipFile(archive, "w") as out:  # stored: PNGs do not get smaller
            for name in sorted(files):
                out.writestr(zipfile.ZipInfo(name), files[name])


def facts_paths(source: Path, id: str) -> tuple[Path, Path]:
    """The two files of a clip, which need not exist."""
    name = f"{AUTHORS}/clips/{id}"
    return inside(source, f"{name}.json"), inside(source, f"{name}.zip")


def read_facts(source: Path, id: str) -> Facts | None:
    path, _ = facts_paths(source, id)
    return _parse(path, path.read_bytes(), Facts) if path.is_file() else None


def read_files(source: Path, id: str) -> Files:
    """The mask folder that was kept; ``MatrixError`` for a torn archive or a name outside it."""
    _, path = facts_paths(source, id)
    if not path.is_file():
        return {}
    files: Files = {}
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


def digest(files: Mapping[str, bytes]) -> str:
    """Changes with any name or content."""
    found = hashlib.sha256()
    for name in sorted(files):
        found.update(f"{name}\0{len(files[name])}\0".encode())
        found.update(files[name])
    return found.hexdigest()


def read_lines(root: Path) -> list[MatrixLine]:
    """``matrix.jsonl`` of a data set in the authors' layout."""
    if not (root / MATRIX_LINES).is_file():
        return []
    path = inside(root, MATRIX_LINES)
    lines = path.read_bytes().split(b"\n")
    return [
        _parse(path, line, MatrixLine, f"line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def walk(
    root: Path, below: str, skip: Callable[[str], bool], refused: list[str] | None = None
) -> Iterator[str]:
    """Files below ``root / below`` and empty folders (with ``/``), sorted, as paths below ``root``.

    Folders and files of which ``skip`` says so are left out, and temporary ones. ``MatrixError``
    for a link that leads out of ``root`` or to a folder, and for names that cannot be stored; with
    ``refused`` those are left out, and told there.
    """
    entries = sorted(os.scandir(root / below), key=lambda entry: entry.name)
    for entry in entries:
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.name.startswith(TEMPORARY) or entry.name == LOCK or skip(name):
            continue
        try:
            _check_entry(root, name, entry)
        except MatrixError as error:
            if refused is None:
                raise
            refused.append(str(error))
            continue
        if entry.is_dir():
            found = False
            for inner in walk(root, name, skip, refused):
                found = True
                yield inner
            if not found and not any(os.scandir(entry.path)):
                yield name + "/"
        elif entry.is_file():
            yield name


def _check_entry(root: Path, name: str, entry: os.DirEntry[str]) -> None:
    if entry.is_symlink() and inside(root, name).is_dir():
        raise MatrixError(
            "links to folders are not followed",
            remedy="Put the folder itself in its place",
            file=root / name,
        )
    try:
        check_stored(name)
    except ValueError as error:
        raise MatrixError(str(error), remedy="Rename the file", file=root / name) from error


def _parse(path: Path, raw: bytes, model: type[_R], field: str | None = None) -> _R:
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        item = error.errors()[0]
        place = ".".join(str(part) for part in item["loc"])
        raise MatrixError(
            f"the record is broken ({item['msg']})",
            remedy="Restore the file, or remove it: what the other layout alone held is lost then",
            file=path,
            field=": ".join(part for part in (field, place) if part) or None,
        ) from error
