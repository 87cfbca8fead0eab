"""Stability: would other samples put the layers in the same order?

Shapes: S samples, L layers, D random splits.

The samples are split at random into halves of equal size, the layers are ordered by mean AAS in
each, and the two orders are compared (our choice; the paper gives its rankings without).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

SPLITS: Final = 100
LEAST: Final = 4
"""Samples below which nothing is split: a half of one sample says nothing of its own spread."""
LOW: Final = 0.5
"""Rank correlation below which a warning is due. Where the top k layers are the same in every half
and the others, which see nothing, come in any order, the expected correlation is
1 - (1 - k/L)³, which is 0.56 for the paper's 10 of 42: below `LOW` the top, too, is in doubt."""
SETTLED: Final = 0.8
"""Part of the top k shared by the halves from which there is no warning after all: four in five
layers would be chosen again, and the order of the others matters to nobody."""


@dataclass(frozen=True)
class Stability:
    """Agreement of two random halves about the order of the layers."""

    splits: int
    mean: float
    """Spearman's rank correlation of mean AAS, mean over the splits."""
    low: float
    """Of the split that agrees least."""
    high: float
    top_shared: float
    """Share of the top k layers of one half that are among the other's, mean over the splits;
    k/L by chance."""

    @property
    def unstable(self) -> bool:
        return self.mean < LOW and self.top_shared < SETTLED


def half_stability(
    aas_SL: NDArray[np.float64], count: int, *, seed: int = 0, splits: int = SPLITS
) -> Stability | None:
    """Compare the layer order of random halves of the samples; of an odd number one is left out.

    ``count`` is k. None where it cannot be measured: with fewer than `LEAST` samples, fewer than
    three layers (of two, an order is the same or its reverse), or layers that are all alike in
    a half. Two halves know less than the whole: by the formula of Spearman and Brown, halves that
    agree at r speak for whole sets that agree at 2r / (1 + r).
    """
    samples, layers = aas_SL.shape
    if samples < LEAST or layers < 3:
        return None
    random = np.random.default_rng(seed)
    half = samples // 2
    order_DS = np.argsort(random.random((splits, samples)), axis=1)
    one_DL = aas_SL[order_DS[:, :half]].mean(axis=1)
    two_DL = aas_SL[order_DS[:, half : 2 * half]].mean(axis=1)
    ranks = [_centred(rankdata(half_DL, axis=1)) for half_DL in (one_DL, two_DL)]
    spread_D = np.sqrt((ranks[0] ** 2).sum(axis=1) * (ranks[1] ** 2).sum(axis=1))
    if (spread_D == 0).any():
        return None
    correlation_D = (ranks[0] * ranks[1]).sum(axis=1) / spread_D
    tops = [_top(half_DL, count) for half_DL in (one_DL, two_DL)]
    return Stability(
        splits=splits,
        mean=float(correlation_D.mean()),
        low=float(correlation_D.min()),
        high=float(correlation_D.max()),
        top_shared=float((tops[0] & tops[1]).sum(axis=1).mean() / count),
    )


def _centred(values_DL: NDArray[np.float64]) -> NDArray[np.float64]:
    return values_DL - values_DL.mean(axis=1, keepdims=True)


def _top(values_DL: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """The ``count`` greatest of each row; ties go to the lower index."""
    order_DL = np.argsort(-values_DL, axis=1, kind="stable")
    found_DL = np.zeros(values_DL.shape, dtype=bool)
    np.put_along_axis(found_DL, order_DL[:, :count], True, axis=1)
    return found_DL
