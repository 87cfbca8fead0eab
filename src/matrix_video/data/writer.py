"""Writing a data set so that a killed run leaves nothing broken and can go on.

Order of a clip: video, tracks, then one line in a journal; ``metadata.jsonl`` is made from the
journal when all is done, so a folder with it is complete. Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.metadata import FILE_NAME, JOURNAL, dump_line, read_samples
from matrix_video.data.paths import inside
from matrix_video.data.sample import Sample
from matrix_video.data.trackfile import TrackFile, track_path, write_tracks
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.video import probe_video, write_video
from matrix_video.services.config import check_free
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import atomic_path, clear_temporary, drop_torn_line, write_atomic
from matrix_video.services.lock import FolderLock


class DatasetWriter:
    """Adds clips to a folder; ``metadata.jsonl`` appears when the ``with`` block ends well.

    Opened on a folder that an interrupted writer left, it knows the clips that were complete
    (``has``), which the caller skips; opened on a finished data set it appends. Threads may add
    clips at once; a second writer of the folder is refused. New samples are stored in the order of
    ``order``, others after them by id (numbers by value), whatever order they were added in.
    Raises ``MatrixError`` where the folder's own metadata is broken.
    """

    def __init__(self, path: Path, order: Iterable[str] = ()) -> None:
        self.path = path
        self._rank = {name: rank for rank, name in enumerate(order)}
        self._finished: dict[str, Sample] = {}
        self._added: dict[str, Sample] = {}
        self._owners: dict[str, str] = {}  # clip by id and video, also of clips in the making
        self._guard = threading.Lock()
        self._lock: FolderLock | None = None

    def __enter__(self) -> Self:
        self._lock = FolderLock(self.path)
        try:
            check_free(self.path, "a data set")
            clear_temporary(self.path)
            self._read_folder()
        except BaseException:
            self._lock.release()
            raise
        return self

    def _read_folder(self) -> None:
        final, journal = self.path / FILE_NAME, self.path / JOURNAL
        for sample in read_samples(final) if final.is_file() else []:
            if not self._on_disk(sample):
                raise MatrixError(
                    f"the video or track file of {sample.id!r} is missing",
                    remedy="Restore the files, or remove the sample's line, before adding to "
                    "this data set",
                    file=final,
                )
            self._finished[sample.id] = sample
        if journal.is_file():
            drop_torn_line(journal)
            for sample in read_samples(journal):
                if not self.has(sample.id) and self._on_disk(sample):
                    self._added[sample.id] = sample
            write_atomic(journal, "".join(map(dump_line, self._added.values())))
        for sample in (*self._finished.values(), *self._added.values()):
            self._owners |= dict.fromkeys(_names(sample), sample.id)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._lock is not None
        try:
            if error is None:  # else the journal stays, for the next run
                final = self.path / FILE_NAME
                if self._added or not final.is_file():
                    new = sorted(self._added.values(), key=self._place)
                    write_atomic(final, "".join(map(dump_line, (*self._finished.values(), *new))))
                (self.path / JOURNAL).unlink(missing_ok=True)
        finally:
            self._lock.release()
            self._lock = None

    def _place(self, sample: Sample) -> tuple[int, list[str | int], str]:
        """Where a sample stands among the new ones; every second part of a split id is a number."""
        parts = re.split(r"(\d+)", sample.id)
        numbered = [int(part) if i % 2 else part for i, part in enumerate(parts)]
        return self._rank.get(sample.id, len(self._rank)), numbered, sample.id

    def __len__(self) -> int:
        return len(self._finished) + len(self._added)

    def has(self, id: str) -> bool:
        """Whether this clip is complete on disk."""
        return id in self._finished or id in self._added

    def add(
        self,
        sample: Sample,
        frames_THWC: NDArray[np.uint8],
        fps: float,
        tracks: Mapping[str, MaskTrack],
        *,
        lossless: bool = False,
    ) -> None:
        """Write one clip from memory; frames uint8 [T,H,W,3].

        ``tracks`` may leave instances out. Raises ``MatrixError`` for an id that was added before,
        a track of another size or length than the video, or a track of no instance; nothing is
        left under a final name then.
        """
        count, height, width, _ = frames_THWC.shape
        self._store(
            sample,
            tracks,
            (height, width),
            count,
            lambda path: write_video(path, frames_THWC, fps, lossless=lossless),
        )

    def add_file(self, sample: Sample, video: Path, tracks: Mapping[str, MaskTrack]) -> None:
        """Copy one clip's video byte by byte; otherwise as ``add``."""
        info = probe_video(video)
        size, count = (info.height, info.width), len(info.times)

        def copy(path: Path) -> None:
            with atomic_path(path) as temporary:
                shutil.copyfile(video, temporary)

        self._store(sample, tracks, size, count, copy)

    def _store(
        self,
        sample: Sample,
        tracks: Mapping[str, MaskTrack],
        size: tuple[int, int],
        count: int,
        video: Callable[[Path], None],
    ) -> None:
        if self._lock is None:
            raise ValueError("DatasetWriter must be entered with 'with' before clips are added")
        file = self._track_file(sample, tracks, size, count)
        with self._claimed(sample):
            target = inside(self.path, f"tracks/{sample.id}.json")
            video(inside(self.path, sample.file_name))
            write_tracks(target, file)
            with self._guard:
                _append(self.path / JOURNAL, dump_line(sample))
                self._added[sample.id] = sample

    @contextmanager
    def _claimed(self, sample: Sample) -> Generator[None]:
        """Keep the sample's id and file name from others, for good if all goes well within."""
        name, video = _names(sample)
        with self._guard:
            if name in self._owners:
                problem = f"the data set has a clip {sample.id!r} already"
                raise self._refusal(problem, "Give every clip an id of its own", "id")
            if video in self._owners:
                problem = f"clips {self._owners[video]!r} and {sample.id!r} share the video "
                problem += f"file {sample.file_name!r}"
                remedy = "Give every clip a video file of its own"
                raise self._refusal(problem, remedy, "file_name")
            self._owners |= dict.fromkeys((name, video), sample.id)
        try:
            yield
        except BaseException:
            with self._guard:
                del self._owners[name], self._owners[video]
            raise

    def _track_file(
        self, sample: Sample, tracks: Mapping[str, MaskTrack], size: tuple[int, int], count: int
    ) -> TrackFile:
        known = [instance.id for instance in sample.instances]
        for name in tracks:
            if name not in known:
                problem = f"the track {name} names no instance; the clip has {known}"
                remedy = "Add the instance to the sample, or leave the track out"
                raise self._refusal(problem, remedy, sample.id)
        try:
            return TrackFile(size, count, tracks)
        except ValueError as error:
            remedy = "Make the masks from this very video"
            raise self._refusal(str(error), remedy, sample.id) from error

    def _refusal(self, problem: str, remedy: str, field: str) -> MatrixError:
        return MatrixError(problem, remedy=remedy, file=self.path / FILE_NAME, field=field)

    def _on_disk(self, sample: Sample) -> bool:
        video = self.path / sample.file_name
        return video.is_file() and track_path(self.path, sample.id).is_file()


def _names(sample: Sample) -> tuple[str, str]:
    """What no other clip may have."""
    return f"id {sample.id}", f"video {sample.file_name}"


def _append(journal: Path, line: str) -> None:
    whole = journal.stat().st_size if journal.exists() else 0
    try:
        with journal.open("ab") as lines:
            lines.write(line.encode())
    except OSError as error:
        with suppress(OSError):  # else the next clip's line would join the half of this one
            os.truncate(journal, whole)
        raise MatrixError(
            f"cannot be written ({error.strerror})",
            remedy="Free space or permissions and run again; complete clips are kept",
            file=journal,
        ) from error
