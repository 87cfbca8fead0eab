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

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from matrix_video.evaluation.oracle.geometry import (
    ACTS,
    CHANGES,
    NEXT,
    SETS_IN,
    Cast,
    Course,
    Evidence,
    Pair,
    Rule,
    Window,
    approach,
    cosine,
    displacement,
    first,
    meets,
    moved,
    settles,
    shift_T,
)
from matrix_video.evaluation.oracle.tracks import Presence
from matrix_video.evaluation.oracle.verbs import follows, gain, sets_out
from matrix_video.evaluation.verdict import Answer

AWAY: Final = 1000.0
"""Stands for an infinite distance in an answer's evidence."""
_REACHES: Final = 3.5  # pixels that an approach must bring
_EARLY: Final = 1  # frames by which an effect may seem to precede its cause


@dataclass(frozen=True)
class Fact:
    """One geometric statement and whether it holds; ``frame`` decides it.

    Within ``window`` the participants that it rests on (by role, "s" and "o") must be whole and
    must not leap for it to be believed.
    """

    holds: bool
    frame: int
    evidence: Evidence
    window: Window = (0, 0)
    rests_on: str = "so"


def answer(rule: Rule, cast: Cast) -> tuple[Answer, ...]:
    """The ten answers of one interaction, in the order of the questions."""
    course = rule.course(cast.pair(cast.subject, cast.object))
    return tuple(
        _answer(number, ask(cast, course, rule), cast)
        for number, ask in enumerate(_QUESTIONS, start=1)
    )


def _answer(number: int, fact: Fact, cast: Cast) -> Answer:
    evidence = {name: min(float(value), AWAY) for name, value in fact.evidence.items()}
    if not fact.holds:
        return Answer(number, "no", fact.frame, evidence)
    start, stop = fact.window
    roles = {"s": cast.subject, "o": cast.object}
    if any(roles[role].broken_T[start : stop + 1].any() for role in fact.rests_on):
        return Answer(number, "no (visually implausible)", fact.frame, evidence)
    return Answer(number, "yes", fact.frame, evidence)


def _before(cast: Cast, course: Course, rule: Rule) -> Fact:
    pair = course.pair
    there = all(one.presence_T[t] is Presence.SEEN for one in (pair.a, pair.b) for t in (0, 1))
    joined_T = rule.joined(pair) if rule.beneath else pair.touch_T
    evidence = {"gap": pair.gap_T[0], "there": there}
    return Fact(there and not bool(joined_T[:2].any()), 0, evidence, (0, 1))


def _comes(cast: Cast, course: Course, rule: Rule) -> Fact:
    pair = course.pair
    met = _met(course)
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
    return Fact(holds, met, {"subject_approach": s, "object_approach": o}, (0, met))


def _contact(cast: Cast, course: Course, rule: Rule) -> Fact:
    met, evidence = course.contact, {"least_gap": course.pair.gap_T.min()}
    if met is None:
        return Fact(False, int(course.pair.distance_T.argmin()), evidence)
    return Fact(True, met, evidence, (max(met - 2, 0), met))


def _cause(cast: Cast, course: Course, rule: Rule) -> Fact:
    cause = course.contact if rule.in_contact else sets_out(course.pair.a)
    effect = course.onset
    evidence = {
        "cause": -1 if cause is None else cause,
        "effect": -1 if effect is None else effect,
    }
    if cause is None or effect is None:
        return Fact(False, course.turn, evidence)
    window = (max(min(cause, effect) - 1, 0), min(effect + 1, course.pair.last))
    early = _EARLY if rule.in_contact else 2 * _EARLY
    return Fact(effect >= cause - early, effect, evidence, window)


def _runs(cast: Cast, course: Course, rule: Rule) -> Fact:
    holds, evidence = rule.runs(course)
    return Fact(holds, course.pair.last, evidence, (course.turn, course.pair.last))


def _ends(cast: Cast, course: Course, rule: Rule) -> Fact:
    holds, evidence = rule.ends(course)
    return Fact(holds, course.pair.last, evidence, (course.pair.last - 1, course.pair.last))


def _acts(cast: Cast, course: Course, rule: Rule) -> Fact:
    """Q7: s moves by itself by the time of contact; it is not set in motion by another."""
    s, last = cast.subject, course.pair.last
    until = course.turn if rule.in_contact and course.contact is not None else last
    way_T = shift_T(s, 0)[: until + 1]
    moves, onset = first(way_T >= ACTS), sets_out(s)
    if moves is None or onset is None:
        return Fact(False, until, {"moved": way_T.max()})
    pushed = 0
    for other in (*cast.others, cast.object):
        reached = _reaches(cast.pair(other, s))
        pushed += reached is not None and reached <= onset
    evidence = {"moved": way_T.max(), "set_in_motion_by": pushed}
    return Fact(not pushed, onset, evidence, (0, moves), "s")


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
        return _chases(course, len(rivals))
    came = rule.approach(pair, course.turn)
    if course.contact is None:
        return Fact(False, course.turn, {"approach": came})
    earlier = 0
    for one in cast.others:
        reached = _reaches(cast.pair(one, pair.b))
        earlier += reached is not None and reached < course.contact
    stirred = course.onset is not None and course.onset < course.contact - _EARLY
    holds = came >= ACTS and not earlier and not stirred
    evidence = {"approach": came, "earlier": earlier, "stirred_before": stirred}
    return Fact(holds, course.contact, evidence, (0, course.contact))


def _chases(course: Course, rivals: int) -> Fact:
    """Whether s goes after o, and nobody else is in its or in o's place."""
    holds = follows(course.pair) and not rivals
    return Fact(holds, course.pair.last, {"rivals": rivals}, (0, _met(course)))


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
        return _chases(course, len(rivals))
    came = rule.approach(pair, course.turn)
    if course.contact is None or came < ACTS:
        return Fact(False, course.turn, {"approach": came})
    instead = [one for one in cast.others if _is_changed(cast.pair(pair.a, one))]
    evidence = {"approach": came, "changed_instead": len(instead)}
    return Fact(not instead, course.contact, evidence, (0, course.contact))


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
            evidence = {"met": met, "moved": moved(o, met, last)}
            best = Fact(True, changed, evidence, (max(met - 1, 0), changed), "o")
    return best or Fact(False, last, {"moved": moved(o, 0, last)})


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


_QUESTIONS: Final[tuple[Callable[[Cast, Course, Rule], Fact], ...]] = (
    _before,
    _comes,
    _contact,
    _cause,
    _runs,
    _ends,
    _acts,
    _agent,
    _recipient,
    _acted_upon,
)
