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
o vanishes         Q4, Q5, Q6, Q10; SPI     hug, chase, where it vanishes midway: Q5, Q6; SPI
one is duplicated  SPI alone
s and o exchange   Q5, Q6                   squash, chase, judged by how they end: Q4, Q10 too
appearance midway
frozen frame       Q2-Q10
=================  =======================  ==============================================
"""

from __future__ import annotations

from typing import Final

from matrix_video.evaluation.oracle.course import EARLY, Course, Rule
from matrix_video.evaluation.oracle.geometry import ACTS, Cast, Fact, approach, is_there
from matrix_video.evaluation.oracle.grounding import acted_upon, acts, agent, recipient
from matrix_video.evaluation.oracle.pursuit import follows, sets_out
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
        acts(cast, course, rule),
        agent(cast, course, rule),
        recipient(cast, course, rule),
        acted_upon(cast, course, rule),
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
