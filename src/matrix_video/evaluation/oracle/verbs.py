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

from matrix_video.evaluation.oracle.geometry import (
    ACTS,
    CHANGES,
    SETS_IN,
    Course,
    Flags,
    Floats,
    Judged,
    Pair,
    Rule,
    cosine,
    displacement,
    first,
    meets,
    moved,
    sets_in,
    shift_T,
    unit,
)
from matrix_video.evaluation.oracle.silhouette import Masks, centroid
from matrix_video.evaluation.oracle.tracks import Track

_FLIGHT: Final = 6.0  # pixels that make a flight
_SLACK: Final = 4.0  # pixels by which a distance may grow and still be "kept"
_ALIGNED: Final = 0.7  # cosine of two directions that agree
_HOLD: Final = 5  # frames that make an embrace
_GAINED: Final = 2.0  # pixels by which a pursuer comes closer
_SEATED: Final = 0.85  # of R: one that sits on another is closer than one beside it
_RIDING: Final = 0.95  # of R: one that rides may shift a little on its seat
_SLIPS: Final = 5.0  # pixels by which it may do so
_BENEATH: Final = 0.6  # of R: how far below the object the subject ends up when it carries
_FLAT: Final = 0.75  # of its first height: flattened
_SINKS: Final = 0.85  # of its first height: flattening begins
_BROADER: Final = 1.045  # of the width it would have if merely covered from above
_AT_LAST: Final = 3  # frames at the end over which a width is averaged


def _touching(pair: Pair) -> Flags:
    return pair.touch_T


def _moves_off(pair: Pair) -> int | None:
    """When b begins to leave the place where it stood."""
    return sets_in(shift_T(pair.b, 0), SETS_IN, CHANGES)


def _is_moved(pair: Pair, since: int) -> int | None:
    """When b has visibly left the place where it was in a frame."""
    return first(shift_T(pair.b, since) >= ACTS, since)


def _axis(pair: Pair) -> Floats:
    """Direction from a to b in the first frame."""
    return unit(pair.offset_T2[0])


# push: b goes on ahead of a, along d, and a keeps up. pull: a goes back along -d and b follows it.
# hit: b flies off along d, a stays.


def _along(course: Course, way: Floats) -> dict[str, float]:
    """How far both travel along a direction from the turn to the end, and whether b keeps to it."""
    pair = course.pair
    return {
        "object_along": course.goes(way, pair.b),
        "subject_along": course.goes(way, pair.a),
        "aligned": cosine(displacement(pair.b, course.turn, pair.last), way),
    }


def _tows(course: Course, sign: int) -> Judged:
    """Whether both travel along d (push) or -d (pull), close together and b on its side of a."""
    found = _along(course, sign * course.came)
    o, s, aligned = found.values()
    distance_T = course.pair.distance_T[course.turn :]
    strays = float(distance_T.max() - distance_T[0])
    in_order = bool((course.pair.offset_T2[course.turn :] @ course.came > 0).all())
    holds = o >= CHANGES and s >= 0.6 * o and aligned >= _ALIGNED and strays <= _SLACK and in_order
    return holds, {**found, "strays": strays}


def _strikes(course: Course) -> Judged:
    """Whether b flies off along d while a stays."""
    found = _along(course, course.came)
    o, s, aligned = found.values()
    return o >= _FLIGHT and abs(s) <= 0.4 * o and aligned >= _ALIGNED, found


def _displaced(course: Course, sign: int = 1, *, apart: bool = False) -> Judged:
    """Whether b has ended up farther along d (or -d), and a close to it or apart from it."""
    o = float(displacement(course.pair.b, 0, course.pair.last) @ course.came) * sign
    ahead = float(course.pair.offset_T2[-1] @ course.came)
    parted = course.growth >= CHANGES if apart else course.growth <= _SLACK
    evidence = {"object_along": o, "object_ahead": ahead, "growth": course.growth}
    return o >= CHANGES and ahead > 0 and parted, evidence


# bump: both come, meet and recoil.


def _recoils(pair: Pair) -> int | None:
    """When b, having come towards a, goes back the way it came."""
    along_T = pair.b.centre_T2 @ _axis(pair)
    return sets_in(along_T - np.minimum.accumulate(along_T), SETS_IN, ACTS)


def _is_thrown_back(pair: Pair, since: int) -> int | None:
    """When b is back by some way from the point, at or after a contact, where it turned."""
    along_T = pair.b.centre_T2[since:] @ unit(pair.offset_T2[since])
    back = first(along_T - np.minimum.accumulate(along_T) >= ACTS)
    return None if back is None else since + back


