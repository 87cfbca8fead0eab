"""``metadata.jsonl``: one sample a line, read once for the strict reader and for `matrix check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from matrix_video.data.sample import Draft, Sample, contradictions
from matrix_video.services.errors import MatrixError
from matrix_video.services.records import json_lines

FILE_NAME = "metadata.jsonl"
JOURNAL = "metadata.partial.jsonl"
"""Beside it while a writer is at work, or after one was interrupted."""
FORMAT: Final = 2
"""Of the lines that we write; those of format 1 have the same fields and no number."""


@dataclass(frozen=True)
class Line:
    """A line that could be read, at least in part.

    ``whole``: as far as instances and interactions go; without them, one can still look at the
    video.
    """

    number: int
    draft: Draft
    whole: bool


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
    lines, problems = scan_metadata(path)
    if problems:
        raise problems[0]
    return tuple(Sample(**dict(line.draft)) for line in lines)


def scan_metadata(path: Path) -> tuple[list[Line], list[MatrixError]]:
    """Every line that can be read, and every problem, with file, line, field and remedy.

    Empty lines are skipped. Raises `MatrixError` only where the file itself cannot be read.
    """
    lines: list[Line] = []
    found: list[MatrixError] = []
    owners: dict[str, int] = {}  # the line of each id and each video
    try:
        for number, fields in json_lines(path):
            if isinstance(fields, MatrixError):
                found.append(fields)
                continue
            line, problems = _read(number, fields)
            if line is not None:
                draft = line.draft
                again = owners.setdefault(f"id {draft.id}", number)
                shared = owners.setdefault(f"video {draft.file_name}", number)
                if again != number:
                    problem = f"{draft.id!r} is already the id of line {again}"
                    remedy = "Give every sample an id of its own"
                    problems.append(MatrixError(problem, remedy=remedy, field="id"))
                elif shared != number:
                    problem = f"{draft.file_name!r} is already the video of line {shared}"
                    remedy = "Give every sample its own video"
                    problems.append(MatrixError(problem, remedy=remedy, field="file_name"))
                if again == number:
                    lines.append(line)
            found += [in_line(path, number, problem) for problem in problems]
    except OSError as error:
        raise MatrixError(
            f"cannot be read ({error.strerror})",
            remedy="Check that the folder is a data set and readable",
            file=path,
        ) from error
    return lines, found


def in_line(path: Path, number: int, error: MatrixError) -> MatrixError:
    """The error, with the line of the file at ``path`` that it is about."""
    field = f"line {number}" + (f": {error.field}" if error.field else "")
    return MatrixError(error.problem, remedy=error.remedy, file=path, field=field)


def _read(number: int, fields: dict[str, Any]) -> tuple[Line | None, list[MatrixError]]:
    """A line as far as it can be read, and all for which a reader refuses it."""
    if wrong := wrong_format(fields, FORMAT):
        remedy = "Install a newer matrix-video, or correct it"
        return None, [MatrixError(f"the line is {wrong}", remedy=remedy, field="format")]
    try:
        draft = Draft.model_validate(fields)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
    else:
        return Line(number, draft, whole=True), contradictions(draft)
    remedy = "Correct this line, or remove it"
    problems: list[MatrixError] = []
    for item in errors:
        unknown = item["type"] == "extra_forbidden"
        problem = "unknown field" if unknown else item["msg"].removeprefix("Value error, ")
        mend = "Remove it, or correct its name" if unknown else remedy
        problems.append(MatrixError(problem, remedy=mend, field=place(item["loc"])))
    # What can be spared is left out, so that the rest is looked at as well.
    broken = {item["loc"][0] for item in errors}
    if not broken.isdisjoint(("id", "file_name", "caption")):
        return None, problems
    draft = Draft.model_validate({k: v for k, v in fields.items() if k not in broken})
    whole = broken.isdisjoint(("instances", "interactions"))
    return Line(number, draft, whole), problems + (contradictions(draft) if whole else [])


def wrong_format(fields: dict[str, Any], newest: int) -> str | None:
    """Take the number of its format from a record; what to say of it where we cannot read that.

    A record without a number is of format 1.
    """
    number = fields.pop("format", 1)
    if type(number) is int and 1 <= number <= newest:
        return None
    return f"of format {number!r}; formats 1 to {newest} can be read"


def place(loc: Sequence[int | str]) -> str:
    """A path of keys and indices as one writes it: ``instances[0].noun``."""
    parts = (
        f"[{part}]" if isinstance(part, int) else f".{part if part.isprintable() else ascii(part)}"
        for part in loc
    )
    return "".join(parts).removeprefix(".")
