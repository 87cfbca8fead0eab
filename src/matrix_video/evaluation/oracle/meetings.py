"""Rules of bump and hug: both act.

a is the subject, b the object. Shapes: T frames.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from matrix_video.evaluation.oracle.course import (
    Course,
    Judged,
    Rule,
    axis,
    touching,
)
from matrix_video.evaluation.oracle.geometry import (
    ACTS,
    CHANGES,
    SETS_IN,
    Flags,
    Pair,
    first,
    meets,
    sets_in,
    unit,
)

_HOLD: Final = 5  # frames that make an embrace


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


BUMP: Final = Rule(touching, _recoils, _is_thrown_back, _bump_runs, _bump_ends, mutual=True)
HUG: Final = Rule(touching, _embraced, _is_embraced, _hug_runs, _hug_ends, mutual=True)
