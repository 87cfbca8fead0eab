"""Intervals over training seeds and prompts, and the difference that a run is planned to find.

Shapes: S training seeds, P prompts. Seeds and prompts are crossed: every seed has all prompts. Both
are random: another training seed or another prompt would have given another mean. Our choice: mean
squares of a two-way analysis of variance, with Satterthwaite's degrees of freedom. With three seeds
whose means differ this is a t interval of about two degrees of freedom, 2.2 times as wide as a
normal one; a bootstrap over three seeds is too narrow (it saw a third less of their spread).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from matrix_video.evaluation.estimates import FOR_INTERVAL, LEVEL

POWER: Final = 0.8


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval and two-sided p-value; of ``seeds`` training seeds and
    ``prompts`` prompts. Of fewer than `FOR_INTERVAL` prompts the mean alone."""

    mean: float
    low: float | None
    high: float | None
    seeds: int
    prompts: int
    p: float | None = None


def interval(scores_SP: NDArray[np.float64]) -> Interval:
    """Of the mean over both axes. With one training seed it is over prompts alone."""
    count_s, count_p = scores_SP.shape
    mean = float(scores_SP.mean())
    if count_p < FOR_INTERVAL:
        return Interval(mean, None, None, count_s, count_p)
    error, freedom = standard_error(scores_SP)
    if error == 0:
        return Interval(mean, mean, mean, count_s, count_p, float(mean == 0))
    half = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, freedom))
    return Interval(mean, mean - half, mean + half, count_s, count_p, p)


def standard_error(scores_SP: NDArray[np.float64]) -> tuple[float, float]:
    """Of the mean over both axes, and its degrees of freedom."""
    count_s, count_p = scores_SP.shape
    mean = scores_SP.mean()
    of_prompts_P = scores_SP.mean(axis=0) - mean
    square_p = count_s * float((of_prompts_P**2).sum()) / (count_p - 1)
    if count_s == 1:
        return math.sqrt(square_p / count_p), count_p - 1
    of_seeds_S = scores_SP.mean(axis=1) - mean
    square_s = count_p * float((of_seeds_S**2).sum()) / (count_s - 1)
    rest_SP = scores_SP - mean - of_seeds_S[:, None] - of_prompts_P
    rest = float((rest_SP**2).sum()) / ((count_s - 1) * (count_p - 1))
    square_p = max(square_p, rest)  # no component of variance is below 0
    if square_s <= rest:  # seeds differ by no more than prompts make them
        return math.sqrt(square_p / scores_SP.size), count_p - 1
    whole = square_s + square_p - rest
    parts = ((square_s, count_s - 1), (square_p, count_p - 1))
    spread = sum(square**2 / freedom for square, freedom in parts)
    spread += rest**2 / ((count_s - 1) * (count_p - 1))
    return math.sqrt(whole / scores_SP.size), whole**2 / spread


def detectable(
    deviation: float, seed_deviation: float, repeated: float, *, seeds: int, prompts: int
) -> float:
    """The true difference that leaves the interval away from 0 with a probability of `POWER`, as it
    was planned before the run: with the variance that a bootstrap over seeds and prompts shows.

    Args:
        deviation: Of paired differences over prompts, with one training seed.
        seed_deviation: Of their mean, over training seeds.
        repeated: Share of ``deviation``'s square that a prompt has with every training seed; the
            rest is drawn anew with each. Not known before the run.
        seeds: Training seeds.
        prompts: Prompts of each.
    """
    of_prompts = deviation**2 * repeated / prompts
    of_both = deviation**2 * (1 - repeated) / (seeds * prompts)
    of_seeds = seed_deviation**2 / seeds
    keep_s, keep_p = 1 - 1 / seeds, 1 - 1 / prompts
    inflated = keep_s + keep_p + keep_s * keep_p
    shown = of_prompts + inflated * of_both + keep_s * of_seeds
    true = of_prompts + of_both + of_seeds
    level, power = (NormalDist().inv_cdf(part) for part in (1 - LEVEL / 2, POWER))
    return level * math.sqrt(shown) + power * math.sqrt(true)
