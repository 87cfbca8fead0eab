"""What each verb demands of its two participants, as geometry of their tracks.

Every rule reads positions and outlines of a *generated* video and nothing else. Here a
is the subject, b the object, d the direction in which a came, R the sum of both radii.

=======  ======================  =======================================  ====================
verb     contact                 the change runs                          the end state
=======  ======================  =======================================  ====================
push     they touch              b goes on along d ahead of a, a keeps    b farther along d, a
                                 up, they stay close                      close behind it
pull     they touch              a goes back along -d, b follows close    b back along -d, a
                                                                          ahead of it, close
hit      they touch              b goes off along d while a stays         apart, b farther
                                                                          along d
bump     they touch              both go back the way they came           apart, on own sides
carry    b sits on a's upper     both travel, b on top, not slipping      b elsewhere, on a
         side
squash   they touch              b's height falls to 3/4 or less and it   b flat, under a
                                 spreads while a presses down
chase    a has gained 2 pixels   both go the same way, b ahead            b elsewhere, a
                                                                          behind, not far back
hug      they touch              they stay together                       together, own sides
=======  ======================  =======================================  ====================
"""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from matrix_video.evaluation.oracle.carry_squash import CARRY, SQUASH
from matrix_video.evaluation.oracle.geometry import (
    ACTS,
    CHANGES,
    SETS_IN,
    Flags,
    Pair,
    cosine,
    displacement,
    first,
    meets,
    moved,
    sets_in,
    shift_T,
    unit,
)
from matrix_video.evaluation.oracle.rules import (
    ALIGNED,
    FLIGHT,
    SLACK,
    Course,
    Judged,
    Rule,
    axis,
    is_moved,
    moves_off,
    touching,
)
from matrix_video.evaluation.oracle.tracks import Track

_HOLD: Final = 5  # frames that make an embrace
_GAINED: Final = 2.0  # pixels by which a pursuer comes closer


# push: b goes on ahead of a, along d, and a keeps up. pull: a goes back along -d and b follows it.


def _tows(course: Course, sign: int) -> Judged:
    """Whether both travel along d (push) or -d (pull), close together and b on its side of a."""
    d = course.came
    s, o, strays = course.goes(sign * d, "s"), course.goes(sign * d, "o"), course.strays()
    aligned = cosine(displacement(course.pair.b, course.turn, course.pair.last), sign * d)
    in_order = bool((course.pair.offset_T2[course.turn :] @ d > 0).all())
    holds = o >= CHANGES and s >= 0.6 * o and aligned >= ALIGNED and strays <= SLACK and in_order
    return holds, {"object_along": o, "subject_along": s, "aligned": aligned, "strays": strays}


def _towed(course: Course, sign: int) -> Judged:
    """Whether b has ended up farther along d (push) or -d (pull), and a close to it."""
    d = course.came
    o = float(displacement(course.pair.b, 0, course.pair.last) @ d) * sign
    ahead = float(course.pair.offset_T2[-1] @ d)
    holds = o >= CHANGES and ahead > 0 and course.growth() <= SLACK
    return holds, {"object_along": o, "object_ahead": ahead, "growth": course.growth()}


# hit: b flies off along d, a stays.


def _hit_runs(course: Course) -> Judged:
    d = course.came
    s, o = course.goes(d, "s"), course.goes(d, "o")
    aligned = cosine(displacement(course.pair.b, course.turn, course.pair.last), d)
    holds = o >= FLIGHT and abs(s) <= 0.4 * o and aligned >= ALIGNED
    return holds, {"object_along": o, "subject_along": s, "aligned": aligned}


def _hit_ends(course: Course) -> Judged:
    d = course.came
    o = float(displacement(course.pair.b, 0, course.pair.last) @ d)
    ahead = float(course.pair.offset_T2[-1] @ d)
    holds = o >= CHANGES and ahead > 0 and course.growth() >= CHANGES
    return holds, {"object_along": o, "object_ahead": ahead, "growth": course.growth()}


# bump: both come, meet and recoil.


def _recoils(pair: Pair) -> int | None:
    """When b, having come towards a, goes back the way it came."""
    along_T = pair.b.centre_T2 @ axis(pair)
    return sets_in(along_T - np.minimum.accumulate(along_T), SETS_IN, ACTS)


def _is_thrown_back(pair: Pair, since: int) -> int | None:
    """When b is back by some way from the point, at or after a contact, where it turned."""
    along_T = pair.b.centre_T2[since:] @ unit(pair.offset_T2[since])
    back = first(along_T - np.minimum.accumulate(along_T) >= ACTS)
    return None if back is None else since + back


def _bump_runs(course: Course) -> Judged:
    way = axis(course.pair)
    s, o = course.goes(-way, "s"), course.goes(way, "o")
    return s >= ACTS and o >= ACTS, {"subject_recoil": s, "object_recoil": o}


def _bump_ends(course: Course) -> Judged:
    ahead = float(course.pair.offset_T2[-1] @ axis(course.pair))
    apart = not bool(course.pair.touch_T[-1])
    back = min(course.goes(-axis(course.pair), "s"), course.goes(axis(course.pair), "o"))
    holds = course.growth() >= CHANGES and back >= SETS_IN and ahead > 0 and apart
    return holds, {"growth": course.growth(), "lesser_recoil": back, "on_own_sides": ahead}


# hug: both come and stay together.


def _clasped(pair: Pair) -> Flags:
    return pair.touching(1.05)


def _embraced(pair: Pair) -> int | None:
    """The first contact that lasts."""
    contact = meets(pair.touch_T)
    return None if contact is None else _is_embraced(pair, contact)


def _is_embraced(pair: Pair, since: int) -> int | None:
    held_T = _clasped(pair)[since : since + _HOLD + 1]
    return since if len(held_T) == _HOLD + 1 and bool(held_T.all()) else None


def _hug_runs(course: Course) -> Judged:
    held_T = _clasped(course.pair)[course.turn :]
    holds = course.contact is not None and len(held_T) > _HOLD and bool(held_T.all())
    return holds, {"frames_held": float(held_T.sum()), "of": float(len(held_T))}


def _hug_ends(course: Course) -> Judged:
    pair = course.pair
    ahead = float(pair.offset_T2[-1] @ axis(pair))
    held = course.contact is not None and bool(_clasped(pair)[-2:].all())
    return held and ahead > 0, {"gap": float(pair.gap_T[-1]), "on_own_sides": ahead}


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


RULES: Final[dict[str, Rule]] = {
    "push": Rule(touching, moves_off, is_moved, partial(_tows, sign=1), partial(_towed, sign=1)),
    "pull": Rule(touching, moves_off, is_moved, partial(_tows, sign=-1), partial(_towed, sign=-1)),
    "hit": Rule(touching, moves_off, is_moved, _hit_runs, _hit_ends),
    "bump": Rule(touching, _recoils, _is_thrown_back, _bump_runs, _bump_ends, mutual=True),
    "carry": CARRY,
    "squash": SQUASH,
    "chase": Rule(
        _has_gained, _takes_flight, _is_put_to_flight, _chase_runs, _chase_ends, in_contact=False
    ),
    "hug": Rule(touching, _embraced, _is_embraced, _hug_runs, _hug_ends, mutual=True),
}
"""By base verb."""
