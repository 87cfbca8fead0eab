"""Contents of whatever a command's settings name: which files, and the SHA-256 of each.

A run stores them, and goes on only while they are the same (``services.run``). Files of a mebibyte
and more are taken for unchanged where size, times and inode are; others are read each time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, cast

from pydantic import BaseModel

from matrix_video.services.config import CONFIG
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import is_temporary, sha256_file
from matrix_video.services.progress import progress

WRITTEN: Final = frozenset({"out", "cache"})
"""Settings that name what a command writes; every other path is an input."""
MODELS: Final = frozenset({"model", "detector", "segmenter"})
"""Settings that name a model: an input where they name a folder."""
METRICS: Final = "metrics.jsonl"
ENVIRONMENT: Final = "environment.json"
DONE: Final = "done"
_DIARY: Final = frozenset({METRICS, ENVIRONMENT, DONE})
"""Of a run folder: what says how it went, and is no result."""
_LISTS: Final = ("metadata.jsonl", "dataset/metadata.jsonl")
"""A folder that has one of these says itself which files belong to it."""
_LARGE: Final = 2**20
_LONG: Final = 2**31
"""Bytes whose reading takes seconds, and is shown."""
_FRESH_SECONDS: Final = 2.0
"""A file that changed so shortly before it was read may change again at the same time stamp."""


Contents = Mapping[str, Mapping[str, str]]
"""What files were when they were read, by setting and by path below what the setting names (of a
file: an empty one): the sha256, then size, time of change and of status in nanoseconds, and inode;
these are 0 where they could not be relied on."""


class Inputs(BaseModel):
    """What a run stores of its inputs."""

    format: Literal[1] = 1
    files: Contents


def input_paths(config: BaseModel) -> dict[str, Path]:
    """The paths that a command with these settings reads, by setting; those that are there."""
    found: dict[str, Path] = {}
    for name in type(config).model_fields:
        value: Any = getattr(config, name)
        if name in MODELS and isinstance(value, str) and Path(value).is_dir():
            found[name] = Path(value)
        elif isinstance(value, Path) and name not in WRITTEN and value.exists():
            found[name] = value
        elif isinstance(value, tuple):
            parts = enumerate(cast("tuple[object, ...]", value))
            found |= {f"{name}/{i}": p for i, p in parts if isinstance(p, Path) and p.exists()}
    return found


def read_inputs(paths: Mapping[str, Path], out: Path, known: Contents) -> Contents:
    """Contents of ``paths`` without what lies in ``out``; ``known`` are those of an earlier look.

    `MatrixError` for a file that cannot be read.
    """
    contents: dict[str, dict[str, str]] = {setting: {} for setting in paths}
    setting = ""
    try:
        found = [(s, name, file) for s, path in paths.items() for name, file in _files(path, out)]
        seen = {(s, name): _known(file, known.get(s, {}).get(name)) for s, name, file in found}
        fresh = [file for s, name, file in found if seen[s, name] is None]
        told = sum(file.stat().st_size for file in fresh) > _LONG
        with progress("read inputs", len(fresh) if told else 0) as advance:
            for setting, name, file in found:
                contents[setting][name] = seen[setting, name] or _look(file)
                if told and seen[setting, name] is None:
                    advance(1)
    except OSError as error:
        raise MatrixError(
            f"{error.filename} cannot be read ({error.strerror})",
            remedy="change its permissions, or take it away",
            file=paths.get(setting),
            field=setting or None,
        ) from error
    return contents


def check_same(paths: Mapping[str, Path], known: Contents, now: Contents) -> None:
    """`MatrixError` that names the first file whose content is no longer the ``known`` one.

    An input that is gone as a whole is left to whoever needs it.
    """
    for setting, path in paths.items():
        before, after = known.get(setting), now[setting]
        if before is None:
            continue
        other = [name for name in before if name not in after]
        told = [f"{name or path.name} is gone" for name in other]
        told += [
            f"{name or path.name} has changed"
            for name, seen in after.items()
            if name in before and before[name].split()[0] != seen.split()[0]
        ]
        if not any((path / name).exists() for name in _LISTS):
            told += [f"{name or path.name} is new" for name in after if name not in before]
        if told:
            more = f", and {len(told) - 1} other files differ" if len(told) > 1 else ""
            raise MatrixError(
                f"{told[0]} since this run began{more}",
                remedy="restore it to go on with this run, or give another output folder",
                file=path,
                field=setting,
            )


def _known(file: Path, before: str | None) -> str | None:
    """The earlier look, where it still tells the content."""
    stat = file.stat()
    same = before is not None and before.split()[1:] == _facts(stat).split()
    return before if same and stat.st_size >= _LARGE else None


def _look(file: Path) -> str:
    stat = file.stat()
    settled = time.time() - max(stat.st_mtime, stat.st_ctime) > _FRESH_SECONDS
    return f"{sha256_file(file)} {_facts(stat) if settled else '0 0 0 0'}"


def _facts(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def _raise(error: OSError) -> None:
    raise error


def _files(path: Path, out: Path) -> Iterator[tuple[str, Path]]:
    """Files below a folder by their paths there, sorted; the file itself. Left aside: hidden and
    temporary files, a run's diary, ``out``, and runs that lie in the folder."""
    if path.is_file():
        yield "", path
        return
    visited = {out.resolve()}  # also against links in a circle
    for place, folders, files in os.walk(path, onerror=_raise, followlinks=True):
        here = Path(place)
        top = here == path
        real = here.resolve()
        if real in visited or (not top and (here / CONFIG).is_file()):
            folders.clear()
            continue
        visited.add(real)
        diary = _DIARY if top and CONFIG in files else ()
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in diary)
        for name in sorted(files):
            file = here / name
            hidden = name[0] == "." or name in diary or is_temporary(Path(name))
            if not hidden and file.is_file():
                yield file.relative_to(path).as_posix(), file
