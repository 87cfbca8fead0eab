"""The course of an interaction, and what a verb's rule consists of.

Shapes: T frames. d is the direction in which the subject came, R the sum of both radii.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from matrix_video.evaluation.oracle.geometry import (
    ACTS,
    CHANGES,
    SETS_IN,
    Flags,
    Floats,
    Pair,
    approach,
    displacement,
    first,
    meets,
    sets_in,
    settles,
    shift_T,
    unit,
)

Evidence = dict[str, float]
Judged = tuple[bool, Evidence]


NEXT: Final = 4
"""Frames after first touch within which two come as close as they do."""
EARLY: Final = 1
"""Frames by which an effect may seem to precede its cause."""
FLIGHT: Final = 6.0
"""Pixels that make a flight."""


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

    def goes(self, direction: Floats, role: str) -> float:
        """Pixels that one participant travels along a direction from the turn to the end."""
        track = self.pair.a if role == "s" else self.pair.b
        return float(displacement(track, self.turn, self.pair.last) @ direction)

    def growth(self) -> float:
        """Pixels by which the two are farther apart at the end than at the turn."""
        return float(self.pair.distance_T[-1] - self.pair.distance_T[self.turn])

    def strays(self) -> float:
        """The most by which their distance ever exceeds that at the turn."""
        distance_T = self.pair.distance_T[self.turn :]
        return float(distance_T.max() - distance_T[0])


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


SLACK: Final = 4.0
"""Pixels by which a distance may grow and still be "kept"."""
ALIGNED: Final = 0.7
"""Cosine of two directions that agree."""


def touching(pair: Pair) -> Flags:
    return pair.touch_T


def moves_off(pair: Pair) -> int | None:
    """When b begins to leave the place where it stood."""
    return sets_in(shift_T(pair.b, 0), SETS_IN, CHANGES)


def is_moved(pair: Pair, since: int) -> int | None:
    """When b has visibly left the place where it was in a frame."""
    return first(shift_T(pair.b, since) >= ACTS, since)


def axis(pair: Pair) -> Floats:
    """Direction from a to b in the first frame."""
    return unit(pair.offset_T2[0])
