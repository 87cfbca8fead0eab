"""JSON files that hold one pydantic record."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from matrix_video.services.errors import MatrixError
from matrix_video.services.files import read_json

_Record = TypeVar("_Record", bound=BaseModel)


def read_record(path: Path, model: type[_Record], *, what: str, remedy: str) -> _Record:
    """Read and validate; `MatrixError` names the first field that is wrong.

    ``what`` completes "not …": "an adapter description".
    """
    content = read_json(path)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise invalid_record(path, error, what=what, remedy=remedy) from error


def invalid_record(path: Path, error: ValidationError, *, what: str, remedy: str) -> MatrixError:
    """The error about a record that was read in another way."""
    first = error.errors()[0]
    return MatrixError(
        f"not {what} ({first['msg']})",
        remedy=remedy,
        file=path,
        field=".".join(str(part) for part in first["loc"]) or None,
    )
