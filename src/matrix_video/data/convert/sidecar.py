"""The sidecar files: what one layout cannot hold of the other.

In ours, ``authors.json`` lists the clips' rows in the authors' metadata file, which lies beside it
as it was (``authors/metadata.csv``); ``authors/plans/<id>.json`` says how a clip's PNGs were made,
``authors/masks/<id>/<id1>/`` holds PNGs that no plan can make, ``authors/extra/`` all other files.
In theirs, ``matrix.jsonl`` holds samples and ``matrix/`` all other files of ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from matrix_video.data.convert.png import Form, Value
from matrix_video.data.sample import Record, Sample
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import write_atomic

KEPT: Literal["kept"] = "kept"
AUTHORS_FILE, AUTHORS_FOLDER = "authors.json", "authors"
MATRIX_FILE, MATRIX_FOLDER = "matrix.jsonl", "matrix"
MERGED = "merged"

_R = TypeVar("_R", bound=Record)


class IdPlan(Record):
    """Folder name, digits of the frame names, and per frame: a form, kept whole, or no file."""

    folder: str
    width: int
    forms: tuple[Form, ...]
    frames: tuple[int | Literal["kept"] | None, ...]


class MergedPlan(Record):
    """Per frame an index into ``orders`` (ids from bottom to top), kept whole, or no file.

    ``masks``: of kept frames, a key that changes when any of their masks does.
    """

    width: int
    mode: str
    palette: str | None
    background: Value
    colours: dict[str, Value]
    orders: tuple[tuple[str, ...], ...]
    frames: tuple[int | Literal["kept"] | None, ...]
    masks: dict[str, str]


class ClipPlan(Record):
    """How a clip's PNGs differ from the default: only such ids; ``merged`` None: no folder."""

    ids: dict[str, IdPlan] = Field(default_factory=dict[str, IdPlan])
    merged: MergedPlan | Literal["default"] | None = "default"


class ClipEntry(Record):
    """Where a clip came from: its row, its video as the row writes it and as it lay below the
    root, its mask folder; and the name that the video has here."""

    row: int
    video: str
    path: str
    file_name: str
    masks: str | None


class AuthorsSidecar(Record):
    format: Literal[1] = 1
    metadata: str
    clips: dict[str, ClipEntry]


class MatrixLine(Record):
    """A sample as we had it, and the row that was written for it."""

    video: str
    prompt: str
    sample: Sample


def read_authors_sidecar(root: Path) -> AuthorsSidecar | None:
    path = root / AUTHORS_FILE
    return _read(path, path.read_bytes(), AuthorsSidecar) if path.is_file() else None


def plan_path(root: Path, id: str) -> Path:
    return root / AUTHORS_FOLDER / "plans" / f"{id}.json"


def kept_path(root: Path, id: str, folder: str, name: str) -> Path:
    """``folder`` is the instance's id or ``merged``."""
    return root / AUTHORS_FOLDER / "masks" / id / folder / name


def read_plan(root: Path, id: str) -> ClipPlan:
    path = plan_path(root, id)
    return _read(path, path.read_bytes(), ClipPlan) if path.is_file() else ClipPlan()


def write_record(path: Path, record: Record) -> None:
    """Indented, but with no line of its own for each frame."""
    value = record.model_dump(mode="json")
    lines = ",\n".join(
        f" {json.dumps(key)}: {json.dumps(item, ensure_ascii=False)}" for key, item in value.items()
    )
    write_atomic(path, "{\n" + lines + "\n}\n")


def read_matrix_lines(root: Path) -> list[MatrixLine]:
    path = root / MATRIX_FILE
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")
    return [
        _read(path, line, MatrixLine, f"line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _read(path: Path, raw: bytes, model: type[_R], field: str | None = None) -> _R:
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        item = error.errors()[0]
        place = ".".join(str(part) for part in item["loc"])
        raise MatrixError(
            f"the sidecar is broken ({item['msg']})",
            remedy="Restore the file, or remove it: what the other layout alone held is lost then",
            file=path,
            field=": ".join(part for part in (field, place) if part) or None,
        ) from error