def _back(course: Course) -> tuple[float, float]:
    """Pixels that both go back from the turn on."""
    way = _axis(course.pair)
    return course.goes(-way, course.pair.a), course.goes(way, course.pair.b)


def _bump_runs(course: Course) -> Judged:
    s, o = _back(course)
    return s >= ACTS and o >= ACTS, {"subject_recoil": s, "object_recoil": o}


def _bump_ends(course: Course) -> Judged:
    ahead = float(course.pair.offset_T2[-1] @ _axis(course.pair))
    back, apart = min(_back(course)), not bool(course.pair.touch_T[-1])
    holds = course.growth >= CHANGES and back >= SETS_IN and ahead > 0 and apart
    return holds, {"growth": course.growth, "lesser_recoil": back, "on_own_sides": ahead}


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
    ahead = float(pair.offset_T2[-1] @ _axis(pair))
    held = course.contact is not None and bool(_clasped(pair)[-2:].all())
    return held and ahead > 0, {"gap": float(pair.gap_T[-1]), "on_own_sides": ahead}


# carry: b sits on a's upper side and both travel.


def _sits_on(pair: Pair) -> Flags:
    """b above a, over it, closer than two that merely stand side by side."""
    across_T, up_T = np.abs(pair.offset_T2[:, 0]), -pair.offset_T2[:, 1]
    over_T = (up_T >= 0.25 * pair.radii) & (across_T <= 0.35 * pair.radii)
    return over_T & (pair.distance_T <= _SEATED * pair.radii) & pair.touch_T


def _carry_runs(course: Course) -> Judged:
    pair = course.pair
    start = course.turn if course.onset is None else max(course.turn, course.onset - 1)
    s, o = moved(pair.a, start, pair.last), moved(pair.b, start, pair.last)
    change_T2 = pair.offset_T2[start:] - pair.offset_T2[start]
    slip = float(np.hypot(*change_T2.T).max())
    above = float((-pair.offset_T2[start:, 1]).min()) / pair.radii
    apart = float(pair.distance_T[start:].max()) / pair.radii
    holds = s >= CHANGES and o >= CHANGES and slip <= _SLIPS and above >= 0.2 and apart <= _RIDING
    evidence = {"subject_travels": s, "object_travels": o, "slip": slip, "above": above}
    return holds, {**evidence, "apart": apart}


def _carry_ends(course: Course) -> Judged:
    pair = course.pair
    o = moved(pair.b, 0, pair.last)
    seated = bool(_sits_on(pair)[-2:].all())
    return seated and o >= CHANGES, {"object_travelled": o, "still_on_top": float(seated)}


# squash: b's height shrinks under a.


def _height_T(pair: Pair) -> Floats:
    return pair.b.height_T / max(float(pair.b.height_T[0]), 1.0)


def _broadening(pair: Pair) -> float:
    """How much wider b is at the end than what of its first shape has the same height.

    One that is only covered from above shows the lower part of its old shape, and no more.
    """
    first_HW = pair.b.seen_THW[0]
    feet = np.flatnonzero(first_HW.any(axis=1))[-1] + 1
    ratios: list[float] = []
    for seen_HW in pair.b.seen_THW[-_AT_LAST:]:
        rows = np.flatnonzero(seen_HW.sum(axis=1) >= 2)
        if len(rows):
            old_HW = first_HW[max(feet - (rows[-1] + 1 - rows[0]), 0) : feet]
            ratios.append(_breadth(seen_HW) / max(_breadth(old_HW), 1))
    return float(np.mean(ratios)) if ratios else 0.0


def _breadth(mask_HW: Masks) -> int:
    columns = np.flatnonzero(mask_HW.any(axis=0))
    return int(columns[-1] - columns[0] + 1) if len(columns) else 0


def _flattens(pair: Pair) -> int | None:
    """Sinking without spreading is not flattening: something merely covers it."""
    if _broadening(pair) < _BROADER:
        return None
    return sets_in(1.0 - _height_T(pair), 1.0 - _SINKS, 1.0 - _FLAT)


def _is_flattened(pair: Pair, since: int) -> int | None:
    onset = _flattens(pair)
    return None if onset is None else max(onset, since)


