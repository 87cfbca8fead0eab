"""A data set on disk: ``metadata.jsonl``, ``videos/<id>.mp4``, ``tracks/<id>.json``.

The layout is our choice; ``file_name`` follows the VideoFolder convention of Hugging Face.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.clip import Clip
from matrix_video.data.metadata import FILE_NAME, metadata_file, read_samples
from matrix_video.data.sample import Sample
from matrix_video.data.trackfile import misfits, needs_track, no_track, read_tracks, track_path
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.transform import ClipShape, ClipTransform
from matrix_video.data.video import Video, VideoInfo, probe_video
from matrix_video.data.writer import DatasetWriter
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_file, sha256_text

__all__ = ["Clip", "Dataset", "DatasetWriter"]

_T = TypeVar("_T")
_UNCHANGED = ClipTransform()


class Dataset(Sequence[Clip]):
    """Clips of a folder. Metadata is read at once, pixels and masks when asked for.

    Every clip passes through ``transform``. Raises ``MatrixError`` naming file, line and field
    for broken metadata; broken videos and tracks are found when they are loaded.
    """

    def __init__(self, path: Path, transform: ClipTransform = _UNCHANGED) -> None:
        self.path = path
        self.transform = transform
        self.samples: tuple[Sample, ...] = read_samples(metadata_file(path))

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Clip | Self:
        if isinstance(index, slice):
            return self._with(self.samples[index])
        info = probe_video(self.video_path(index))
        tracks = self._tracks(index, info, None)
        return Clip(self.samples[index], self._video(index, info), tracks)

    def sample(self, index: int) -> Sample:
        return self.samples[index]

    def video(self, index: int) -> Video:
        """The transformed video alone."""
        return self._video(index, probe_video(self.video_path(index)))

    def first_frame(self, index: int) -> NDArray[np.uint8]:
        """The first frame uint8 [H,W,3] of the transformed video; no other is held."""
        path = self.video_path(index)
        return self._transformed(index, lambda: self.transform.first_frame(path))

    def shape(self, index: int) -> ClipShape:
        """What the transformed clip will be, from the video's header alone."""
        info = probe_video(self.video_path(index))
        return self._transformed(index, lambda: self.transform.shape(info))

    def tracks(self, index: int, ids: Iterable[str] | None = None) -> dict[str, MaskTrack]:
        """The transformed tracks alone, by instance id: of ``ids``, or of all that have one.

        ``MatrixError`` where the masks do not fit the video, and where a track is missing that is
        asked for, or whose instance the caption mentions or an interaction names.
        """
        return self._tracks(index, probe_video(self.video_path(index)), ids)

    def video_path(self, index: int) -> Path:
        return self.path / self.samples[index].file_name

    def track_path(self, index: int) -> Path:
        return track_path(self.path, self.samples[index].id)

    def content_key(self, index: int) -> str:
        """Hash of all that the transformed clip depends on, for caches of what is made of it.

        `MatrixError` for a missing file.
        """
        sample = self.samples[index]
        parts = [sample.model_dump_json(), self.transform.key()]
        files = [self.video_path(index)]
        if sample.instances:
            files.append(self.track_path(index))
        for file in files:
            if not file.is_file():
                raise MatrixError(
                    f"a file of clip {sample.id!r} is missing",
                    remedy="Put it back, or take the clip out of the metadata",
                    file=file,
                )
            parts.append(sha256_file(file))
        return sha256_text(*parts)

    def subset(self, ids: Iterable[str]) -> Self:
        """The clips with these ids, in the order given; ``MatrixError`` for an unknown id."""
        by_id = {sample.id: sample for sample in self.samples}
        chosen: list[Sample] = []
        for wanted in ids:
            if wanted not in by_id:
                raise MatrixError(
                    f"the data set has no clip {wanted!r} among its {len(by_id)}",
                    remedy="Give ids that stand in its metadata",
                    file=self.path / FILE_NAME,
                )
            chosen.append(by_id[wanted])
        return self._with(tuple(chosen))

    def _with(self, samples: tuple[Sample, ...]) -> Self:
        other = copy(self)
        other.samples = samples
        return other

    def _video(self, index: int, info: VideoInfo) -> Video:
        path = self.video_path(index)
        return self._transformed(index, lambda: self.transform.load(path, info))

    def _tracks(
        self, index: int, info: VideoInfo, ids: Iterable[str] | None
    ) -> dict[str, MaskTrack]:
        stored = self._stored(index, ids, info.size, len(info.times))
        return self._transformed(
            index,
            lambda: {name: self.transform.track(t, info.times) for name, t in stored.items()},
        )

    def _stored(
        self, index: int, ids: Iterable[str] | None, size: tuple[int, int], num_frames: int
    ) -> dict[str, MaskTrack]:
        sample, path = self.samples[index], self.track_path(index)
        asked = None if ids is None else list(ids)
        if not sample.instances or asked == []:
            return {}
        file = read_tracks(path)
        for error in misfits(path, file, self.video_path(index), size, num_frames):
            raise error
        if asked is None:
            needed = {i.id: why for i in sample.instances if (why := needs_track(sample, i))}
            wanted = [i.id for i in sample.instances if i.id in needed or i.id in file.tracks]
        else:
            wanted, needed = asked, dict.fromkeys(asked, "it is asked for")
        for name in wanted:
            if name not in file.tracks:
                raise no_track(path, sample, name, needed[name])
        return {name: file.tracks[name] for name in wanted}

    def _transformed(self, index: int, make: Callable[[], _T]) -> _T:
        """Let the transform's errors name the video that it could not be applied to."""
        try:
            return make()
        except MatrixError as error:
            raise MatrixError(
                error.problem,
                remedy=error.remedy,
                file=self.video_path(index),
                field=error.field,
            ) from error
