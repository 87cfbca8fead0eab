"""Rule of chase: one flees, the other follows and gains; they never touch.

a is the subject, b the object. Shapes: T frames.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from matrix_video.evaluation.oracle.course import (
    ALIGNED,
    FLIGHT,
    SLACK,
    Course,
    Judged,
    Rule,
)
from matrix_video.evaluation.oracle.geometry import (
    ACTS,
    SETS_IN,
    Flags,
    Pair,
    cosine,
    displacement,
    first,
    moved,
    sets_in,
    shift_T,
    unit,
)
from matrix_video.evaluation.oracle.tracker import Track

_GAINED: Final = 2.0  # pixels by which a pursuer comes closer


# chase: both go the same way, a behind b and gaining.


def sets_out(track: Track) -> int | None:
    """When a track begins to move away from where it stood."""
    return first(shift_T(track, 0) >= SETS_IN)


def follows(pair: Pair, until: int | None = None) -> bool:
    """Whether a moves, and towards where b is or goes (by the end, or by a frame)."""
    stop = pair.last if until is None else until
    way = displacement(pair.a, 0, stop)
    goal = pair.b.centre_T2[stop] - pair.a.centre_T2[0]
    least = ACTS if until is None else _GAINED / 2
    return float(np.hypot(*way)) >= least and cosine(way, goal) >= ALIGNED


def flees(pair: Pair) -> bool:
    """Whether b makes off with a behind it."""
    way = displacement(pair.b, 0, pair.last)
    return float(np.hypot(*way)) >= FLIGHT and cosine(way, pair.offset_T2[0]) >= 0.5


def gain(pair: Pair) -> float:
    """Pixels by which a has come closer to b at the end."""
    return float(pair.distance_T[0] - pair.distance_T[-1])


def _has_gained(pair: Pair) -> Flags:
    gained_T = pair.distance_T[0] - pair.distance_T >= _GAINED
    behind_T = pair.offset_T2 @ unit(displacement(pair.a, 0, pair.last)) > 0
    return gained_T & behind_T & follows(pair)


def _takes_flight(pair: Pair) -> int | None:
    return sets_in(shift_T(pair.b, 0), SETS_IN, FLIGHT) if flees(pair) else None


def _is_put_to_flight(pair: Pair, since: int) -> int | None:
    return _takes_flight(pair) if follows(pair) else None


def _chase_runs(course: Course) -> Judged:
    pair = course.pair
    s, o = displacement(pair.a, 0, pair.last), displacement(pair.b, 0, pair.last)
    ways = min(float(np.hypot(*s)), float(np.hypot(*o)))
    aligned = cosine(s, o)
    behind = bool((pair.offset_T2 @ unit(o) > 0).all())
    holds = ways >= FLIGHT and aligned >= ALIGNED and behind
    return holds, {"shorter_way": ways, "aligned": aligned, "behind": float(behind)}


def _chase_ends(course: Course) -> Judged:
    pair = course.pair
    o = displacement(pair.b, 0, pair.last)
    behind = float(pair.offset_T2[-1] @ unit(o))
    kept, went = gain(pair), moved(pair.a, 0, pair.last)
    holds = float(np.hypot(*o)) >= FLIGHT and behind > 0 and kept >= -SLACK and went >= ACTS
    return holds, {"object_travelled": float(np.hypot(*o)), "behind": behind, "gain": kept}


CHASE: Final = Rule(
    _has_gained, _takes_flight, _is_put_to_flight, _chase_runs, _chase_ends, in_contact=False
)
