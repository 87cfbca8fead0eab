"""A clip in memory: sample, pixels and mask tracks together.

Shapes: T frames, H rows, W columns, C = 3 colour channels (RGB).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.sample import Sample
from matrix_video.data.tracks import MaskTrack


@dataclass(frozen=True, eq=False)
class Video:
    """Frames uint8 [T,H,W,3] RGB with their presentation times float64 [T] in seconds.

    ``fps`` is the container's average rate; ``times`` is what counts.
    """

    frames_THWC: NDArray[np.uint8]
    times: NDArray[np.float64]
    fps: float

    def __post_init__(self) -> None:
        shape = self.frames_THWC.shape
        if len(shape) != 4 or shape[3] != 3 or self.frames_THWC.dtype != np.uint8:
            raise ValueError(f"expected uint8 [T,H,W,3], got {self.frames_THWC.dtype} {shape}")
        if self.times.shape != shape[:1]:
            raise ValueError(f"{shape[0]} frames but times of shape {self.times.shape}")

    def __len__(self) -> int:
        return len(self.times)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.frames_THWC.shape[1], self.frames_THWC.shape[2]


@dataclass(frozen=True, eq=False)
class Clip:
    """``tracks`` by instance id; each has the video's number of frames and size.

    Raises ``ValueError`` where a track does not fit the video or names no instance.
    """

    sample: Sample
    video: Video
    tracks: dict[str, MaskTrack]

    def __post_init__(self) -> None:
        known = {instance.id for instance in self.sample.instances}
        for name, track in self.tracks.items():
            if name not in known:
                raise ValueError(f"track {name!r} of {self.sample.id} names no instance")
            if len(track) != len(self.video) or track.size != self.video.size:
                raise ValueError(
                    f"track {name!r} of {self.sample.id}: {len(track)} frames of {track.size}, "
                    f"but the video has {len(self.video)} of {self.video.size}"
                )
