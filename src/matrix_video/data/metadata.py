"""``metadata.jsonl``: one ``Sample`` a line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from matrix_video.data.sample import Sample
from matrix_video.services.errors import MatrixError

FILE_NAME = "metadata.jsonl"
JOURNAL = "metadata.partial.jsonl"
"""Beside it while a writer is at work, or after one was interrupted."""


@dataclass
class Scan:
    """What a metadata file holds: the good samples with their line numbers, and every problem."""

    samples: list[Sample] = field(default_factory=list[Sample])
    lines: list[int] = field(default_factory=list[int])
    problems: list[MatrixError] = field(default_factory=list[MatrixError])


def dump_line(sample: Sample) -> str:
    """One line with its line feed; JSON keeps line feeds inside strings escaped."""
    return sample.model_dump_json() + "\n"


def scan_metadata(path: Path) -> Scan:
    """Read every line; empty lines are skipped. Problems name file, line, field and remedy.

    Raises ``MatrixError`` only where the file itself cannot be read.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise MatrixError(
            f"cannot be read ({error.strerror})",
            remedy="Check that the folder is a data set and readable",
            file=path,
        ) from error
    scan = Scan()
    seen: dict[str, int] = {}
    # Lines end at line feeds alone: JSON strings may hold other Unicode line separators.
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            sample = Sample.model_validate_json(line)
        except ValidationError as error:
            scan.problems += _invalid(path, number, error)
            continue
        if sample.id in seen:
            scan.problems.append(
                MatrixError(
                    f"{sample.id!r} is already the id of line {seen[sample.id]}",
                    remedy="Give every sample an id of its own, or remove one line",
                    file=path,
                    field=f"line {number}: id",
                )
            )
            continue
        seen[sample.id] = number
        scan.samples.append(sample)
        scan.lines.append(number)
    return scan


def _invalid(path: Path, number: int, error: ValidationError) -> list[MatrixError]:
    found: list[MatrixError] = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        found.append(
            MatrixError(
                item["msg"].removeprefix("Value error, "),
                remedy="Correct this line, or remove it",
                file=path,
                field=f"line {number}" + (f": {place}" if place else ""),
            )
        )
    return found
