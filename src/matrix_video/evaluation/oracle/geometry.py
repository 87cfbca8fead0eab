"""Distances, touches, motions and courses of tracked instances: what the verbs' rules are made of.

Shapes: T frames. Positions are (x, y) in pixels, y downwards; frames are indices into the clip. a
is the subject of a pair, b the object, d the direction in which a came, R the sum of both radii.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from matrix_video.evaluation.oracle.tracks import Track

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Evidence = Mapping[str, float]
Judged = tuple[bool, Evidence]
Window = tuple[int, int]
"""First and last frame."""

ACTS: Final = 3.0
"""Pixels of its own displacement from which an instance is said to move (noise is below 1)."""
SETS_IN: Final = 2.0
"""Pixels of displacement at which a change begins."""
CHANGES: Final = 4.0
"""Pixels of displacement that a change must reach."""
NEXT: Final = 4
"""Frames after first touch within which two come as close as they do."""
_SEAM: Final = 1.0  # pixels between two outlines that touch
_NOTCH: Final = 4.5  # pixels that may gape where two shapes of uneven outline meet ...
_SETTLED: Final = 0.75  # pixels above the least distance that are still the least
_FAR: Final = 10.0  # pixels between two boxes from which the exact gap no longer matters
_BRUSH: Final = 5.5  # pixels between two outlines that brush against each other
_REACH: Final = 1.25  # and their distance at most, in sums of radii
_SWING: Final = 5  # frames before and after, in which they come and part
_SNUG: Final = 1.02  # ... provided that their centres are no farther apart than their radii allow


@dataclass(frozen=True, eq=False)
class Pair:
    """Two tracks and the relation of the first, ``a``, to the second, ``b``."""

    a: Track
    b: Track
    reverse: Pair | None = None

    @property
    def last(self) -> int:
        return len(self.a.presence_T) - 1

    @property
    def radii(self) -> float:
        """Sum of both radii, pixels."""
        return self.a.template.radius + self.b.template.radius

    @cached_property
    def offset_T2(self) -> Floats:
        """From a's centre to b's."""
        return self.b.centre_T2 - self.a.centre_T2

    @cached_property
    def distance_T(self) -> Floats:
        return np.hypot(*self.offset_T2.T)

    @cached_property
    def gap_T(self) -> Floats:
        """Pixels of background between the outlines, 0 when they meet, inf when one is away."""
        return _gaps(self.a, self.b) if self.reverse is None else self.reverse.gap_T

    @cached_property
    def touch_T(self) -> Flags:
        """Whether the outlines meet: a notch of a star or the slope of a cone may gape a little."""
        return self.touching(_SNUG)

    def touching(self, snug: float) -> Flags:
        near_T = (self.gap_T <= _NOTCH) & (self.distance_T <= snug * self.radii)
        return (self.gap_T <= _SEAM) | near_T | self.brush_T

    @cached_property
    def brush_T(self) -> Flags:
        """The frame in which the two come closest, if they come, brush and part again.

        Contact of a moment falls between two frames, and a video decoder that compresses time
        smooths it away: at such a turning point outlines may be apart by half a token.
        """
        brush_T = np.zeros(self.last + 1, dtype=bool)
        near = int(self.distance_T.argmin())
        before = self.distance_T[max(near - _SWING, 0) : near + 1].max()
        after = self.distance_T[near : near + _SWING + 1].max()
        turned = min(before, after) - self.distance_T[near] >= SETS_IN
        close = self.gap_T[near] <= _BRUSH and self.distance_T[near] <= _REACH * self.radii
        brush_T[near] = turned and close
        return brush_T


@dataclass(frozen=True, eq=False)
class Cast:
    """Subject, object and all others of one interaction."""

    subject: Track
    object: Track
    others: tuple[Track, ...]
    pairs: dict[tuple[Track, Track], Pair] = field(default_factory=dict[tuple[Track, Track], Pair])
    """Those made so far: a video's interactions share them."""

    def pair(self, a: Track, b: Track) -> Pair:
        if (a, b) not in self.pairs:
            self.pairs[a, b] = Pair(a, b, self.pairs.get((b, a)))
        return self.pairs[a, b]


def _gaps(one: Track, two: Track) -> Floats:
    gaps_T = np.full(len(one.presence_T), np.inf)
    for t in range(len(gaps_T)):
        one_P2, two_P2 = one.rims[t], two.rims[t]
        if not len(one_P2) or not len(two_P2):
            continue
        between_2 = np.maximum(one_P2.min(0) - two_P2.max(0), two_P2.min(0) - one_P2.max(0))
        gaps_T[t] = float(np.hypot(*np.maximum(between_2, 0)))
        if gaps_T[t] < _FAR:
            gaps_T[t] = float(cdist(one_P2, two_P2).min())
    # Neighbouring pixels are one apart: no background lies between them.
    return np.maximum(gaps_T - 1.0, 0.0)


