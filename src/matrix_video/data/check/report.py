"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from matrix_video.services.errors import MatrixError


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing; reads like the error that it would become."""

    file: Path
    field: str | None
    problem: str
    remedy: str

    @classmethod
    def of(cls, error: MatrixError, fallback: Path) -> Self:
        return cls(error.file or fallback, error.field, error.problem, error.remedy)

    def __str__(self) -> str:
        place = f"{self.file}: {self.field}" if self.field else str(self.file)
        return f"{place}: {self.problem.rstrip('.')}. {self.remedy.rstrip('.')}."


@dataclass(frozen=True)
class Report:
    """``problems`` make a data set unfit; ``notes`` are legal; ``summary`` says what was proved."""

    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    summary: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


class Findings:
    """Collects while a check runs."""

    def __init__(self) -> None:
        self.problems: list[Finding] = []
        self.notes: list[Finding] = []

    def problem(self, file: Path, field: str | None, problem: str, remedy: str) -> None:
        self.problems.append(Finding(file, field, problem, remedy))

    def note(self, file: Path, field: str | None, problem: str, remedy: str) -> None:
        self.notes.append(Finding(file, field, problem, remedy))

    def error(self, error: MatrixError, fallback: Path) -> None:
        self.problems.append(Finding.of(error, fallback))
