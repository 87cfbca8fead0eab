"""The conversion as a whole: plan, convert clip by clip, finish.

A clip's result is in the work store when its files are written, so a killed run goes on where it
was; the data set's metadata is written last, so a folder with it is complete. A clip that cannot
be converted is left out with the reason, and the store stays: the same command tries it again.
"""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matrix_video.data.sample import Record
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import LOCK, write_atomic, writing
from matrix_video.services.lock import FolderLock
from matrix_video.services.progress import progress
from matrix_video.services.store import Result, Stage, Store, work_key

STORE: Final = "convert.sqlite"
LEFT_OUT: Final = "convert-left-out.jsonl"
OWN: Final = frozenset({STORE, f"{STORE}-wal", f"{STORE}-shm", LEFT_OUT})
"""In a target that lacks clips; no data."""
_PLAN: Final = Stage("convert plan", version=2)
_CLIP: Final = Stage("convert clip", version=2)


class Made(Record):
    """Of a converted clip: its line of the target's metadata, and what the summary tells."""

    text: str
    masks: int
    notes: tuple[str, ...] = ()
    plain: bool = False
    """The line says nothing that the target's own files do not say."""


class Direction(ABC):
    """One way of converting: a plan of clips, each made on its own, and an end."""

    names: Sequence[str]
    """How messages call the clips, in the order of the target's metadata."""
    contents: str
    """Hash of what the plan was made from."""

    @abstractmethod
    def inputs(self, index: int) -> Iterable[Path]:
        """Files of a clip; where one changes, the clip is made again."""

    @abstractmethod
    def make(self, index: int) -> Made:
        """Write a clip's files. ``MatrixError`` where it cannot be read; nothing else is lost."""

    @abstractmethod
    def finish(self, made: list[tuple[int, Made]]) -> tuple[list[str], list[str]]:
        """Write the metadata, last of all, and copy what no clip has: its names, and notes."""


@dataclass(frozen=True)
class ConvertSummary:
    """``masks`` counts pictures; ``extra`` are files that neither layout knows, carried along;
    ``left_out`` are clips with the reason why."""

    clips: int
    masks: int
    extra: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


def run(plan: Callable[[Path, Path], Direction], source: Path, target: Path) -> ConvertSummary:
    """Convert all clips; ``MatrixError`` where none can be, or where the target is another's."""
    with _reading(source):
        direction = plan(source, target)
    names = direction.names
    fresh = not target.exists()
    ours = fresh or (target / STORE).is_file()
    if not ours and (not target.is_dir() or any(f.name != LOCK for f in target.iterdir())):
        raise MatrixError(
            "the target exists already and is not empty",
            remedy="Give a new folder, or remove this one",
            file=target,
        )
    if not names:
        raise MatrixError(
            "there are 0 clips to convert", remedy="Give a data set with clips", file=target
        )
    with writing(target), FolderLock(target), Store(target / STORE) as store:
        planned = store.once(_PLAN, "plan", lambda: Result("ok", direction.contents))
        if planned.value != direction.contents:
            raise MatrixError(
                "the target holds an unfinished conversion of other data, or with other options",
                remedy="Remove the target, or give a new one",
                file=target,
            )
        made: list[tuple[int, Made]] = []
        left_out: list[tuple[str, str]] = []
        with progress("convert", len(names)) as advance:
            for index, name in enumerate(names):

                def make(index: int = index) -> Result:
                    with _reading(source):
                        return Result("ok", direction.make(index).model_dump(mode="json"))

                done = store.once(_CLIP, _key(direction, index), make, retry=True)
                if done.state == "ok":
                    made.append((index, Made.model_validate(done.value)))
                else:
                    left_out.append((name, done.reason))
                advance(1)
        if not made:
            if fresh:
                store.close()
                shutil.rmtree(target)
            raise MatrixError(
                f"none of {len(names)} clips could be converted, the first because: "
                f"{left_out[0][1].rstrip('.')}",
                remedy="Mend them, and give the same command again",
                file=target,
            )
        (target / LEFT_OUT).unlink(missing_ok=True)
        if left_out:
            lines = (json.dumps({"clip": c, "reason": r}, ensure_ascii=False) for c, r in left_out)
            write_atomic(target / LEFT_OUT, "\n".join(lines) + "\n")
        extra, more = direction.finish(made)
        store.close()
        if not left_out:
            for file in target.glob(f"{STORE}*"):
                file.unlink()
    return ConvertSummary(
        len(made),
        sum(one.masks for _, one in made),
        tuple(extra),
        (*(f"{names[index]}: {note}" for index, one in made for note in one.notes), *more),
        tuple(left_out),
    )


@contextmanager
def _reading(source: Path) -> Generator[None]:
    """Turn failed reads below ``source`` into a ``MatrixError``; failed writes pass through."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str | Path) and Path(error.filename).is_relative_to(source):
            raise MatrixError(
                f"cannot be read ({error.strerror})", remedy="Restore the file", file=error.filename
            ) from error
        raise


def _key(direction: Direction, index: int) -> str:
    """Files are told apart without reading them; the time of change cannot be set by hand."""
    found: list[list[int | str]] = []
    with suppress(MatrixError):  # of a link that leads out, which is told when the clip is made
        for path in direction.inputs(index):
            try:
                at = path.stat()
                found.append([str(path), at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_ino])
            except OSError:
                found.append([str(path)])
    return work_key([direction.contents], [index, found])