def unit(vector: Floats) -> Floats:
    """The vector's direction; zero for one shorter than a thousandth of a pixel."""
    length = float(np.hypot(*vector))
    return vector / length if length > 1e-3 else np.zeros(2)


def cosine(one: Floats, two: Floats) -> float:
    return float(unit(one) @ unit(two))


def shift_T(track: Track, since: int) -> Floats:
    """How far a track is in each frame from where it was in one, pixels."""
    return np.hypot(*(track.centre_T2 - track.centre_T2[since]).T)


def displacement(track: Track, start: int, stop: int) -> Floats:
    return track.centre_T2[stop] - track.centre_T2[start]


def moved(track: Track, start: int, stop: int) -> float:
    """Pixels from its place in frame ``start`` to that in frame ``stop``."""
    return float(np.hypot(*displacement(track, start, stop)))


def approach(track: Track, target_T2: Floats, until: int) -> float:
    """Pixels by which a track's own motion brought it closer to where the target is by then."""
    target = target_T2[until]
    before = float(np.hypot(*(track.centre_T2[0] - target)))
    return before - float(np.hypot(*(track.centre_T2[until] - target)))


def first(flags_T: Flags, start: int = 0) -> int | None:
    """The first frame from ``start`` on for which a flag is up."""
    found = np.flatnonzero(flags_T[start:])
    return int(found[0]) + start if len(found) else None


def sets_in(values_T: Floats, begins: float, reaches: float) -> int | None:
    """The first frame from which a measure stays at ``begins`` or more until it ``reaches``."""
    reached = first(values_T >= reaches)
    if reached is None:
        return None
    below = np.flatnonzero(values_T[: reached + 1] < begins)
    return int(below[-1]) + 1 if len(below) else 0


def meets(joined_T: Flags) -> int | None:
    """The first frame in which two are joined after one in which they were not."""
    apart = first(~joined_T)
    return None if apart is None else first(joined_T, apart)


def settles(pair: Pair, contact: int, until: int) -> int:
    """The frame, from a contact on, in which the two have come as close as they do."""
    distance_T = pair.distance_T[contact : until + 1]
    return contact + int(np.flatnonzero(distance_T <= distance_T.min() + _SETTLED)[0])


@dataclass(frozen=True, eq=False)
class Course:
    """A pair with its turning point: where the approach ends and the effect begins.

    ``contact`` is the first frame in which they are joined after having been apart, ``onset``
    that in which the object's change sets in. ``turn`` is the frame after contact in which they
    have come as close as they do, else the one before the change, else that of the shortest
    distance.
    """

    pair: Pair
    contact: int | None
    onset: int | None
    turn: int

    @property
    def came(self) -> Floats:
        """d; zero when the subject hardly moved."""
        way = displacement(self.pair.a, 0, self.turn)
        return unit(way) if float(np.hypot(*way)) >= ACTS else np.zeros(2)

    def goes(self, direction: Floats, track: Track) -> float:
        """Pixels that a participant travels along a direction from the turn to the end."""
        return float(displacement(track, self.turn, self.pair.last) @ direction)

    @property
    def growth(self) -> float:
        """Pixels by which the two are farther apart at the end than at the turn."""
        return float(self.pair.distance_T[-1] - self.pair.distance_T[self.turn])


@dataclass(frozen=True)
class Rule:
    """The geometry of one verb.

    ``joined`` says in which frames two are together, ``onset`` when the object's change sets in,
    ``affected`` when one that meets the object in a frame changes it (whoever it is), ``runs``
    whether the change runs as the verb demands, ``ends`` whether the end state is the verb's.
    ``mutual`` when both participants act.
    """

    joined: Callable[[Pair], Flags]
    onset: Callable[[Pair], int | None]
    affected: Callable[[Pair, int], int | None]
    runs: Callable[[Course], Judged]
    ends: Callable[[Course], Judged]
    mutual: bool = False
    beneath: float = 0.0
    """The subject heads for a point this many R below the object's centre."""
    in_contact: bool = True
    """False for a verb without contact: its cause is the subject's setting out."""

    def course(self, pair: Pair) -> Course:
        contact, onset = meets(self.joined(pair)), self.onset(pair)
        if contact is not None:
            until = pair.last if onset is None or onset <= contact else onset
            if self.mutual:
                until = min(contact + NEXT, pair.last)
            turn = settles(pair, contact, until)
        elif onset is not None:
            turn = max(onset - 1, 0)
        else:
            turn = int(pair.distance_T.argmin())
        return Course(pair, contact, onset, turn)

    def approach(self, pair: Pair, until: int) -> float:
        """Pixels by which a's own motion brings it closer to b, or to where it will carry it."""
        target_T2 = pair.b.centre_T2 + np.array([0.0, self.beneath * pair.radii])
        return approach(pair.a, target_T2, until)
