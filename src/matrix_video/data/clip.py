"""A clip in memory: sample, pixels and mask tracks together."""

from __future__ import annotations

from dataclasses import dataclass

from matrix_video.data.sample import Sample
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.video import Video


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
