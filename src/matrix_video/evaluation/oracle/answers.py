"""The oracle judge: the ten answers of InterGenEval by geometry, no model asked.

It sees what a viewer would: the pixels of the generated video, the first-frame masks of the
prompt, and the prompt. It never sees how a clip was made, and it looks at every frame.

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

Shapes: T frames, H rows, W columns, R instances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.sample import Interaction, Sample
from matrix_video.data.tracks import MaskTrack, first_masks
from matrix_video.evaluation.oracle.course import EARLY, Course, Rule
from matrix_video.evaluation.oracle.geometry import ACTS, Cast, Fact, approach, is_there
from matrix_video.evaluation.oracle.grounding import acted_upon, acts, agent, recipient
from matrix_video.evaluation.oracle.pursuit import follows, sets_out
from matrix_video.evaluation.oracle.tracker import Track, Tracking, track
from matrix_video.evaluation.oracle.verbs import RULES
from matrix_video.evaluation.questions import NUM_QUESTIONS, key_interaction, questions

Reply = Literal["yes", "no", "no (visually implausible)", "unscored"]

AWAY: Final = 1000.0
"""Pixels that stand for an infinite distance in an answer's evidence."""
_REACHES = 3.5  # pixels that an approach must bring


@dataclass(frozen=True)
class Answer:
    """One question answered; ``reason`` is set when and only when the reply is "unscored"."""

    question: int
    text: str
    reply: Reply
    frame: int | None
    evidence: dict[str, float]
    reason: str | None = None


@dataclass(frozen=True)
class InteractionVerdict:
    """The ten answers of one key interaction."""

    key_interaction: str
    verb: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True, eq=False)
class Verdict:
    """All that the judge says of one video.

    ``emergence_T`` and ``disappearance_T`` flag frames; None when no instance could be tracked.
    """

    interactions: tuple[InteractionVerdict, ...]
    emergence_T: NDArray[np.bool_] | None
    disappearance_T: NDArray[np.bool_] | None
    tracks: Mapping[str, Track] = field(default_factory=dict[str, Track])
    """Followed instances by id."""


def judge(
    frames_THW3: NDArray[np.uint8], tracks: Mapping[str, MaskTrack], sample: Sample
) -> Verdict:
    """Judge a generated video uint8 [T,H,W,3] by its prompt's sample and first-frame masks.

    Only frame 0 of ``tracks`` is read. An interaction whose verb has no rule, or one of whose
    participants has no first-frame mask, is unscored. Raises ``ValueError`` for masks of another
    size than the video, or a video of less than two frames.
    """
    if len(frames_THW3) < 2:
        raise ValueError(f"a video of {len(frames_THW3)} frames shows no interaction")
    masks = first_masks(tracks)
    found: dict[str, Track] = {}
    tracking: Tracking | None = None
    if masks:
        tracking = track(frames_THW3, list(masks.values()))
        found = dict(zip(masks, tracking.tracks, strict=True))
    return Verdict(
        interactions=tuple(_interaction(one, sample, found) for one in sample.interactions),
        emergence_T=None if tracking is None else tracking.emergence_T,
        disappearance_T=None if tracking is None else tracking.disappearance_T,
        tracks=found,
    )


def _interaction(
    interaction: Interaction, sample: Sample, found: Mapping[str, Track]
) -> InteractionVerdict:
    words = key_interaction(sample, interaction)
    reason = None
    if interaction.verb not in RULES:
        reason = f"no geometry is known for the verb {interaction.verb!r}"
    named = (interaction.subject, interaction.object)
    for name in named:
        if name not in found:
            reason = f"{name} has no first-frame mask"
    if reason is not None:
        known = interaction.verb in RULES
        texts = questions(sample, interaction) if known else ("",) * NUM_QUESTIONS
        answers = tuple(
            Answer(number, text, "unscored", None, {}, reason)
            for number, text in enumerate(texts, start=1)
        )
        return InteractionVerdict(words, interaction.verb, answers)
    s, o = found[interaction.subject], found[interaction.object]
    others = [one for name, one in found.items() if name not in named]
    facts = ask(RULES[interaction.verb], s, o, others)
    texts = questions(sample, interaction)
    answers = tuple(
        Answer(number, text, reply(fact, s, o), fact.frame, finite(fact.evidence))
        for number, (text, fact) in enumerate(zip(texts, facts, strict=True), start=1)
    )
    return InteractionVerdict(words, interaction.verb, answers)


def finite(evidence: Mapping[str, float]) -> dict[str, float]:
    """What JSON can hold: the distance to one that is away becomes ``AWAY``."""
    return {name: min(value, AWAY) for name, value in evidence.items()}


def reply(fact: Fact, s: Track, o: Track) -> Reply:
    if not fact.holds:
        return "no"
    for role, (start, stop) in fact.needs.items():
        broken_T = (s if role == "s" else o).broken_T
        if bool(broken_T[start : stop + 1].any()):
            return "no (visually implausible)"
    return "yes"


def ask(rule: Rule, s: Track, o: Track, others: Sequence[Track]) -> tuple[Fact, ...]:
    """The ten facts of one interaction, in the order of the questions."""
    cast = Cast(s, o, others)
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
