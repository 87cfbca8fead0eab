"""Rules of carry and squash: one bears on the other.

a is the subject, b the object, R the sum of both radii. Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from matrix_video.evaluation.oracle.geometry import (
    ACTS,
    CHANGES,
    SETS_IN,
    Flags,
    Floats,
    Pair,
    displacement,
    moved,
    sets_in,
)
from matrix_video.evaluation.oracle.rules import (
    Course,
    Judged,
    Rule,
    is_moved,
    moves_off,
    touching,
)
from matrix_video.evaluation.oracle.silhouette import Masks, centroid

_SEATED: Final = 0.85  # of R: one that sits on another is closer than one beside it
_RIDING: Final = 0.95  # of R: one that rides may shift a little on its seat
_SLIPS: Final = 5.0  # pixels by which it may do so
_BENEATH: Final = 0.6  # of R: how far below the object the subject ends up when it carries
_FLAT: Final = 0.75  # of its first height: flattened
_SINKS: Final = 0.85  # of its first height: flattening begins
_BROADER: Final = 1.045  # of the width it would have if merely covered from above
_AT_LAST: Final = 3  # frames at the end over which a width is averaged


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


CARRY: Final = Rule(_sits_on, moves_off, is_moved, _carry_runs, _carry_ends, beneath=_BENEATH)
SQUASH: Final = Rule(touching, _flattens, _is_flattened, _squash_runs, _squash_ends)
