"""A data set on disk: ``metadata.jsonl``, ``videos/<id>.mp4``, ``tracks/<id>.json``.

The layout is our choice; ``file_name`` follows the VideoFolder convention of Hugging Face.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.clip import Clip
from matrix_video.data.metadata import FILE_NAME, metadata_file, read_samples
from matrix_video.data.sample import Sample
from matrix_video.data.trackfile import check_fits, no_track, read_tracks, track_path
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.transform import ClipShape, ClipTransform
from matrix_video.data.video import Video, VideoInfo, probe_video
from matrix_video.data.writer import DatasetWriter
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_file, sha256_text
from matrix_video.services.progress import progress

__all__ = ["Clip", "Dataset", "DatasetWriter", "fitting", "open_clips"]

_UNCHANGED = ClipTransform()


class Dataset(Sequence[Clip]):
    """Clips of a folder. Metadata is read at once, pixels and masks when asked for.

    Every clip passes through ``transform``. ``info`` is what `probe_video` says of the clip's
    file, where that is known already. Raises ``MatrixError`` naming file, line and field for broken
    metadata; broken videos and tracks are found when they are loaded.
    """

    def __init__(self, path: Path, transform: ClipTransform = _UNCHANGED) -> None:
        self.path = path
        self.transform = transform
        self.samples: tuple[Sample, ...] = read_samples(metadata_file(path))
        self._shapes: dict[str, ClipShape] = {}
        """By id, shared with subsets: several checks ask before the first clip is read."""

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
        return Clip(self.samples[index], self.video(index, info), self.tracks(index, info))

    def sample(self, index: int) -> Sample:
        return self.samples[index]

    def video(self, index: int, info: VideoInfo | None = None) -> Video:
        """The transformed video alone."""
        path = self.video_path(index)
        with _about(path):
            return self.transform.load(path, info or probe_video(path))

    def first_frame(self, index: int) -> NDArray[np.uint8]:
        """The first frame uint8 [H,W,3] of the transformed video; no other is held."""
        path = self.video_path(index)
        with _about(path):
            return self.transform.first_frame(path, probe_video(path))

    def shape(self, index: int) -> ClipShape:
        """What the transformed clip will be, from the video's header alone."""
        name, path = self.samples[index].id, self.video_path(index)
        if name not in self._shapes:
            with _about(path):
                self._shapes[name] = self.transform.shape(probe_video(path))
        return self._shapes[name]

    def tracks(self, index: int, info: VideoInfo | None = None) -> dict[str, MaskTrack]:
        """The transformed tracks alone, by instance id, of all instances that have one.

        ``MatrixError`` where the masks do not fit the video, and where a track is missing whose
        instance the caption mentions or an interaction names.
        """
        info = info or probe_video(self.video_path(index))
        stored = self.stored_tracks(index, info)
        with _about(self.video_path(index)):
            return {name: self.transform.track(t, info.times) for name, t in stored.items()}

    def stored_tracks(self, index: int, info: VideoInfo | None = None) -> dict[str, MaskTrack]:
        """The tracks as they are on disk, checked like `tracks`; no mask is decoded."""
        sample, path, video = self.samples[index], self.track_path(index), self.video_path(index)
        if not sample.instances:
            return {}
        info = info or probe_video(video)
        file = read_tracks(path)
        check_fits(file, path, video, info.size, len(info.times))
        found: dict[str, MaskTrack] = {}
        for instance in sample.instances:
            if instance.id in file.tracks:
                found[instance.id] = file.tracks[instance.id]
            else:
                error, needed = no_track(path, sample, instance)
                if needed:
                    raise error
        return found

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


@contextmanager
def _about(video: Path) -> Generator[None]:
    """Let the transform's errors name the video that it could not be applied to."""
    try:
        yield
    except MatrixError as error:
        raise MatrixError(
            error.problem, remedy=error.remedy, file=video, field=error.field
        ) from error


def open_clips(
    path: Path, transform: ClipTransform, limit: int | None, *, leave_out: bool = False
) -> Dataset:
    """The first ``limit`` clips of a data set, each of which the transform can take.

    Errors and warnings as `fitting`; ``MatrixError`` too for a data set without clips. Squeezed
    clips are warned of.
    """
    data = Dataset(path, transform)
    if len(data) == 0:
        raise MatrixError(
            "the data set has no samples",
            remedy="Give a data set with at least one clip",
            file=path,
        )
    data = data if limit is None else data[:limit]
    squeezed: list[str] = []

    def look(index: int) -> None:
        if (text := data.shape(index).squeezed) is not None:
            squeezed.append(f"{data.samples[index].id}: {text}")

    found = fitting(data, look, "taken", leave_out=leave_out)
    if squeezed:
        more = f" ({len(squeezed)} of {len(data)} clips are)" if len(data) > 1 else ""
        warnings.warn(f"{path}: {squeezed[0]}{more}", stacklevel=2)
    return found


def fitting(data: Dataset, check: Callable[[int], None], what: str, *, leave_out: bool) -> Dataset:
    """The clips for whose index ``check`` raises no `MatrixError`.

    It may look at `Dataset.shape` and `Dataset.stored_tracks`, which decode no frame but the one
    that tells the size. The others are left out with a warning, or else refused in one
    `MatrixError`, before anything is made of the first: "clips cannot be ``what``".
    """
    refused: dict[str, MatrixError] = {}
    with progress("look at clips", len(data)) as advance:
        for index, sample in enumerate(data.samples):
            try:
                check(index)
            except MatrixError as error:
                refused[sample.id] = error
            advance(1)
    if not refused:
        return data
    error = _refusal(data, refused, what)
    if not leave_out or len(refused) == len(data):
        raise error
    warnings.warn(f"left out: {error.problem}", stacklevel=3)
    return data.subset(sample.id for sample in data.samples if sample.id not in refused)


def _refusal(data: Dataset, refused: dict[str, MatrixError], what: str) -> MatrixError:
    """One error of all, each reason told once with the clips that it holds for."""
    first = next(iter(refused.values()))
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for name, error in refused.items():
        by_reason[error.problem].append(name)
    reasons = "; ".join(
        f"{', '.join(ids[:8])}{f' and {len(ids) - 8} more' if len(ids) > 8 else ''}: {problem}"
        for problem, ids in list(by_reason.items())[:8]
    )
    if len(by_reason) > 8:
        reasons += f"; and {len(by_reason) - 8} other reasons"
    return MatrixError(
        f"{len(refused)} of {len(data)} clips cannot be {what}: {reasons}",
        remedy=first.remedy
        if len(refused) == len(data)
        else f"{first.remedy.rstrip('.')}; or add --leave-out to go on without them",
        file=data.path,
        field=first.field,
    )