def _is_over(pair: Pair, t: int) -> bool:
    """Whether what is seen of a lies above what is seen of b."""
    a_HW, b_HW = pair.a.seen_THW[t], pair.b.seen_THW[t]
    if not a_HW.any() or not b_HW.any():
        return False
    return bool(centroid(a_HW)[1] < centroid(b_HW)[1])


def _squash_runs(course: Course) -> Judged:
    pair = course.pair
    height, width = float(_height_T(pair)[-1]), _broadening(pair)
    down = float(displacement(pair.a, 0, pair.last)[1])
    # From first touch: while one is pressed flat the two keep coming closer.
    touched = course.turn if course.contact is None else course.contact
    pressed = float(displacement(pair.a, touched, pair.last)[1])
    over = all(_is_over(pair, t) for t in range(touched, pair.last + 1))
    holds = height <= _FLAT and width >= _BROADER and down >= ACTS and pressed >= SETS_IN and over
    return holds, {"height": height, "width": width, "subject_down": down, "pressed": pressed}


def _squash_ends(course: Course) -> Judged:
    pair = course.pair
    flat = bool((_height_T(pair)[-2:] <= _FLAT).all()) and _broadening(pair) >= _BROADER
    down = float(displacement(pair.a, 0, pair.last)[1])
    holds = flat and down >= ACTS and _is_over(pair, pair.last)
    return holds, {"height": float(_height_T(pair)[-1]), "subject_down": down}


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
    return float(np.hypot(*way)) >= least and cosine(way, goal) >= _ALIGNED


def flees(pair: Pair) -> bool:
    """Whether b makes off with a behind it."""
    way = displacement(pair.b, 0, pair.last)
    return float(np.hypot(*way)) >= _FLIGHT and cosine(way, pair.offset_T2[0]) >= 0.5


def gain(pair: Pair) -> float:
    """Pixels by which a has come closer to b at the end."""
    return float(pair.distance_T[0] - pair.distance_T[-1])


def _has_gained(pair: Pair) -> Flags:
    gained_T = pair.distance_T[0] - pair.distance_T >= _GAINED
    behind_T = pair.offset_T2 @ unit(displacement(pair.a, 0, pair.last)) > 0
    return gained_T & behind_T & follows(pair)


def _takes_flight(pair: Pair) -> int | None:
    return sets_in(shift_T(pair.b, 0), SETS_IN, _FLIGHT) if flees(pair) else None


def _is_put_to_flight(pair: Pair, since: int) -> int | None:
    return _takes_flight(pair) if follows(pair) else None


def _chase_runs(course: Course) -> Judged:
    pair = course.pair
    s, o = displacement(pair.a, 0, pair.last), displacement(pair.b, 0, pair.last)
    ways = min(float(np.hypot(*s)), float(np.hypot(*o)))
    aligned = cosine(s, o)
    behind = bool((pair.offset_T2 @ unit(o) > 0).all())
    holds = ways >= _FLIGHT and aligned >= _ALIGNED and behind
    return holds, {"shorter_way": ways, "aligned": aligned, "behind": float(behind)}


def _chase_ends(course: Course) -> Judged:
    pair = course.pair
    o = displacement(pair.b, 0, pair.last)
    behind = float(pair.offset_T2[-1] @ unit(o))
    kept, went = gain(pair), moved(pair.a, 0, pair.last)
    holds = float(np.hypot(*o)) >= _FLIGHT and behind > 0 and kept >= -_SLACK and went >= ACTS
    return holds, {"object_travelled": float(np.hypot(*o)), "behind": behind, "gain": kept}


RULES: Final[dict[str, Rule]] = {
    "push": Rule(_touching, _moves_off, _is_moved, partial(_tows, sign=1), _displaced),
    "pull": Rule(
        _touching, _moves_off, _is_moved, partial(_tows, sign=-1), partial(_displaced, sign=-1)
    ),
    "hit": Rule(_touching, _moves_off, _is_moved, _strikes, partial(_displaced, apart=True)),
    "bump": Rule(_touching, _recoils, _is_thrown_back, _bump_runs, _bump_ends, mutual=True),
    "carry": Rule(_sits_on, _moves_off, _is_moved, _carry_runs, _carry_ends, beneath=_BENEATH),
    "squash": Rule(_touching, _flattens, _is_flattened, _squash_runs, _squash_ends),
    "chase": Rule(
        _has_gained, _takes_flight, _is_put_to_flight, _chase_runs, _chase_ends, in_contact=False
    ),
    "hug": Rule(_touching, _embraced, _is_embraced, _hug_runs, _hug_ends, mutual=True),
}
"""By base verb."""
