"""The authors' metadata file: rows with ``video`` and ``prompt``, as CSV, JSON or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from matrix_video.data.convert.recognise import TABLES
from matrix_video.services.errors import MatrixError

Kind = Literal["csv", "json", "jsonl"]
COLUMNS = ("video", "prompt")


@dataclass(frozen=True)
class Table:
    """``columns`` is the CSV's header; rows of the other kinds carry their own keys in order."""

    kind: Kind
    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]


def find_table(root: Path) -> Path:
    """The metadata file of a folder in the authors' layout."""
    for name in TABLES:
        if (root / name).is_file():
            return root / name
    raise MatrixError(
        f"the folder has no metadata: looked for {', '.join(TABLES)}",
        remedy="Add one with the columns 'video' and 'prompt'",
        file=root,
    )


def read_table(path: Path) -> Table:
    """Parse by suffix. ``MatrixError`` names the line or row, and the column, that is wrong."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MatrixError(
            f"the file is not UTF-8 ({error.reason} at byte {error.start})",
            remedy="Save it as UTF-8",
            file=path,
        ) from error
    if path.suffix == ".csv":
        return _read_csv(path, text)
    entries = _read_lines(path, text) if path.suffix == ".jsonl" else _read_list(path, text)
    rows: list[dict[str, Any]] = []
    for place, entry in entries:
        if not isinstance(entry, dict):
            raise _wrong(path, place, "expected an object with 'video' and 'prompt'")
        row = cast("dict[str, Any]", entry)
        for column in COLUMNS:
            if not isinstance(row.get(column), str):
                raise _wrong(path, f"{place}: {column}", f"expected text, found {row.get(column)}")
        rows.append(row)
    kind: Kind = "jsonl" if path.suffix == ".jsonl" else "json"
    return Table(kind, COLUMNS, tuple(rows))


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


def _read_csv(path: Path, text: str) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[dict[str, Any]] = []
    columns: list[str] = []
    try:
        for cells in reader:
            if not cells:
                continue
            if not columns:
                columns = cells
                _check_columns(path, columns)
                continue
            if len(cells) != len(columns):
                raise _wrong(
                    path,
                    f"line {reader.line_num}",
                    f"{len(cells)} cells under {len(columns)} columns; a comma in a prompt needs "
                    "quotes around it",
                )
            rows.append(dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        raise _wrong(path, f"line {reader.line_num}", f"this is not CSV ({error})") from error
    if not columns:
        _check_columns(path, columns)
    return Table("csv", tuple(columns), tuple(rows))


def _check_columns(path: Path, columns: list[str]) -> None:
    for column in COLUMNS:
        if columns.count(column) != 1:
            raise _wrong(
                path, "line 1", f"expected one column {column!r} among the columns {columns}"
            )
    if len(set(columns)) != len(columns):
        raise _wrong(path, "line 1", f"two columns have the same name: {columns}")


def _read_lines(path: Path, text: str) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                found.append((f"line {number}", json.loads(line)))
            except ValueError as error:
                raise _wrong(
                    path, f"line {number}", f"this is not a line of JSON ({error})"
                ) from error
    return found


def _read_list(path: Path, text: str) -> list[tuple[str, object]]:
    try:
        value: object = json.loads(text)
    except ValueError as error:
        raise MatrixError(
            f"this is not valid JSON ({error})", remedy="Correct the file", file=path
        ) from error
    if not isinstance(value, list):
        raise MatrixError(
            "expected a list of objects with 'video' and 'prompt'",
            remedy="Correct the file",
            file=path,
        )
    entries = cast("list[object]", value)
    return [(f"row {number}", entry) for number, entry in enumerate(entries)]


def _wrong(path: Path, field: str, problem: str) -> MatrixError:
    return MatrixError(problem, remedy="Correct this row", file=path, field=field)
