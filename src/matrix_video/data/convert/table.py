"""The authors' metadata file: rows with ``video`` and ``prompt``, as CSV, JSON or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from matrix_video.services.errors import MatrixError
from matrix_video.services.files import parse_json

COLUMNS: Final = ("video", "prompt")


@dataclass(frozen=True)
class Table:
    """``kind`` is csv, json or jsonl, ``columns`` the CSV's header; rows of the other kinds carry
    their own keys in order."""

    kind: str
    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]


def read_table(path: Path) -> Table:
    """Parse by suffix. ``MatrixError`` names the line or row, and the column, that is wrong."""
    kind, columns = path.suffix[1:], COLUMNS
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MatrixError(
            f"the file is not UTF-8 ({error.reason} at byte {error.start})",
            remedy="Save it as UTF-8",
            file=path,
        ) from error
    if kind == "csv":
        columns, entries = _read_csv(path, text)
    elif kind == "json":
        value = _json(path, text, None)
        if not isinstance(value, list):
            raise _wrong(path, None, "expected a list of objects with 'video' and 'prompt'")
        entries = [(f"row {n}", entry) for n, entry in enumerate(cast("list[object]", value))]
    else:
        numbered = [(f"line {n}", line) for n, line in enumerate(text.split("\n"), start=1)]
        entries = [(place, _json(path, line, place)) for place, line in numbered if line.strip()]
    rows: list[dict[str, Any]] = []
    for place, entry in entries:
        if not isinstance(entry, dict):
            raise _wrong(path, place, "expected an object with 'video' and 'prompt'")
        row = cast("dict[str, Any]", entry)
        for column in COLUMNS:
            if not isinstance(row.get(column), str):
                raise _wrong(path, f"{place}: {column}", f"expected text, found {row.get(column)}")
        rows.append(row)
    return Table(kind, columns, tuple(rows))


def render_table(table: Table) -> bytes:
    """The file's bytes in our own formatting (UTF-8, line feeds, quotes where needed)."""
    if table.kind == "csv":
        lines = [table.columns]
        lines += [tuple(row.get(column, "") for column in table.columns) for row in table.rows]
        return "".join(",".join(map(_cell, line)) + "\n" for line in lines).encode()
    if table.kind == "json":
        return (json.dumps(table.rows, indent=2, ensure_ascii=False) + "\n").encode()
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.rows).encode()


def _cell(text: str) -> str:
    """Quoted where needed; the csv module does not quote a lone carriage return."""
    if any(letter in text for letter in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _read_csv(path: Path, text: str) -> tuple[tuple[str, ...], Iterable[tuple[str, object]]]:
    """The columns, and the place and cells of each row."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [(f"line {reader.line_num}", cells) for cells in reader if cells]
    except csv.Error as error:
        raise _wrong(path, f"line {reader.line_num}", f"this is not CSV ({error})") from error
    columns = lines[0][1] if lines else []
    for column in COLUMNS:
        if columns.count(column) != 1:
            raise _wrong(
                path, "line 1", f"expected one column {column!r} among the columns {columns}"
            )
    if len(set(columns)) != len(columns):
        raise _wrong(path, "line 1", f"two columns have the same name: {columns}")
    for place, cells in lines:
        if len(cells) != len(columns):
            raise _wrong(
                path,
                place,
                f"{len(cells)} cells under {len(columns)} columns; a comma in a prompt needs "
                "quotes around it",
            )
    rows = [(place, dict(zip(columns, cells, strict=True))) for place, cells in lines[1:]]
    return tuple(columns), rows


def _json(path: Path, text: str, place: str | None) -> object:
    try:
        return parse_json(text)
    except ValueError as error:
        raise _wrong(path, place, f"this is not valid JSON ({error})") from error


def _wrong(path: Path, field: str | None, problem: str) -> MatrixError:
    return MatrixError(problem, remedy="Correct it", file=path, field=field)
