"""The one exception type that users see."""

from __future__ import annotations

from pathlib import Path


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
        self.problem = problem
        self.remedy = remedy
        self.file = None if file is None else Path(file)
        self.field = field
        place = ": ".join(str(part) for part in (file, field) if part is not None)
        prefix = f"{place}: " if place else ""
        super().__init__(f"{prefix}{problem.rstrip('.')}. {remedy.rstrip('.')}.")
