"""What is measured of a clip, and the maps that come out.

Shapes: P noise levels, R phrases of the clip, A attention heads, F token frames, h w token rows and
columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from matrix_video.analysis.sinks import Share
from matrix_video.attention.site import Kind
from matrix_video.backbones.condition import Condition
from matrix_video.backbones.precision import Precision
from matrix_video.data.spans import Mentions

OnStep = Callable[[int, float], None]
"""Called at the end of every denoising step with its index, from 0, and its timestep."""


class Replay(Protocol):
    """Samples stored videos again; `generation.replay` is one."""

    @property
    def steps(self) -> int:
        """Denoising steps of a video."""
        ...

    @property
    def key(self) -> str:
        """Changes with everything that the sampling follows from."""
        ...

    def sample(self, name: str, on_step: OnStep) -> NDArray[np.uint8]:
        """The video [T,H,W,3] of the sample ``name``, made as it was made before."""
        ...


@dataclass(frozen=True)
class Probe:
    """What is measured, and how."""

    levels: int = 5
    """Noise levels, evenly spaced in the model's schedule, or steps, evenly spaced in the sampling
    (our choice)."""
    seed: int = 0
    batch: int = 5
    """Noise levels in one forward pass."""
    layers_at_once: int | None = None
    """Layers read in one forward pass, whose queries and keys are all kept; None: all."""
    per_head: bool = False
    mentions: Mentions = "full"
    precision: Precision = "no"
    condition: Condition | None = None
    """The adapter's projection of the id map, which is then given as in training."""
    replay: Replay | None = None
    """Read the maps while each video is sampled again; None: noise the finished video."""

    def groups(self, layers: Sequence[int]) -> Iterator[Sequence[int]]:
        """``layers`` in parts of at most `layers_at_once`."""
        at_once = self.layers_at_once or len(layers)
        for first in range(0, len(layers), at_once):
            yield layers[first : first + at_once]


@dataclass(frozen=True)
class Reading:
    """What one forward gives of a clip in some layers."""

    maps: Mapping[tuple[int, Kind], Tensor]
    """By layer and kind: [P,R,F,h,w], with heads [P,R,A,F,h,w]. A phrase without a first-frame
    region has a v2v map of zeros."""
    sinks: Mapping[int, tuple[Share, ...]]
    """By layer: where the attention goes that the v2t maps are part of."""


@dataclass(frozen=True)
class LevelMaps(Reading):
    """A reading with the noise levels that its batch stands for."""

    levels: tuple[int, ...]
    """Indices [P], from 0, which is the least noise."""
    timesteps: tuple[float, ...]
