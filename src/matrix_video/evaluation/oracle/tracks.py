"""Tracks: where every instance is in every frame, and what a frame shows beside them.

Shapes: T frames, H rows, W columns, P pixels. Positions are (x, y) in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from matrix_video.evaluation.oracle.silhouette import Masks, Template

_STRAY: Final = 30  # pixels, beyond all soft edges, that are no accident of a decoder
_SHIFT: Final = 8.0  # levels by which a background as a whole may brighten or take a tint
_ROUGH: Final = 15.0  # median distance of its pixels from the background: beyond, it is noise


class Presence(StrEnum):
    """How an instance is there in a frame."""

    SEEN = "seen"
    HIDDEN = "hidden"  # another instance lies in front
    LEFT = "left"  # outside the frame
    MELTED = "melted"  # less than half of what should be seen is left
    SWOLLEN = "swollen"  # far too much is there
    GONE = "gone"  # nothing explains that it is not seen: it disappeared


SHOWN: Final = (Presence.SEEN, Presence.MELTED, Presence.SWOLLEN)


@dataclass(frozen=True, eq=False)
class Track:
    """One instance over the clip.

    ``centre_T2`` is the centre of its whole silhouette, hidden parts included; while it is not
    seen, where it should be. ``seen_THW`` are its visible pixels, ``body_THW`` these and the parts
    that others hide. ``height_T`` is the number of rows its visible pixels take (the last known).
    ``leaps_T`` marks frames it reached by a jump. ``left_T`` is the share of what should be seen
    of it that is.
    """

    template: Template
    centre_T2: NDArray[np.float64]
    height_T: NDArray[np.float64]
    seen_THW: Masks
    body_THW: Masks
    presence_T: Sequence[Presence]
    leaps_T: NDArray[np.bool_]
    left_T: NDArray[np.float64]

    @cached_property
    def rims(self) -> tuple[NDArray[np.intp], ...]:
        """Rows and columns [P,2] of the body's outline, frame by frame; none where it is away."""
        pad = np.pad(self.body_THW, ((0, 0), (1, 1), (1, 1)))
        inner = pad[:, :-2, 1:-1] & pad[:, 2:, 1:-1] & pad[:, 1:-1, :-2] & pad[:, 1:-1, 2:]
        return tuple(np.argwhere(rim_HW) for rim_HW in self.body_THW & ~inner)

    @property
    def broken_T(self) -> NDArray[np.bool_]:
        """Frames in which nothing this instance does can be believed."""
        swollen_T = np.array([p is Presence.SWOLLEN for p in self.presence_T])
        return self.lost_T | swollen_T | self.leaps_T

    @property
    def lost_T(self) -> NDArray[np.bool_]:
        """Frames in which more than half of it is gone, and nothing explains that."""
        return np.array([p in (Presence.GONE, Presence.MELTED) for p in self.presence_T])

    @property
    def shown_T(self) -> NDArray[np.bool_]:
        """Frames in which it is to be seen, however badly."""
        return np.array([p in SHOWN for p in self.presence_T])


@dataclass(frozen=True)
class Strangers:
    """What one frame shows beside background and instances.

    ``blobs`` counts kinds of solid blobs: of an instance's colour that is no part of it, of colours
    that nobody wears, of anything far from all instances. ``stray`` counts pixels of colours far
    from all instances. ``shift`` and ``rough`` say how the background differs from the first
    frame's: levels as a whole, median distance of its pixels from that.
    """

    blobs: int
    stray: int
    shift: float
    rough: float

    @property
    def emerged(self) -> bool:
        found = self.blobs > 0 or self.stray >= _STRAY
        return found or self.shift > _SHIFT or self.rough > _ROUGH


@dataclass(frozen=True, eq=False)
class Tracking:
    """Tracks in the order of the masks; strangers of every frame after the first."""

    tracks: tuple[Track, ...]
    strangers: tuple[Strangers, ...]

    @property
    def emergence_T(self) -> NDArray[np.bool_]:
        return np.array([False, *(one.emerged for one in self.strangers)])

    @property
    def disappearance_T(self) -> NDArray[np.bool_]:
        lost_T = np.logical_or.reduce([one.lost_T for one in self.tracks])
        lost_T[0] = False
        return lost_T
