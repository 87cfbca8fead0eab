"""JSON files of one pydantic record, and files with a record a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, ValidationError

from matrix_video.services.errors import MatrixError
from matrix_video.services.files import parse_json, read_json

_Record = TypeVar("_Record", bound=BaseModel)
_LONGEST_LINE: Final = 4 * 2**20
"""Bytes; a sample with 64 instances, each mentioned ten times, takes a hundredth of that."""


def read_record(
    path: Path, model: type[_Record], *, what: str, remedy: str, strict: bool = False
) -> _Record:
    """Read and validate; `MatrixError` names the first field that is wrong.

    ``what`` completes "not …": "an adapter description". ``strict``: as `parse_json` has it.
    """
    content = read_json(path, strict=strict)
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


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | MatrixError]]:
    """Number and object of each line that is not empty, read strictly; where a line holds none, the
    error that says so.

    Lines end at line feeds alone: JSON strings may hold other Unicode line separators. One of more
    than 4 MiB is never held whole. ``OSError`` where the file cannot be read.
    """
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(_LONGEST_LINE + 1):
            number += 1
            if raw.strip():
                yield number, _json_line(path, number, raw)
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(_LONGEST_LINE)


def _json_line(path: Path, number: int, raw: bytes) -> dict[str, Any] | MatrixError:
    problem = f"the line has more than {_LONGEST_LINE:,} bytes"
    if len(raw) <= _LONGEST_LINE:
        try:
            value = parse_json(raw.decode("utf-8-sig"), strict=True)
            if isinstance(value, dict):
                return cast("dict[str, Any]", value)
            problem = f"expected a JSON object, found {value!r}"
        except ValueError as error:
            problem = f"this is not a line of JSON ({error})"
    remedy = "Correct this line, or remove it"
    return MatrixError(problem, remedy=remedy, file=path, field=f"line {number}")
