"""A run folder: what was asked, where it ran, what was measured, which stages are done.

config.yaml        the resolved settings        environment.json   versions and machine
inputs.json        contents of all inputs       metrics.jsonl      one line a measurement
done/<stage>.json  facts of finished stages
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
from typing import Any, Final, Self, cast

from pydantic import BaseModel

from matrix_video.services.config import CONFIG, check_free, dump_config, read_config
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import (
    clear_temporary,
    drop_torn_line,
    is_temporary,
    parse_json,
    read_bounded,
    read_json,
    write_atomic,
    write_json,
    writing,
)
from matrix_video.services.inputs import (
    DONE,
    ENVIRONMENT,
    METRICS,
    Contents,
    Inputs,
    check_same,
    input_paths,
    read_inputs,
)
from matrix_video.services.lock import FolderLock
from matrix_video.services.records import read_record

INPUTS: Final = "inputs.json"
_BOOKS: Final = frozenset({CONFIG, ENVIRONMENT, INPUTS})
"""What `RunFolder.open` writes: a folder with these alone holds no work."""
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
        self._before: frozenset[str] | None = None
        """Files that were there before a new run; None: this is no new one."""

    @classmethod
    def open(
        cls,
        path: Path,
        config: BaseModel,
        *,
        command: str,
        may_change: Collection[str] = (),
    ) -> RunFolder:
        """Start a new run, or resume the one that is there if its settings and the contents of its
        inputs (`services.inputs`) are equal. Settings that ``may_change`` are stored anew, and so
        is the path of an input that was moved; an option that is newer than the run had its
        default. A run that ended before it did anything is no hindrance.

        Raises ``MatrixError`` when settings or inputs differ (names the first one), when the folder
        is a data set, a report or another process's, and when it cannot be written.
        """
        folder = cls(path)
        folder._lock, folder._opened = FolderLock(path), time.monotonic()
        try:
            clear_temporary(path)
            if folder._files() <= _BOOKS and "command" in read_config(path):
                folder._forget()
            if not (path / CONFIG).exists():
                check_free(path)
                folder._before = folder._files()
            folder._settle(config, command, may_change)
        except BaseException:
            folder.close()
            raise
        return folder

    def _settle(self, config: BaseModel, command: str, may_change: Collection[str]) -> None:
        """Compare or store settings and inputs, and mend what a killed run left half done."""
        wanted = {"command": command, **config.model_dump(mode="json")}
        defaults = type(config).model_construct().model_dump(mode="json")
        stored = read_config(self.path)
        file, remedy = self.path / INPUTS, "remove it to go on with the inputs as they are"
        known: Contents = {}
        if file.exists():  # else the run is an older version's
            known = read_record(file, Inputs, what="a list of a run's inputs", remedy=remedy).files
        paths = input_paths(config)
        there = (self.path / CONFIG).exists()
        if there:
            # "out" is the folder itself, which may have been moved or spelled otherwise.
            moved = {name for name in paths if name in known}
            self._compare({**defaults, **stored}, wanted, {"out", *may_change, *moved})
        now = read_inputs(paths, self.path, known)
        check_same({n: p for n, p in paths.items() if n not in may_change}, known, now)
        drop_torn_line(self.metrics_path)
        write_json(file, Inputs(files={**known, **now}).model_dump())
        if not there:
            write_json(self.path / ENVIRONMENT, environment())
        kept = {"out": stored["out"]} if "out" in stored else {}
        # Last: its presence is what makes the folder a run.
        text = dump_config({**stored, **wanted, **kept})
        if not there or text != (self.path / CONFIG).read_text(encoding="utf-8"):
            write_atomic(self.path / CONFIG, text)

    def _compare(
        self, known: dict[str, Any], wanted: dict[str, Any], free: Collection[str]
    ) -> None:
        for key in dict.fromkeys([*wanted, *known]):
            if key not in free and known.get(key) != wanted.get(key):
                raise MatrixError(
                    f"the folder holds a run with {key} = {known.get(key)!r}, "
                    f"this one has {wanted.get(key)!r}",
                    remedy="use the same settings to resume it, or another output folder",
                    file=self.path / CONFIG,
                    field=key,
                )

    def _files(self) -> frozenset[str]:
        below = (p.relative_to(self.path) for p in self.path.rglob("*") if not p.is_dir())
        return frozenset(str(path) for path in below if not is_temporary(path))

    def _forget(self) -> None:
        for name in _BOOKS:
            (self.path / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Give the folder free; safe to call twice."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        before = None if kind is None else self._before
        if before is not None and self._files() <= before | _BOOKS:
            self._forget()  # a check failed: the folder is as it was
        self.close()

    @property
    def metrics_path(self) -> Path:
        return self.path / METRICS

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
        lines: list[dict[str, Any]] = []
        try:
            whole, _, _ = read_bounded(self.metrics_path).rpartition(b"\n")
        except ValueError as error:
            raise self._unread(str(error)) from error
        for number, text in enumerate(whole.split(b"\n") if whole else [], start=1):
            try:
                line = parse_json(text)
                if not isinstance(line, dict):
                    raise ValueError("not an object")
                lines.append(cast("dict[str, Any]", line))
                for key, value in lines[-1].items():
                    if not isinstance(value, float | int | str):
                        raise ValueError(f"{key} is neither number nor text")
            except ValueError as error:
                told = f"line {number} is not valid JSON of numbers and texts ({error})"
                raise self._unread(told) from error
        return lines

    def _unread(self, problem: str) -> MatrixError:
        return MatrixError(problem, remedy="mend or remove what it says", file=self.metrics_path)

    def truncate_metrics(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the lines that a resumed run will write again."""
        kept = [json.dumps(line) + "\n" for line in self.metrics() if keep(line)]
        write_atomic(self.metrics_path, "".join(kept))

    def done(self, stage: str) -> bool:
        return (self.path / DONE / f"{stage}.json").exists()

    def mark_done(self, stage: str, **facts: float | int | str | bool) -> None:
        """Store that a stage is done and its facts; ``seconds`` since opening unless given."""
        if self._opened is not None:
            facts = {"seconds": round(time.monotonic() - self._opened, 1), **facts}
        write_json(self.path / DONE / f"{stage}.json", facts)

    def facts(self, stage: str) -> dict[str, Any]:
        """What ``mark_done`` stored."""
        return read_json(self.path / DONE / f"{stage}.json")
