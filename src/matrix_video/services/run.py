"""A run folder: what was asked, where it ran, what was measured, which stages are done.

config.yaml        the resolved settings        environment.json   versions and machine
metrics.jsonl      one line a measurement       done/<stage>.json  facts of finished stages
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, cast

import yaml
from pydantic import BaseModel

from matrix_video.services.errors import MatrixError
from matrix_video.services.files import (
    clear_temporary,
    read_json,
    write_atomic,
    write_json,
    writing,
)
from matrix_video.services.lock import FolderLock

CONFIG: Final = "config.yaml"
_PACKAGES: Final = (
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
    """A folder of one run; opened, a second process is refused as long as this one lives.

    The constructor only names a folder, to read it; ``open`` is for the process that writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: FolderLock | None = None
        self._opened: float | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        config: BaseModel,
        *,
        command: str,
        may_change: Collection[str] = (),
    ) -> RunFolder:
        """Start a new run, or resume the one that is there if its settings are equal, but for those
        that ``may_change``, which are stored anew; one that an older version stored without a newer
        option had its default.

        Raises ``MatrixError`` when the stored settings differ (names the first one), when another
        process has the folder open, and when it cannot be written.
        """
        folder = cls(path)
        folder._lock, folder._opened = FolderLock(path), time.monotonic()
        try:
            settings = {"command": command, **config.model_dump(mode="json")}
            folder._settle(settings, _defaults(config), may_change)
        except BaseException:
            folder.close()
            raise
        return folder

    def _settle(
        self, wanted: dict[str, Any], defaults: dict[str, Any], may_change: Collection[str]
    ) -> None:
        """Compare or store the settings, and clear away what a killed run left half done."""
        stored = self.path / CONFIG
        known: dict[str, Any] = {}
        if stored.exists():
            known = {**defaults, **read_config(self.path)}
            self._compare(known, wanted, may_change)
        clear_temporary(self.path)
        self._drop_torn_line()
        if not stored.exists():
            write_json(self.path / "environment.json", environment())
            # Last: its presence is what makes the folder a run.
            write_atomic(stored, yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))
        elif changed := {k: wanted[k] for k in may_change if known.get(k) != wanted[k]}:
            told = {**read_config(self.path), **changed}
            write_atomic(stored, yaml.safe_dump(told, sort_keys=False, allow_unicode=True))

    def _compare(
        self, known: dict[str, Any], wanted: dict[str, Any], may_change: Collection[str]
    ) -> None:
        for key in dict.fromkeys([*wanted, *known]):
            # "out" is the folder itself, which may have been moved or spelled otherwise.
            if key == "out" or key in may_change:
                continue
            if known.get(key) != wanted.get(key):
                raise MatrixError(
                    f"the folder holds a run with {key} = {known.get(key)!r}, "
                    f"this one has {wanted.get(key)!r}",
                    remedy="use the same settings to resume it, or another output folder",
                    file=self.path / CONFIG,
                    field=key,
                )

    def close(self) -> None:
        """Give the folder free; safe to call twice."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    def log(self, **values: float | int | str | bool) -> None:
        """Append one line to ``metrics.jsonl``; it is in the file when this returns."""
        size = self.metrics_path.stat().st_size if self.metrics_path.exists() else 0
        with writing(self.metrics_path):
            try:
                with self.metrics_path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(values) + "\n")
            except OSError:
                with suppress(OSError):
                    os.truncate(self.metrics_path, size)
                raise

    def metrics(self) -> list[dict[str, Any]]:
        """All lines so far; a last line that a kill cut off, or is being written, is left out."""
        if not self.metrics_path.exists():
            return []
        whole, _, _ = self.metrics_path.read_text(encoding="utf-8").rpartition("\n")
        lines: list[dict[str, Any]] = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise MatrixError(
                    f"line {number} is not valid JSON ({error})",
                    remedy="mend or remove the line",
                    file=self.metrics_path,
                ) from error
        return lines

    def _drop_torn_line(self) -> None:
        if self.metrics_path.exists():
            whole, newline, torn = self.metrics_path.read_bytes().rpartition(b"\n")
            if torn:
                write_atomic(self.metrics_path, whole + newline)

    def truncate_metrics(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the lines that a resumed run will write again."""
        kept = [json.dumps(line) + "\n" for line in self.metrics() if keep(line)]
        write_atomic(self.metrics_path, "".join(kept))

    def done(self, stage: str) -> bool:
        return (self.path / "done" / f"{stage}.json").exists()

    def mark_done(self, stage: str, **facts: float | int | str | bool) -> None:
        """Store that a stage is done and its facts; ``seconds`` since opening unless given."""
        spent = (
            {} if self._opened is None else {"seconds": round(time.monotonic() - self._opened, 1)}
        )
        write_json(self.path / "done" / f"{stage}.json", {**spent, **facts})

    def facts(self, stage: str) -> dict[str, Any]:
        """What ``mark_done`` stored."""
        return read_json(self.path / "done" / f"{stage}.json")


def _defaults(config: BaseModel) -> dict[str, Any]:
    """Of the options that have one, as they are stored."""
    return type(config).model_construct().model_dump(mode="json")


def read_config(folder: Path) -> dict[str, Any]:
    """Settings that a run folder holds; empty when it is no run. `MatrixError` for broken YAML."""
    path = folder / CONFIG
    if not path.is_file():
        return {}
    try:
        stored: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MatrixError(
            f"this is not valid YAML ({' '.join(str(error).split())})",
            remedy="restore the file, or choose another output folder",
            file=path,
        ) from error
    return cast("dict[str, Any]", stored) if isinstance(stored, dict) else {}
