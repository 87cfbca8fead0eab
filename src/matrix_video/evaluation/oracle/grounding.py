"""Who does what to whom: agent and recipient among all instances, for any verb's rule."""

from __future__ import annotations

import numpy as np

from matrix_video.evaluation.oracle.course import EARLY, NEXT, Course, Rule
from matrix_video.evaluation.oracle.geometry import (
    ACTS,
    CHANGES,
    SETS_IN,
    Cast,
    Fact,
    Pair,
    approach,
    cosine,
    displacement,
    first,
    meets,
    moved,
    settles,
    shift_T,
)
from matrix_video.evaluation.oracle.pursuit import follows, gain, sets_out


def acts(cast: Cast, course: Course, rule: Rule) -> Fact:
    """Q7: s moves by itself by the time of contact; it is not set in motion by another."""
    s, last = cast.subject, course.pair.last
    until = course.turn if rule.in_contact and course.contact is not None else last
    way_T = shift_T(s, 0)[: until + 1]
    moves, onset = first(way_T >= ACTS), sets_out(s)
    if moves is None or onset is None:
        return Fact(False, until, {}, {"moved": float(way_T.max())})
    pushed = 0
    for other in (*cast.others, cast.object):
        reached = _reaches(cast.pair(other, s))
        pushed += reached is not None and reached <= onset
    evidence = {"moved": float(way_T.max()), "set_in_motion_by": float(pushed)}
    return Fact(not pushed, onset, {"s": (0, moves)}, evidence)


def _reaches(pair: Pair) -> int | None:
    """When a, by its own motion, comes into contact with b."""
    contact = meets(pair.touch_T)
    if contact is None:
        return None
    there = settles(pair, contact, min(contact + NEXT, pair.last))
    return contact if approach(pair.a, pair.b.centre_T2, there) >= ACTS else None


def agent(cast: Cast, course: Course, rule: Rule) -> Fact:
    """Q8: of all instances it is s that first reaches o (chase: that goes after o)."""
    pair = course.pair
    if not rule.in_contact:
        rivals = [one for one in cast.others if _pursues(cast.pair(one, pair.b), pair)]
        holds = follows(pair) and not rivals
        return Fact(holds, pair.last, _until(_met(course)), {"rivals": float(len(rivals))})
    came = rule.approach(pair, course.turn)
    if course.contact is None:
        return Fact(False, course.turn, {}, {"approach": came})
    earlier = 0
    for one in cast.others:
        reached = _reaches(cast.pair(one, pair.b))
        earlier += reached is not None and reached < course.contact
    stirred = course.onset is not None and course.onset < course.contact - EARLY
    holds = came >= ACTS and not earlier and not stirred
    evidence = {"approach": came, "earlier": float(earlier), "stirred_before": float(stirred)}
    return Fact(holds, course.contact, _until(course.contact), evidence)


def _until(frame: int) -> dict[str, tuple[int, int]]:
    return {"s": (0, frame), "o": (0, frame)}


def _met(course: Course) -> int:
    return course.pair.last if course.contact is None else course.contact


def _pursues(rival: Pair, named: Pair) -> bool:
    """Whether another goes after the same one, gains on it and does so better than the named."""
    return follows(rival) and gain(rival) >= SETS_IN and _closer(rival, named)


def _closer(rival: Pair, named: Pair) -> bool:
    """Whether a pair ends up nearer to each other and more of one way than the named pair."""
    nearer = bool(rival.distance_T[-1] < named.distance_T[-1])
    return nearer and _one_way(rival) > _one_way(named)


def _one_way(pair: Pair) -> float:
    return cosine(displacement(pair.a, 0, pair.last), displacement(pair.b, 0, pair.last))


def recipient(cast: Cast, course: Course, rule: Rule) -> Fact:
    """Q9: it is o that s reaches, and no other that s reaches is changed in its stead."""
    pair = course.pair
    if not rule.in_contact:
        rivals = [one for one in cast.others if _is_chased(cast.pair(pair.a, one), pair)]
        holds = follows(pair) and not rivals
        return Fact(holds, pair.last, _until(_met(course)), {"rivals": float(len(rivals))})
    came = rule.approach(pair, course.turn)
    if course.contact is None or came < ACTS:
        return Fact(False, course.turn, {}, {"approach": came})
    instead = [one for one in cast.others if _is_changed(cast.pair(pair.a, one))]
    evidence = {"approach": came, "changed_instead": float(len(instead))}
    return Fact(not instead, course.contact, _until(course.contact), evidence)


def _is_chased(rival: Pair, named: Pair) -> bool:
    """Whether a goes after another, which goes the same way, and gets nearer to that one."""
    other, last = rival.b, rival.last
    flees = moved(other, 0, last) >= CHANGES and _one_way(rival) > 0
    return follows(rival) and flees and _closer(rival, named)


def _is_changed(pair: Pair) -> bool:
    """Whether b, reached by a, leaves the course that it had until then."""
    reached = _reaches(pair)
    if reached is None:
        return False
    was_2 = displacement(pair.b, 0, reached) / max(reached, 1)
    left_2 = displacement(pair.b, reached, pair.last) - was_2 * (pair.last - reached)
    return float(np.hypot(*left_2)) >= CHANGES


def acted_upon(cast: Cast, course: Course, rule: Rule) -> Fact:
    """Q10: o changes once an instance that moved by itself has met it, whichever that is."""
    o, last = cast.object, course.pair.last
    best: Fact | None = None
    for one in (cast.subject, *cast.others):
        met = _meets_by_itself(cast.pair(one, o), rule)
        changed = None if met is None else rule.affected(cast.pair(one, o), met)
        if met is None or changed is None:
            continue
        if best is None or changed < best.frame:
            evidence = {"met": float(met), "moved": moved(o, met, last)}
            best = Fact(True, changed, {"o": (max(met - 1, 0), changed)}, evidence)
    return best or Fact(False, last, {}, {"moved": moved(o, 0, last)})


def _meets_by_itself(pair: Pair, rule: Rule) -> int | None:
    """When a, having moved, first meets b (in a verb without contact: when a sets out)."""
    if not rule.in_contact:
        return sets_out(pair.a)
    for joined_T in (rule.joined(pair), pair.touch_T):
        met = meets(joined_T)
        if met is not None:
            there = settles(pair, met, min(met + NEXT, pair.last))
            if moved(pair.a, 0, there) >= ACTS:
                return met
    return None
