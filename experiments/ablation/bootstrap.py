"""Intervals over training seeds and prompts, and the difference that they can resolve.

Shapes: S training seeds, P prompts, D draws. Seeds and prompts are crossed: every seed has all
prompts. Our choice: both are resampled, independently ("pigeonhole bootstrap", Owen 2007).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

DRAWS: Final = 10_000
LEVEL: Final = 0.05
POWER: Final = 0.8


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; of ``seeds`` training seeds and ``prompts`` prompts."""

    mean: float
    low: float
    high: float
    seeds: int
    prompts: int

    @property
    def resolved(self) -> bool:
        """Whether 0 lies outside. A verdict also asks for the difference said to be detectable."""
        return self.low > 0 or self.high < 0


def interval(scores_SP: NDArray[np.float64], *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Percentile interval of the mean over both axes.

    With one training seed it is over prompts alone. Its variance counts, in expectation,
    (S - 1) / S of what seeds differ by, all of what prompts differ by, and 3 - 2 / S times what is
    special to a seed with a prompt: too little of the first, too much of the last.
    """
    count_s, count_p = scores_SP.shape
    of_seeds_DS, of_prompts_DP = _draws(count_s, count_p, draws, seed)
    means_D = ((of_prompts_DP @ scores_SP.T) * of_seeds_DS).sum(axis=1) / scores_SP.size
    low, high = np.percentile(means_D, [50 * LEVEL, 100 - 50 * LEVEL])
    return Interval(float(scores_SP.mean()), float(low), float(high), count_s, count_p)


@lru_cache(maxsize=4)
def _draws(
    seeds: int, prompts: int, draws: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often each training seed [D,S] and each prompt [D,P] is drawn; alike for all rows."""
    rng = np.random.default_rng(seed)
    of_seeds_DS, of_prompts_DP = (
        rng.multinomial(count, np.full(count, 1 / count), draws).astype(np.float64)
        for count in (seeds, prompts)
    )
    return of_seeds_DS, of_prompts_DP


def bootstrap_variance(scores_SP: NDArray[np.float64]) -> float:
    """Variance of the bootstrap's means in closed form, over all draws that there could be."""
    count_s, count_p = scores_SP.shape
    keep_s, keep_p = 1 - 1 / count_s, 1 - 1 / count_p
    squares = (
        (scores_SP**2).sum()
        + keep_p * (scores_SP.sum(axis=1) ** 2).sum()
        + keep_s * (scores_SP.sum(axis=0) ** 2).sum()
        + (keep_s * keep_p - 1) * scores_SP.sum() ** 2
    )
    return float(squares) / scores_SP.size**2


def detectable(
    deviation: float, seed_deviation: float, repeated: float, *, seeds: int, prompts: int
) -> float:
    """The true difference that leaves the interval away from 0 with a probability of `POWER`.

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
