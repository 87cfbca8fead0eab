"""Rules of push, pull and hit: one makes the other move.

a is the subject, b the object, d the direction in which a came, R the sum of both radii.
"""

from __future__ import annotations

from typing import Final

from matrix_video.evaluation.oracle.course import (
    ALIGNED,
    FLIGHT,
    SLACK,
    Course,
    Judged,
    Rule,
    is_moved,
    moves_off,
    touching,
)
from matrix_video.evaluation.oracle.geometry import (
    CHANGES,
    Floats,
    cosine,
    displacement,
)


def _in_order(course: Course, direction: Floats) -> bool:
    """Whether b keeps ahead of a along a direction from the turn to the end."""
    ahead_T = course.pair.offset_T2[course.turn :] @ direction
    return bool((ahead_T > 0).all()) and bool(direction.any())


# push: b goes on ahead of a, along d, and a keeps up.


def _push_runs(course: Course) -> Judged:
    d = course.came
    s, o, strays = course.goes(d, "s"), course.goes(d, "o"), course.strays()
    aligned = cosine(displacement(course.pair.b, course.turn, course.pair.last), d)
    holds = o >= CHANGES and s >= 0.6 * o and aligned >= ALIGNED
    holds = holds and strays <= SLACK and _in_order(course, d)
    return holds, {"object_along": o, "subject_along": s, "aligned": aligned, "strays": strays}


def _push_ends(course: Course) -> Judged:
    d = course.came
    o = float(displacement(course.pair.b, 0, course.pair.last) @ d)
    ahead = float(course.pair.offset_T2[-1] @ d)
    holds = o >= CHANGES and ahead > 0 and course.growth() <= SLACK
    return holds, {"object_along": o, "object_ahead": ahead, "growth": course.growth()}


# pull: a goes back along -d and b follows it.


def _pull_runs(course: Course) -> Judged:
    d = course.came
    s, o, strays = course.goes(-d, "s"), course.goes(-d, "o"), course.strays()
    aligned = cosine(displacement(course.pair.b, course.turn, course.pair.last), -d)
    holds = o >= CHANGES and s >= 0.6 * o and aligned >= ALIGNED
    holds = holds and strays <= SLACK and _in_order(course, d)
    return holds, {"object_back": o, "subject_back": s, "aligned": aligned, "strays": strays}


def _pull_ends(course: Course) -> Judged:
    d = course.came
    o = float(displacement(course.pair.b, 0, course.pair.last) @ -d)
    behind = float(course.pair.offset_T2[-1] @ d)
    holds = o >= CHANGES and behind > 0 and course.growth() <= SLACK
    return holds, {"object_back": o, "object_behind": behind, "growth": course.growth()}


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


PUSH: Final = Rule(touching, moves_off, is_moved, _push_runs, _push_ends)
PULL: Final = Rule(touching, moves_off, is_moved, _pull_runs, _pull_ends)
HIT: Final = Rule(touching, moves_off, is_moved, _hit_runs, _hit_ends)
