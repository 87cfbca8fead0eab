"""From answers to KISA, SGI, SPI and IF, with bootstrap intervals over videos.

Source: paper section 6 (InterGenEval); pooling, clamping, intervals and the treatment of unscored
answers are our choice. V videos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

import numpy as np

from matrix_video.evaluation.oracle import Verdict
from matrix_video.evaluation.questions import KISA_QUESTIONS, SGI_QUESTIONS

Metric = Literal["kisa_raw", "sgi_raw", "spi", "kisa", "sgi", "if"]
METRICS: Final[tuple[Metric, ...]] = get_args(Metric)
LAMBDA: Final = 5.0
"""Weight of emergence and disappearance: one flagged frame in five already gives 0 (paper)."""


@dataclass(frozen=True)
class VideoScore:
    """One video; a value is None where nothing could be scored.

    ``kisa_raw`` is the share of yes among the scored answers to questions 1-6 of all its
    interactions, ``sgi_raw`` that of 7-10; ``emergence`` and ``disappearance`` are shares of the
    frames after the first.
    """

    id: str
    interactions: tuple[dict[str, Any], ...]
    kisa_raw: float | None
    sgi_raw: float | None
    emergence: float | None
    disappearance: float | None
    spi: float | None
    kisa: float | None
    sgi: float | None
    if_: float | None
    unscored: int

    def value(self, metric: Metric) -> float | None:
        return self.if_ if metric == "if" else getattr(self, metric)

    def to_json(self) -> dict[str, Any]:
        """As in ``scores.json``; the key of ``if_`` is "if"."""
        fields = asdict(self)
        return {"if" if key == "if_" else key: value for key, value in fields.items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> VideoScore:
        named: dict[str, Any] = {
            "if_" if key == "if" else key: value for key, value in fields.items()
        }
        named["interactions"] = tuple(fields["interactions"])
        return cls(**named)


@dataclass(frozen=True)
class Estimate:
    """Mean over ``n`` scored videos with a 95 % bootstrap interval; None when ``n`` is 0."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


def _share(replies: Sequence[str]) -> float | None:
    scored = [reply for reply in replies if reply != "unscored"]
    return sum(reply == "yes" for reply in scored) / len(scored) if scored else None


def spi(emergence: float, disappearance: float) -> float:
    """Semantic propagation integrity: ½[(1 − λE)⁺ + (1 − λD)⁺], in [0, 1]."""
    return 0.5 * (max(0.0, 1 - LAMBDA * emergence) + max(0.0, 1 - LAMBDA * disappearance))


def score_video(id: str, verdict: Verdict) -> VideoScore:
    """Pool the answers of all interactions of a video and weigh them with its SPI."""
    answers = [answer for one in verdict.interactions for answer in one.answers]
    kisa_raw = _share([answer.reply for answer in answers if answer.question in KISA_QUESTIONS])
    sgi_raw = _share([answer.reply for answer in answers if answer.question in SGI_QUESTIONS])
    emergence = disappearance = integrity = None
    if verdict.emergence_T is not None and verdict.disappearance_T is not None:
        emergence = float(verdict.emergence_T[1:].mean())
        disappearance = float(verdict.disappearance_T[1:].mean())
        integrity = spi(emergence, disappearance)
    kisa = None if kisa_raw is None or integrity is None else kisa_raw * integrity
    sgi = None if sgi_raw is None or integrity is None else sgi_raw * integrity
    return VideoScore(
        id=id,
        interactions=tuple(
            {
                "key_interaction": one.key_interaction,
                "verb": one.verb,
                "answers": [
                    {
                        "question": answer.question,
                        "text": answer.text,
                        "answer": answer.reply,
                        "frame": answer.frame,
                        "evidence": {key: float(v) for key, v in answer.evidence.items()},
                        "reason": answer.reason,
                    }
                    for answer in one.answers
                ],
            }
            for one in verdict.interactions
        ),
        kisa_raw=kisa_raw,
        sgi_raw=sgi_raw,
        emergence=emergence,
        disappearance=disappearance,
        spi=integrity,
        kisa=kisa,
        sgi=sgi,
        if_=None if kisa is None or sgi is None else (kisa + sgi) / 2,
        unscored=sum(answer.reply == "unscored" for answer in answers),
    )


def estimate(values: Sequence[float], *, draws: int = 2000, seed: int = 0) -> Estimate:
    """Mean with the 2.5 and 97.5 percentiles of bootstrap means over videos."""
    if not values:
        return Estimate(None, None, None, 0)
    values_V = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(values_V), size=(draws, len(values_V)))
    low, high = np.percentile(values_V[rows].mean(axis=1), [2.5, 97.5])
    return Estimate(float(values_V.mean()), float(low), float(high), len(values_V))


def summarise(videos: Sequence[VideoScore]) -> dict[Metric, Estimate]:
    """Mean over videos per metric; a video without a value does not count (and ``n`` tells)."""
    return {
        metric: estimate([v for video in videos if (v := video.value(metric)) is not None])
        for metric in METRICS
    }


def paired_difference(
    left: Sequence[VideoScore], right: Sequence[VideoScore], metric: Metric
) -> Estimate:
    """Mean of left − right over the videos that both have scored, resampled in pairs."""
    other = {video.id: video.value(metric) for video in right}
    pairs = [
        (value, base)
        for video in left
        if (value := video.value(metric)) is not None and (base := other.get(video.id)) is not None
    ]
    return estimate([value - base for value, base in pairs])
