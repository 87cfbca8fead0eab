"""The one exception type that users see."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 2000


class MatrixError(Exception):
    """A mistake in what we were given, or a condition we cannot work around.

    Renders as one paragraph that names the place, the problem and the remedy. Mistakes of our own
    are assertions or plain exceptions, never this type.
    """

    def __init__(
        self,
        problem: str,
        *,
        remedy: str,
        file: Path | str | None = None,
        field: str | None = None,
    ) -> None:
        # What was found may be a stranger's and without end.
        self.problem = problem if len(problem) <= _LONGEST else f"{problem[:_LONGEST]} ..."
        self.remedy = remedy
        self.file = None if file is None else Path(file)
        self.field = field
        place = ": ".join(str(part) for part in (file, field) if part is not None)
        prefix = f"{place}: " if place else ""
        super().__init__(f"{prefix}{self.problem.rstrip('.')}. {remedy.rstrip('.')}.")


@contextmanager
def naming(subject: str) -> Generator[None]:
    """Within, a `MatrixError` says what it is about first, e.g. "sample a7"."""
    try:
        yield
    except MatrixError as error:
        raise MatrixError(
            f"{subject}: {error.problem}",
            remedy=error.remedy,
            file=error.file,
            field=error.field,
        ) from error
