"""A run folder: what was asked, where it ran, what was measured, which stages are done.

    config.yaml        the resolved settings        environment.json   versions and machine
    metrics.jsonl      one line a measurement       done/<stage>.json  facts of finished stages
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from matrix_video.services.errors import MatrixError
from matrix_video.services.files import read_json, write_atomic, write_json

_PACKAGES = (
    "matrix-video",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "numpy",
    "av",
)


def environment() -> dict[str, Any]:
    """Versions, platform and thread settings of this process."""
    versions: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "packages": versions,
    }


class RunFolder:
    """A folder opened for one run; a second process is refused while the first one lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = path / ".lock"

    @classmethod
    def open(cls, path: Path, config: BaseModel, *, command: str) -> RunFolder:
        """Start a new run, or resume the one that is there if its settings are equal."""
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path)
        stored = path / "config.yaml"
        wanted = {"command": command, **config.model_dump(mode="json")}
        if stored.exists():
            folder._compare(yaml.safe_load(stored.read_text(encoding="utf-8")), wanted)
        folder._take_lock()
        if not stored.exists():
            write_atomic(stored, yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))
            write_json(path / "environment.json", environment())
        return folder

    def _compare(self, stored: Any, wanted: dict[str, Any]) -> None:
        known: dict[str, Any] = stored if isinstance(stored, dict) else {}
        for key in sorted({*known, *wanted}):
            if known.get(key) != wanted.get(key):
                raise MatrixError(
                    f"the folder holds a run with {key} = {known.get(key)!r}, "
                    f"this one has {wanted.get(key)!r}",
                    remedy="use the same settings to resume it, or another output folder",
                    file=self.path / "config.yaml",
                    field=key,
                )

    def _take_lock(self) -> None:
        if self._lock.exists():
            owner = self._lock.read_text().strip()
            alive = owner.isdigit() and int(owner) != os.getpid() and _is_alive(int(owner))
            if alive:
                raise MatrixError(
                    f"process {owner} is using this folder",
                    remedy="wait for it to end, or choose another output folder",
                    file=self.path,
                )
        write_atomic(self._lock, str(os.getpid()))

    def close(self) -> None:
        """Give the folder free; safe to call twice."""
        self._lock.unlink(missing_ok=True)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    def log(self, **values: float | int | str | bool) -> None:
        """Append one line to ``metrics.jsonl``."""
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All lines so far; a last line cut off by a kill is left out."""
        if not self.metrics_path.exists():
            return []
        lines: list[dict[str, Any]] = []
        for line in self.metrics_path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return lines

    def truncate_metrics(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the lines that a resumed run will write again."""
        kept = [json.dumps(line) + "\n" for line in self.metrics() if keep(line)]
        write_atomic(self.metrics_path, "".join(kept))

    def done(self, stage: str) -> bool:
        return (self.path / "done" / f"{stage}.json").exists()

    def mark_done(self, stage: str, **facts: float | int | str | bool) -> None:
        write_json(self.path / "done" / f"{stage}.json", facts)

    def facts(self, stage: str) -> dict[str, Any]:
        """What ``mark_done`` stored."""
        return read_json(self.path / "done" / f"{stage}.json")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
