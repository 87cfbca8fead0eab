"""The ten answers of InterGenEval for one interaction, from tracks.

What each question measures (s the named subject, o the named object; d the way s came):

====  ==================================================================================
 Q1   both are whole and apart in the first two frames (carry: o not yet on s)
 Q2   s's own motion brings it closer to o, more so than o's does (bump, hug: both do;
      chase: s moves towards where o goes)
 Q3   from being apart they come to touch (carry: o comes to sit on s; chase: s gains)
 Q4   o's change sets in, and not before contact (chase: not before s sets out)
 Q5   the change runs as the verb demands, see ``verbs``
 Q6   the end state is the verb's, see ``verbs``
 Q7   s moves by itself before another reaches it
 Q8   no other instance reaches o by its own motion before s does (chase: pursues o nearer)
 Q9   s reaches o, and nothing that s reaches in its stead is changed
 Q10  o changes once an instance that moved by itself has met it
====  ==================================================================================

A fact that holds only while a participant it rests on is gone, melted, or leaps is answered
"no (visually implausible)".

What a failure lowers, everything else being sound (the tests plant each in pixels):

=================  =======================  ==============================================
failure            lowers                   except
=================  =======================  ==============================================
wrong agent        Q2-Q9                    (o is still acted upon, Q10, though not by s)
wrong recipient    Q2-Q6, Q8-Q10            (s still acts, Q7)
no contact         Q3, Q4, Q8-Q10           carry, hug: Q5, Q6 too, which are made of contact;
                                            chase, where s does not gain: Q3 alone
no effect          Q4, Q5, Q6, Q10
o vanishes, melts  Q4, Q5, Q6, Q10; SPI     hug, chase, where it vanishes midway: Q5, Q6; SPI
one is duplicated  SPI alone
a stranger, noise  SPI alone
another verb       Q5, Q6; often Q4, Q10    (by the two verbs: carry, done as a push, Q3, Q8, Q9)
s and o exchange   Q5, Q6                   squash, chase, judged by how they end: Q4, Q10 too
appearance midway
frozen frame       Q2-Q10
=================  =======================  ==============================================
"""

from __future__ import annotations

from typing import Final

import numpy as np

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
    is_there,
    meets,
    moved,
    settles,
    shift_T,
)
from matrix_video.evaluation.oracle.rules import EARLY, NEXT, Course, Rule
from matrix_video.evaluation.oracle.verbs import follows, gain, sets_out
from matrix_video.evaluation.verdict import Answer

AWAY: Final = 1000.0
"""Stands for an infinite distance in an answer's evidence."""
_REACHES = 3.5  # pixels that an approach must bring


def answer(rule: Rule, cast: Cast) -> tuple[Answer, ...]:
    """The ten answers of one interaction, in the order of the questions."""
    return tuple(
        _answer(number, fact, cast) for number, fact in enumerate(ask(rule, cast), start=1)
    )


def _answer(number: int, fact: Fact, cast: Cast) -> Answer:
    evidence = {name: min(value, AWAY) for name, value in fact.evidence.items()}
    if not fact.holds:
        return Answer(number, "no", fact.frame, evidence)
    for role, (start, stop) in fact.needs.items():
        broken_T = (cast.subject if role == "s" else cast.object).broken_T
        if broken_T[start : stop + 1].any():
            return Answer(number, "no (visually implausible)", fact.frame, evidence)
    return Answer(number, "yes", fact.frame, evidence)


def ask(rule: Rule, cast: Cast) -> tuple[Fact, ...]:
    """The ten facts that the questions ask for."""
    course = rule.course(cast.named)
    return (
        _before(course, rule),
        _comes(course, rule),
        _contact(course),
        _cause(course, rule),
        _runs(course, rule),
        _ends(course, rule),
        _acts(cast, course, rule),
        _agent(cast, course, rule),
        _recipient(cast, course, rule),
        _acted_upon(cast, course, rule),
    )


def _before(course: Course, rule: Rule) -> Fact:
    pair = course.pair
    there = all(is_there(one, t) for one in (pair.a, pair.b) for t in (0, 1))
    joined_T = rule.joined(pair) if rule.beneath else pair.touch_T
    apart = not bool(joined_T[:2].any())
    evidence = {"gap": float(pair.gap_T[0]), "there": float(there)}
    return Fact(there and apart, 0, {"s": (0, 1), "o": (0, 1)}, evidence)


def _comes(course: Course, rule: Rule) -> Fact:
    pair = course.pair
    met = pair.last if course.contact is None else course.contact
    until = course.turn if rule.in_contact else met
    s = rule.approach(pair, until)
    o = approach(pair.b, pair.a.centre_T2, until)
    if not rule.in_contact:
        holds = follows(pair, until)
    elif rule.mutual:
        holds = s >= ACTS and o >= ACTS
    else:
        holds = s >= _REACHES and s > o
    met = min(met, until)
    evidence = {"subject_approach": s, "object_approach": o}
    return Fact(holds, met, {"s": (0, met), "o": (0, met)}, evidence)


def _contact(course: Course) -> Fact:
    pair = course.pair
    gap = float(pair.gap_T.min())
    if course.contact is None:
        return Fact(False, int(pair.distance_T.argmin()), {}, {"least_gap": gap})
    window = (max(course.contact - 2, 0), course.contact)
    return Fact(True, course.contact, {"s": window, "o": window}, {"least_gap": gap})


def _cause(course: Course, rule: Rule) -> Fact:
    cause = course.contact if rule.in_contact else sets_out(course.pair.a)
    effect = course.onset
    evidence = {
        "cause": -1.0 if cause is None else float(cause),
        "effect": -1.0 if effect is None else float(effect),
    }
    if cause is None or effect is None:
        return Fact(False, course.turn, {}, evidence)
    window = (max(min(cause, effect) - 1, 0), min(effect + 1, course.pair.last))
    early = EARLY if rule.in_contact else 2 * EARLY
    return Fact(effect >= cause - early, effect, {"s": window, "o": window}, evidence)


def _runs(course: Course, rule: Rule) -> Fact:
    holds, evidence = rule.runs(course)
    window = (course.turn, course.pair.last)
    return Fact(holds, course.pair.last, {"s": window, "o": window}, evidence)


def _ends(course: Course, rule: Rule) -> Fact:
    holds, evidence = rule.ends(course)
    window = (course.pair.last - 1, course.pair.last)
    return Fact(holds, course.pair.last, {"s": window, "o": window}, evidence)


def _acts(cast: Cast, course: Course, rule: Rule) -> Fact:
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


def _agent(cast: Cast, course: Course, rule: Rule) -> Fact:
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


def _recipient(cast: Cast, course: Course, rule: Rule) -> Fact:
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


def _acted_upon(cast: Cast, course: Course, rule: Rule) -> Fact:
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
