"""``metadata.jsonl``: one sample a line, read once for the strict reader and for `matrix check`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from matrix_video.data.sample import Draft, Fault, Sample
from matrix_video.data.validate import Read, validate
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import parse_json

FILE_NAME = "metadata.jsonl"
JOURNAL = "metadata.partial.jsonl"
"""Beside it while a writer is at work, or after one was interrupted."""
FORMAT: Final = 2
"""Of the lines that we write; those of format 1 have the same fields and no number."""
_LONGEST: Final = 4 * 2**20
"""Bytes of a line; one with 64 instances, each mentioned ten times, is a hundredth of that."""


@dataclass(frozen=True)
class Line:
    """A line that could be read, at least in part."""

    number: int
    draft: Draft
    moved: bool = False
    """As `validate.Read.moved`."""

    def error(self, path: Path, fault: Fault) -> MatrixError:
        """The fault of this line of the file at ``path``."""
        return _error(path, self.number, fault)


@dataclass
class Scan:
    """What a metadata file holds, and every problem for which it cannot be used."""

    lines: list[Line] = field(default_factory=list[Line])
    problems: list[MatrixError] = field(default_factory=list[MatrixError])


def dump_line(sample: Sample) -> str:
    """One line with its line feed; JSON keeps line feeds inside strings escaped."""
    return f'{{"format":{FORMAT},{sample.model_dump_json()[1:]}\n'


def metadata_file(folder: Path) -> Path:
    """The metadata of a data set; `MatrixError` where the folder is none, or is unfinished."""
    file = folder / FILE_NAME
    if file.is_file():
        return file
    if (folder / JOURNAL).is_file():
        raise MatrixError(
            f"the data set is unfinished: it has {JOURNAL} but no {FILE_NAME}",
            remedy="Run the command that writes it again; it goes on where it stopped",
            file=folder,
        )
    raise MatrixError(
        f"the folder has no {FILE_NAME}" if folder.is_dir() else "there is no such folder",
        remedy="Give the folder of a data set, or make one with 'matrix world' or 'matrix convert'",
        file=folder,
    )


def read_samples(path: Path) -> tuple[Sample, ...]:
    """The samples of a metadata file; `MatrixError` with the first problem where there is any."""
    scan = scan_metadata(path)
    if scan.problems:
        raise scan.problems[0]
    return tuple(Sample(**dict(line.draft)) for line in scan.lines)


def scan_metadata(path: Path) -> Scan:
    """Read every line; empty lines are skipped. Problems name file, line, field and remedy.

    Raises `MatrixError` only where the file itself cannot be read.
    """
    scan = Scan()
    owners: dict[str, int] = {}  # the line of each id and each video
    try:
        for number, raw in _raw_lines(path):
            read = _read(raw)
            draft, faults = read.draft, list(read.faults)
            if draft is not None:
                again = owners.setdefault(f"id {draft.id}", number)
                shared = owners.setdefault(f"video {draft.file_name}", number)
                if again != number:
                    problem = f"{draft.id!r} is already the id of line {again}"
                    faults.append(Fault("id", problem, "Give every sample an id of its own"))
                elif shared != number:
                    problem = f"{draft.file_name!r} is already the video of line {shared}"
                    faults.append(Fault("file_name", problem, "Give every sample its own video"))
                if again == number:
                    scan.lines.append(Line(number, draft, read.moved))
            scan.problems += [_error(path, number, fault) for fault in faults]
    except OSError as error:
        raise MatrixError(
            f"cannot be read ({error.strerror})",
            remedy="Check that the folder is a data set and readable",
            file=path,
        ) from error
    return scan


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, each cut just beyond the longest that is read.

    They end at line feeds alone: JSON strings may hold other Unicode line separators.
    """
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(_LONGEST + 1):
            number += 1
            if raw.strip():
                yield number, raw
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(_LONGEST)


def _error(path: Path, number: int, fault: Fault) -> MatrixError:
    where = f"line {number}" + (f": {fault.field}" if fault.field else "")
    return MatrixError(fault.problem, remedy=fault.remedy, file=path, field=where)


def _read(raw: bytes) -> Read:
    remedy = "Correct this line, or remove it"
    if len(raw) > _LONGEST:
        return Read(None, [Fault("", f"the line has more than {_LONGEST:,} bytes", remedy)])
    try:
        value = parse_json(raw.decode("utf-8-sig"), strict=True)
    except ValueError as error:
        return Read(None, [Fault("", f"this is not a line of JSON ({error})", remedy)])
    if not isinstance(value, dict):
        kinds = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
        found = kinds.get(type(value), "a number")
        return Read(None, [Fault("", f"expected a JSON object, found {found}", remedy)])
    fields = cast("dict[str, Any]", value)
    number = fields.pop("format", 1)
    if type(number) is not int or not 1 <= number <= FORMAT:
        problem = f"the line is of format {number!r}; formats 1 to {FORMAT} can be read"
        return Read(None, [Fault("format", problem, "Install a newer matrix-video, or correct it")])
    return validate(fields)
