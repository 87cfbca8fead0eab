"""Writing a data set so that a killed run leaves nothing broken and can go on.

Order of a clip: video, tracks, then one line in a journal; ``metadata.jsonl`` is made from the
journal when all is done, so a folder with it is complete. Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.metadata import FILE_NAME, JOURNAL, dump_line, scan_metadata
from matrix_video.data.paths import inside
from matrix_video.data.sample import Sample
from matrix_video.data.trackfile import track_path, write_tracks
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.video import probe_video, write_video
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import atomic_path, write_atomic


class DatasetWriter:
    """Adds clips to a folder; ``metadata.jsonl`` appears when the ``with`` block ends well.

    Opened on a folder that an interrupted writer left, it knows the clips that were complete
    (``has``), which the caller skips; opened on a finished data set it appends. Samples keep the
    order in which they were first added. Raises ``MatrixError`` where the folder's own metadata
    is broken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._samples: dict[str, Sample] = {}
        self._owners: dict[str, str] = {}  # clip id by video file name
        self._changed = False
        self._entered = False

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True)
        final, journal = self.path / FILE_NAME, self.path / JOURNAL
        if final.is_file():
            for sample in _read(final):
                if not self._on_disk(sample):
                    raise MatrixError(
                        f"the video or track file of {sample.id!r} is missing",
                        remedy="Restore the files, or remove the sample's line, before adding to "
                        "this data set",
                        file=final,
                    )
                self._know(sample)
        self._changed = not final.is_file()
        if journal.is_file():
            _drop_torn_line(journal)
            for sample in _read(journal):
                if not self.has(sample.id) and self._on_disk(sample):
                    self._know(sample)
                    self._changed = True
        write_atomic(journal, "".join(map(dump_line, self._samples.values())))
        self._entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._entered = False
        if error is not None:
            return  # the journal stays, for the next run
        if self._changed:
            text = "".join(map(dump_line, self._samples.values()))
            write_atomic(self.path / FILE_NAME, text)
        (self.path / JOURNAL).unlink()

    def __len__(self) -> int:
        return len(self._samples)

    def has(self, id: str) -> bool:
        """Whether this clip is complete on disk."""
        return id in self._samples

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
        self._check(sample, tracks, (height, width), count)
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
        self._check(sample, tracks, size, count)

        def copy(path: Path) -> None:
            with atomic_path(path) as temporary:
                shutil.copyfile(video, temporary)

        self._store(sample, tracks, size, count, copy)

    def _check(
        self, sample: Sample, tracks: Mapping[str, MaskTrack], size: tuple[int, int], count: int
    ) -> None:
        place = self.path / FILE_NAME
        if sample.id in self._samples:
            raise MatrixError(
                f"the data set has a clip {sample.id!r} already",
                remedy="Give every clip an id of its own",
                file=place,
                field="id",
            )
        owner = self._owners.get(sample.file_name)
        if owner is not None:
            raise MatrixError(
                f"clips {owner!r} and {sample.id!r} share the video file {sample.file_name!r}",
                remedy="Give every clip a video file of its own",
                file=place,
                field="file_name",
            )
        known = [instance.id for instance in sample.instances]
        for name, track in tracks.items():
            where = f"{sample.id}: {name}"
            if name not in known:
                raise MatrixError(
                    f"the track names no instance; the clip has {known}",
                    remedy="Add the instance to the sample, or leave the track out",
                    file=place,
                    field=where,
                )
            if track.size != size or len(track) != count:
                raise MatrixError(
                    f"the masks are {len(track)} frames of {track.height}x{track.width}, but the "
                    f"video has {count} of {size[0]}x{size[1]} (height x width)",
                    remedy="Make the masks from this very video",
                    file=place,
                    field=where,
                )

    def _store(
        self,
        sample: Sample,
        tracks: Mapping[str, MaskTrack],
        size: tuple[int, int],
        count: int,
        video: Callable[[Path], None],
    ) -> None:
        journal = self.path / JOURNAL
        if not self._entered:
            raise ValueError("DatasetWriter must be entered with 'with' before clips are added")
        video(inside(self.path, sample.file_name))
        write_tracks(inside(self.path, f"tracks/{sample.id}.json"), tracks, size, count)
        _append(journal, dump_line(sample))
        self._know(sample)
        self._changed = True

    def _know(self, sample: Sample) -> None:
        self._samples[sample.id] = sample
        self._owners[sample.file_name] = sample.id

    def _on_disk(self, sample: Sample) -> bool:
        video = self.path / sample.file_name
        return video.is_file() and track_path(self.path, sample.id).is_file()


def _read(path: Path) -> list[Sample]:
    scan = scan_metadata(path)
    if scan.problems:
        raise scan.problems[0]
    return scan.samples


def _append(journal: Path, line: str) -> None:
    whole = journal.stat().st_size
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


def _drop_torn_line(journal: Path) -> None:
    """A run killed while it wrote the journal leaves half a line at its end."""
    whole, _, torn = journal.read_bytes().rpartition(b"\n")
    if torn:
        write_atomic(journal, whole + b"\n" if whole else b"")
