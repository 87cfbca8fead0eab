"""Run folders as the report sees them: what kind each is, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from matrix_video.analysis.layers import CHOICE
from matrix_video.evaluation.scores import SCORES
from matrix_video.services.config import read_config
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import read_json

RunKind = Literal["analyze", "train", "generate", "evaluate"]
DATASET: Final = "dataset"
_KINDS: Final[dict[RunKind, tuple[str, str]]] = {
    "analyze": (CHOICE, "data"),
    "train": ("adapter", "data"),
    "generate": (f"{DATASET}/metadata.jsonl", "prompts"),
    "evaluate": (SCORES, "videos"),
}
"""What a finished run of each kind holds, and the setting that names what it worked on."""


@dataclass(frozen=True)
class Run:
    """One run folder under the name that the page gives it. ``config`` are its settings."""

    label: str
    path: Path
    kind: RunKind
    config: Mapping[str, Any]
    seconds: float | None = None
    """Wall-clock time; None where the run did not record it."""

    @property
    def finished(self) -> bool:
        """Whether its result is there."""
        return (self.path / _KINDS[self.kind][0]).exists()

    @property
    def settings(self) -> dict[str, str]:
        """Every resolved setting in words, in the order of the run's own file."""
        return {name: _text(value) for name, value in self.config.items() if name != "command"}

    @property
    def named_data(self) -> str | None:
        """What it worked on, as its settings name it; of a generation run its prompt set, of an
        evaluation the videos."""
        named = self.config.get(_KINDS[self.kind][1])
        return None if named is None else str(named)

    @property
    def data(self) -> Path | None:
        """Where that is.

        A relative name starts in the folder that the run was started in, which is the run's own
        path less its ``out``. Where that tells nothing (``out`` was absolute, or the run was
        moved), it starts in the working directory.
        """
        if self.named_data is None:
            return None
        out = Path(str(self.config.get("out") or "")).parts
        here = self.path.absolute().parts  # `resolve` would follow links
        start = Path(*here[: -len(out)]) if out and here[-len(out) :] == out else Path()
        there = start / self.named_data
        return there if there.exists() else Path(self.named_data)


def open_runs(named: Iterable[tuple[str, Path]]) -> tuple[Run, ...]:
    """Read what each folder is; labels must differ.

    Raises `MatrixError` for a folder that is not there or is no run of a kind that is reported.
    """
    runs: list[Run] = []
    for label, path in named:
        if any(run.label == label for run in runs):
            raise MatrixError(
                f"two runs are called {label!r}",
                remedy="Give each its own name, as in --runs LoRA=runs/lora MATRIX=runs/matrix",
                field="runs",
            )
        kind, config = _kind(path)
        times = [_facts(file).get("seconds") for file in sorted((path / "done").glob("*.json"))]
        known = [float(seconds) for seconds in times if isinstance(seconds, int | float)]
        runs.append(Run(label, path, kind, config, sum(known) if known else None))
    return tuple(runs)


def _kind(path: Path) -> tuple[RunKind, dict[str, Any]]:
    remedy = "Give the folder of an analyze, train, generate or evaluate run"
    if not path.is_dir():
        raise MatrixError("there is no such run folder", remedy=remedy, file=path)
    config = read_config(path)
    for kind, (result, _) in _KINDS.items():
        # Without a command: results that were copied without their settings.
        if config.get("command") == kind or ("command" not in config and (path / result).exists()):
            return kind, config
    found = config.get("command")
    what = f"it holds a run of {found!r}, which no report shows" if found else "it is no run folder"
    raise MatrixError(what, remedy=remedy, file=path)


def _facts(file: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is not there or holds something else."""
    stored: object = read_json(file) if file.is_file() else None
    return cast("dict[str, Any]", stored) if isinstance(stored, dict) else {}


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(str(part) for part in cast("Sequence[object]", value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def versions(runs: Sequence[Run]) -> tuple[tuple[str, str], ...]:
    """Versions and machine of all runs; where they differ, each value with its runs."""
    values: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        for name, value in _facts(run.path / "environment.json").items():
            parts = cast("dict[str, object]", value) if isinstance(value, dict) else {name: value}
            for part, found in parts.items():
                values.setdefault(part, {}).setdefault(_text(found), []).append(run.label)
    return tuple(
        (
            name,
            next(iter(found))
            if len(found) == 1
            else "; ".join(f"{text} ({', '.join(labels)})" for text, labels in found.items()),
        )
        for name, found in values.items()
    )
