"""What a check finds, and how it is told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from matrix_video.services.errors import MatrixError

_OWN_WORDS = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")
"""What differs between repetitions of one mistake: names, texts, numbers."""


@dataclass
class Findings:
    """Collects while a check runs."""

    problems: list[MatrixError] = field(default_factory=list[MatrixError])
    notes: list[MatrixError] = field(default_factory=list[MatrixError])

    def problem(self, file: Path, place: str | None, problem: str, remedy: str) -> None:
        self.problems.append(MatrixError(problem, remedy=remedy, file=file, field=place))

    def note(self, file: Path, place: str | None, problem: str, remedy: str) -> None:
        self.notes.append(MatrixError(problem, remedy=remedy, file=file, field=place))


@dataclass(frozen=True)
class Report:
    """``problems`` make a data set unfit; ``notes`` are legal; ``summary`` says what was proved."""

    problems: tuple[MatrixError, ...]
    notes: tuple[MatrixError, ...]
    summary: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def lines(self, *, every: bool = False) -> list[str]:
        """For the console: a mistake that repeats is told once with its count, unless ``every``."""
        counts = f"problems: {len(self.problems)}, notes: {len(self.notes)}"
        return [
            *_told("problem", self.problems, every),
            *_told("note", self.notes, every),
            *self.summary,
            *([counts] if self.problems or self.notes else []),
        ]


def _told(kind: str, found: Iterable[MatrixError], every: bool) -> Iterator[str]:
    groups: dict[object, list[MatrixError]] = {}
    for index, error in enumerate(found):
        what = _OWN_WORDS.sub("", f"{error.field} {error.problem} {error.remedy}")
        groups.setdefault(index if every else what, []).append(error)
    for first, *more in groups.values():
        yield f"{kind}: {first}"
        if more:
            last = f"{more[-1].file}: {more[-1].field}" if more[-1].field else str(more[-1].file)
            yield f"    and {len(more)} more of this kind, the last at {last}"
