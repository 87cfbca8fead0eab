"""From a verdict to KISA, SGI, SPI, IF and the contrastive scores of one video, and to summaries.

Source: paper section 6 (InterGenEval). Pooling, clamping, the treatment of unscored answers and
the contrastive scores are our choice:

role gap    IF as asked less IF with subject and object exchanged, mean over interactions whose verb
            has a direction
verb gap    IF as asked less the mean of IF over other verbs, mean over interactions

Both stand on the same tracks, so that a motion which looks like any interaction cancels out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Final

from matrix_video.data.sample import Sample
from matrix_video.evaluation.estimates import Estimate, estimate
from matrix_video.evaluation.questions import (
    KISA_QUESTIONS,
    NO_WORDING,
    SGI_QUESTIONS,
    AskedFoil,
    FoilKind,
    Wording,
    key_interaction,
    texts,
)
from matrix_video.evaluation.scores import (
    METRICS,
    REPLY_LETTERS,
    Foil,
    Metric,
    Numbers,
    ScoredAnswer,
    ScoredInteraction,
    Summary,
    VideoScore,
)
from matrix_video.evaluation.verdict import Verdict

LAMBDA: Final = 5.0
"""Weight of emergence and disappearance: one flagged frame in five already gives 0 (paper)."""


def spi(emergence: float, disappearance: float) -> float:
    """Semantic propagation integrity: ½[(1 − λE)⁺ + (1 − λD)⁺], in [0, 1]."""
    return 0.5 * (max(0.0, 1 - LAMBDA * emergence) + max(0.0, 1 - LAMBDA * disappearance))


def score_video(
    sample: Sample,
    verdict: Verdict,
    foils: Sequence[AskedFoil] = (),
    wording: Wording = NO_WORDING,
    *,
    video: str = "",
    prompt: str = "",
) -> VideoScore:
    """Scores of one judged video; ``verdict`` answers the asked interactions, then ``foils``.

    ``video`` and ``prompt`` are the hashes that the score keeps. ``ValueError`` where the judge
    answered another number of interactions.
    """
    asked = len(sample.interactions)
    if len(verdict.answers) != asked + len(foils):
        raise ValueError(
            f"{asked + len(foils)} interactions were asked, not {len(verdict.answers)}"
        )
    interactions = tuple(
        ScoredInteraction(
            key_interaction=key_interaction(sample, one),
            subject=one.subject,
            verb=one.verb,
            object=one.object,
            answers=tuple(
                ScoredAnswer(
                    question=answer.question,
                    text=text,
                    answer=answer.reply,
                    frame=answer.frame,
                    evidence=dict(answer.evidence),
                    raw=answer.raw,
                    reason=answer.reason,
                )
                for answer, text in zip(answers, texts(sample, one, wording), strict=True)
            ),
            foils=tuple(
                Foil(
                    kind=foil.kind,
                    subject=foil.interaction.subject,
                    verb=foil.interaction.verb,
                    object=foil.interaction.object,
                    same_effect=foil.same_effect,
                    replies="".join(REPLY_LETTERS[answer.reply] for answer in replies),
                )
                for foil, replies in zip(foils, verdict.answers[asked:], strict=True)
                if foil.of == index
            ),
        )
        for index, (one, answers) in enumerate(
            zip(sample.interactions, verdict.answers[:asked], strict=True)
        )
    )
    looked = [p for p in verdict.propagation if "unscored" not in (p.emergence, p.disappearance)]
    emerged = tuple(p.frame for p in looked if p.emergence == "yes")
    gone = tuple(p.frame for p in looked if p.disappearance == "yes")
    integrity = spi(len(emerged) / len(looked), len(gone) / len(looked)) if looked else None
    replies = [_replies(one) for one in interactions]
    numbers = _numbers(sample.id, replies, integrity)
    reasons = [a.reason for one in interactions for a in one.answers if a.answer == "unscored"]
    if not sample.interactions:
        reasons = ["the prompt asks for no interaction"]
    rivals = _raws(interactions, lambda foil: not foil.same_effect)
    return VideoScore(
        **numbers.model_dump(exclude={"role_gap", "verb_gap"}),
        role_gap=_gap(interactions, "roles exchanged", integrity),
        verb_gap=_gap(interactions, "another verb", integrity),
        margin=min((own - other for own, others in rivals for other in others), default=None),
        state="unscored" if numbers.if_ is None else "scored",
        reason=reasons[0] if reasons else None,
        video=video,
        prompt=prompt,
        interactions=interactions,
        looked_at=len(looked),
        emerged=emerged,
        disappeared=gone,
        unscored="".join(replies).count(REPLY_LETTERS["unscored"]),
    )


def _numbers(id: str, replies: Sequence[str], integrity: float | None) -> Numbers:
    """Pool the replies of several interactions, ten letters each, and weigh them with SPI."""
    kisa_raw, sgi_raw = (
        _share("".join(one[number - 1] for one in replies for number in numbers))
        for numbers in (KISA_QUESTIONS, SGI_QUESTIONS)
    )
    kisa = None if kisa_raw is None or integrity is None else kisa_raw * integrity
    sgi = None if sgi_raw is None or integrity is None else sgi_raw * integrity
    mean = None if kisa is None or sgi is None else (kisa + sgi) / 2
    raw = {"kisa_raw": kisa_raw, "sgi_raw": sgi_raw}
    return Numbers.model_validate(
        {"id": id, **raw, "spi": integrity, "kisa": kisa, "sgi": sgi, "if": mean}
    )


def _share(replies: str) -> float | None:
    scored = replies.replace(REPLY_LETTERS["unscored"], "")
    return scored.count(REPLY_LETTERS["yes"]) / len(scored) if scored else None


def _replies(one: ScoredInteraction) -> str:
    return "".join(REPLY_LETTERS[answer.answer] for answer in one.answers)


def _raws(
    interactions: Iterable[ScoredInteraction], wanted: Callable[[Foil], bool]
) -> list[tuple[float, list[float]]]:
    """IF before SPI of each interaction, as asked and for its wanted foils."""

    def raw(replies: str) -> float | None:
        return _numbers("", [replies], 1.0).if_

    return [
        (own, others)
        for one in interactions
        if (own := raw(_replies(one))) is not None
        and (others := [r for f in one.foils if wanted(f) and (r := raw(f.replies)) is not None])
    ]


def _gap(
    interactions: Iterable[ScoredInteraction], kind: FoilKind, integrity: float | None
) -> float | None:
    raws = _raws(interactions, lambda foil: foil.kind == kind)
    gaps = [own - fmean(others) for own, others in raws]
    return fmean(gaps) * integrity if gaps and integrity is not None else None


def foil_numbers(video: VideoScore, kind: FoilKind) -> Numbers | None:
    """What the same video scores if its foils had been asked: a null row, made from ground truth.

    The mean over the foils of each interaction; None where it has none of this kind.
    """
    foiled = [[f.replies for f in one.foils if f.kind == kind] for one in video.interactions]
    rounds = max(map(len, foiled), default=0)
    if not rounds:
        return None
    found = [
        _numbers(video.id, [some[turn % len(some)] for some in foiled if some], video.spi)
        for turn in range(rounds)
    ]
    means = {
        metric: fmean(values)
        for metric in METRICS
        if (values := [v for one in found if (v := one.value(metric)) is not None])
    }
    gap: Metric = "role_gap" if kind == "roles exchanged" else "verb_gap"
    own = video.value(gap)
    if kind == "roles exchanged" and own is not None:
        means[gap] = -own
    elif own is not None:
        # Of each other verb less the mean over all but it, the true one among them.
        means[gap] = -own / rounds
    return Numbers.model_validate({"id": video.id, **means})


def summarise(videos: Iterable[Numbers]) -> Summary:
    """Mean over videos per metric; a video without a value does not count (and ``n`` tells)."""
    values: dict[Metric, list[float]] = {metric: [] for metric in METRICS}
    for video in videos:
        for metric in METRICS:
            if (value := video.value(metric)) is not None:
                values[metric].append(value)
    return {metric: estimate(found) for metric, found in values.items()}


def paired_difference(
    left: Iterable[Numbers], right: Iterable[Numbers], metric: Metric
) -> Estimate:
    """Mean of left − right over the videos that both have scored, resampled in pairs."""
    other = {video.id: video.value(metric) for video in right}
    pairs = [
        (value, base)
        for video in left
        if (value := video.value(metric)) is not None and (base := other.get(video.id)) is not None
    ]
    return estimate([value - base for value, base in pairs])
