"""Run folders as the report sees them: what kind each is, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from matrix_video.report.content import StageRun
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import read_json

RunKind = Literal["analyze", "train", "generate", "evaluate"]
LAYERS, SCORES, GENERATION, DATASET = "layers.json", "scores.json", "generation.json", "dataset"
CONFIG, ENVIRONMENT, OVERLAYS = "config.yaml", "environment.json", "overlays"

_RESULTS: Final[dict[RunKind, str]] = {
    "analyze": LAYERS,
    "train": "adapter",
    "generate": f"{DATASET}/metadata.jsonl",
    "evaluate": SCORES,
}
"""What a finished run of each kind holds."""
_DATA_FIELDS: Final = ("videos", "data", "prompts")


class Record(BaseModel):
    """Base of what is read from JSON: fields that the page does not show are passed over."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


_Model = TypeVar("_Model", bound=Record)


@dataclass(frozen=True)
class Run:
    """One run folder under the name that the page gives it. ``config`` are its settings."""

    label: str
    path: Path
    kind: RunKind
    config: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether its result is there."""
        return (self.path / _RESULTS[self.kind]).exists()

    @property
    def data(self) -> Path | None:
        """The data set that it worked on, as its settings name it."""
        return next((Path(str(self.config[f])) for f in _DATA_FIELDS if self.config.get(f)), None)


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
        runs.append(Run(label, path, *_kind(path)))
    return tuple(runs)


def _kind(path: Path) -> tuple[RunKind, dict[str, Any]]:
    remedy = "Give the folder of an analyze, train, generate or evaluate run"
    if not path.is_dir():
        raise MatrixError("there is no such run folder", remedy=remedy, file=path)
    config = _config(path)
    for kind in _RESULTS:
        if config.get("command") == kind:
            return kind, config
    for kind, result in _RESULTS.items():  # results that were copied without their settings
        if "command" not in config and (path / result).exists():
            return kind, config
    found = config.get("command")
    what = f"it holds a run of {found!r}, which no report shows" if found else "it is no run folder"
    raise MatrixError(what, remedy=remedy, file=path)


def _config(path: Path) -> dict[str, Any]:
    file = path / CONFIG
    if not file.is_file():
        return {}
    try:
        stored: object = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MatrixError(
            f"this is not valid YAML ({str(error).splitlines()[0]})",
            remedy="Restore the file from the run, or remove it",
            file=file,
        ) from error
    return cast("dict[str, Any]", stored) if isinstance(stored, dict) else {}


def stage_run(run: Run) -> StageRun:
    """The run's row in "what was run"."""
    config = run.config
    return StageRun(
        label=run.label,
        command=f"matrix {run.kind}",
        model=_text(config.get("model")),
        data=None if run.data is None else str(run.data),
        seed=_text(config.get("seed")),
        seconds=_seconds(run.path),
        settings=tuple(
            (name, _text(value) or "–") for name, value in config.items() if name != "command"
        ),
    )


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, list | tuple):
        return ", ".join(str(part) for part in cast("Sequence[object]", value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _seconds(path: Path) -> float | None:
    """Sum of the ``seconds`` that finished stages recorded."""
    found: list[float] = []
    for file in sorted((path / "done").glob("*.json")):
        facts: Any = read_json(file)
        value = cast("dict[str, Any]", facts).get("seconds") if isinstance(facts, dict) else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            found.append(float(value))
    return sum(found) if found else None


def versions(runs: Sequence[Run]) -> tuple[tuple[str, str], ...]:
    """Versions and machine of all runs; where they differ, each value with its runs."""
    values: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        file = run.path / ENVIRONMENT
        if not file.is_file():
            continue
        stored: Any = read_json(file)
        if not isinstance(stored, dict):
            continue
        flat: dict[str, object] = {}
        for name, value in cast("dict[str, object]", stored).items():
            if isinstance(value, dict):
                flat |= cast("dict[str, object]", value)
            else:
                flat[name] = value
        for name, value in flat.items():
            text = _text(value) or "–"
            values.setdefault(name, {}).setdefault(text, []).append(run.label)
    return tuple(
        (
            name,
            next(iter(found))
            if len(found) == 1
            else "; ".join(f"{text} ({', '.join(labels)})" for text, labels in found.items()),
        )
        for name, found in values.items()
    )


def read_model(path: Path, model: type[_Model], remedy: str) -> _Model:
    """A JSON file as a record; `MatrixError` names the file and the first wrong field."""
    try:
        return model.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise MatrixError(
            first["msg"].removeprefix("Value error, "),
            remedy=remedy,
            file=path,
            field=".".join(str(part) for part in first["loc"]) or None,
        ) from error
