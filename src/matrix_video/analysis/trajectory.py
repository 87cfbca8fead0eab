"""Maps along the sampling of a generated video, which is made once more for this.

Paper section 4 analyses these: the maps of the conditional branch while the model denoises. The
video is sampled again exactly as it was (noise by seed and id), and compared with the stored one at
the end, so that the tracks, which were made from the stored video, are tracks of these maps' video.

Shapes: T pixel frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from matrix_video.analysis.probe import LevelMaps, Reading, Replay
from matrix_video.analysis.reading import Place, Reader
from matrix_video.attention.tap import Captures, tap
from matrix_video.data.clip import Clip
from matrix_video.services.errors import MatrixError

TOLERANCE = 0.5
"""Mean difference of two videos, in levels of 255, up to which they are the same (our choice).

A video is sampled again alone, but was made in a batch, maybe on another device: its rounding
differs. With the shipped tiny model that moved single pixels by one level, at most 0.0002 in the
mean (20 steps), with bfloat16 no more; another seed moved videos by 16 in the mean."""
_LAST = slice(-1, None)
"""The conditional part of [unconditional, conditional], and all of a single forward."""


def chosen_steps(steps: int, levels: int) -> dict[int, int]:
    """Level by step: the middles of ``levels`` equal parts; level 0 is the least noise, so the
    last. `MatrixError` for more levels than steps."""
    if levels > steps:
        raise MatrixError(
            f"{levels} levels of a sampling with {steps} steps",
            remedy=f"Choose 1 to {steps}",
            field="levels",
        )
    return {steps - 1 - (2 * p + 1) * steps // (2 * levels): p for p in range(levels)}


def replayed_maps(
    reader: Reader, replay: Replay, clip: Clip, levels: int, groups: Sequence[Sequence[int]]
) -> Iterator[LevelMaps]:
    """Maps at ``levels`` steps, one sampling for each group of layers.

    Raises `MatrixError` where the repeated video is not the clip's, and for pipelines whose videos
    are shorter than what was sampled: their tracks do not reach the first token frames.
    """
    if dropped := reader.backbone.dropped_frames:
        raise MatrixError(
            f"{type(reader.backbone.pipe).__name__} leaves the first {dropped} frames out of the "
            "videos that it samples, so their masks do not cover its maps",
            remedy="Leave out --trajectory: the videos are then noised, and measured whole",
            field="trajectory",
        )
    transformer = reader.backbone.transformer
    for layers in groups:
        places = reader.places(layers, _LAST)
        watch = _Watch(reader, places, chosen_steps(replay.steps, levels))
        sites = {place.name: place.site for place in places}
        with tap(transformer, sites, after=watch.forward_ended):
            frames_THWC = replay.sample(clip.sample.id, watch.step_ended)
        check_repeated(clip, frames_THWC)
        yield from watch.by_level()


@dataclass
class _Watch:
    """Follows a sampling: which forward belongs to which step, and which are read."""

    reader: Reader
    places: Sequence[Place]
    levels: Mapping[int, int]
    step: int = 0
    fresh: bool = True
    """No forward of this step has ended. The first is the conditional one (`Backbone.guidance`)."""
    reading: Reading | None = None
    """Of this step, until its end tells its timestep."""
    found: dict[int, LevelMaps] = field(default_factory=dict[int, LevelMaps])

    def forward_ended(self, captures: Captures) -> None:
        if self.fresh and self.step in self.levels:
            at = (f"step {self.step} of the sampling",)
            self.reading = self.reader.read(captures, self.places, at)
        self.fresh = False
        captures.clear()

    def step_ended(self, step: int, timestep: float) -> None:
        read = self.reading
        if read is not None:
            level = self.levels[step]
            self.found[level] = LevelMaps(read.maps, read.sinks, (level,), (timestep,))
        self.step, self.fresh, self.reading = step + 1, True, None

    def by_level(self) -> Iterator[LevelMaps]:
        for step, level in sorted(self.levels.items(), reverse=True):
            if level not in self.found:
                raise MatrixError(
                    f"sample {self.reader.sample}: step {step} of the sampling made no forward of "
                    f"the {type(self.reader.backbone.transformer).__name__} that is analysed",
                    remedy="Read fewer or other steps with --levels; a pipeline of two "
                    "transformers uses each for part of the steps",
                    field="levels",
                )
            yield self.found[level]


def check_repeated(clip: Clip, frames_THWC: NDArray[np.uint8]) -> None:
    """`MatrixError` unless the frames are those of the clip, up to `TOLERANCE`."""
    stored_THWC = clip.video.frames_THWC
    if frames_THWC.shape == stored_THWC.shape:
        apart = float(np.abs(frames_THWC.astype(np.int16) - stored_THWC.astype(np.int16)).mean())
        if apart <= TOLERANCE:
            return
        problem = f"differs from the stored one by {apart:.1f} of 255 levels in the mean"
    else:
        problem = f"is {_shape(frames_THWC)}, the stored one {_shape(stored_THWC)}"
    raise MatrixError(
        f"sample {clip.sample.id}: the video, sampled again, {problem}",
        remedy="Analyse the videos as the run wrote them, with its prompt set, model and adapter "
        "unchanged and versions of torch and diffusers as in its environment.json",
        field="trajectory",
    )


def _shape(frames_THWC: NDArray[np.uint8]) -> str:
    frames, height, width, _ = frames_THWC.shape
    return f"{frames} frames of {height}x{width}"
