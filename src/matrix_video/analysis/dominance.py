"""Dominant layers: influential ones whose attention separates success from failure.

Shapes: S labelled videos, K tested layers, B bootstrap draws, X = 3 regressors.

Paper section 4 draws the attention of successful and of failed videos against their overall mean.
Those two gaps are one condition (n_success·gap_success + n_failure·gap_failure = 0), so one
contrast is tested: success less failure. That it is measured in log-lift, matched on mask area and
corrected over the layers is our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

LEVEL: Final = 0.95
"""Of the simultaneous intervals."""
MINIMUM: Final = 3
"""Videos of each outcome below which nothing is tested."""
ENOUGH: Final = 16
"""Videos of each outcome below which a warning says that the evidence is thin."""


@dataclass(frozen=True)
class Contrast:
    """Log-lift of one layer, success less failure at equal mask area."""

    layer: int
    difference: float
    low: float
    high: float
    """Simultaneous interval over the tested layers."""
    p_value: float
    """One-sided, corrected over the tested layers (max-T)."""
    gap_success: float
    """Mean of the successful videos less the mean of all, not matched on area."""
    gap_failure: float

    @property
    def dominant(self) -> bool:
        return self.low > 0


@dataclass(frozen=True)
class Dominance:
    """Contrasts in the order of the layers given."""

    successes: int
    failures: int
    contrasts: tuple[Contrast, ...]

    @property
    def dominant(self) -> tuple[int, ...]:
        """Layers whose interval lies above 0, greatest difference first."""
        found = [c for c in self.contrasts if c.dominant]
        return tuple(c.layer for c in sorted(found, key=lambda c: -c.difference))


def contrast_layers(
    log_lift_SL: NDArray[np.float64],
    area_S: NDArray[np.float64],
    success_S: NDArray[np.bool_],
    layers: tuple[int, ...],
    *,
    seed: int = 0,
    draws: int = 2000,
) -> Dominance:
    """Test ``layers`` for higher log-lift in successful videos.

    The difference is the coefficient of success in a least-squares fit of the log-lift on success
    and on the logarithm of the mask area: a small mask can be lifted higher than a large one, and
    small instances also fail more often. Videos are drawn with replacement within each outcome;
    the interval half-width is the 95 % quantile of the greatest studentised deviation among
    the tested layers (max-T), so that the intervals hold for all of them at once.

    Raises ``ValueError`` with fewer than `MINIMUM` videos of an outcome.
    """
    successes, failures = int(success_S.sum()), int((~success_S).sum())
    if min(successes, failures) < MINIMUM:
        raise ValueError(f"{successes} successes and {failures} failures are too few to compare")
    lift_SK = log_lift_SL[:, list(layers)]
    log_area_S = np.log(area_S)
    regressors_SX = np.stack(
        [np.ones(len(area_S)), success_S.astype(float), log_area_S - log_area_S.mean()], axis=1
    )
    difference_K = _effect(np.ones((1, len(area_S))), regressors_SX, lift_SK)[0]
    drawn_BK = _effect(_counts(success_S, draws, seed), regressors_SX, lift_SK)
    spread_K = drawn_BK.std(axis=0, ddof=1)
    # A layer without any spread has one value in all videos of an outcome; its t would be 0/0.
    scale_K = np.maximum(spread_K, np.finfo(float).tiny)
    deviation_BK = np.where(spread_K > 0, (drawn_BK - difference_K) / scale_K, 0.0)
    width = float(np.quantile(np.abs(deviation_BK).max(axis=1), LEVEL))
    greatest_B = deviation_BK.max(axis=1)
    mean_K = lift_SK.mean(axis=0)
    return Dominance(
        successes,
        failures,
        tuple(
            Contrast(
                layer=layer,
                difference=float(difference_K[k]),
                low=float(difference_K[k] - width * spread_K[k]),
                high=float(difference_K[k] + width * spread_K[k]),
                p_value=float(
                    (1 + (greatest_B >= difference_K[k] / scale_K[k]).sum()) / (1 + draws)
                ),
                gap_success=float(lift_SK[success_S, k].mean() - mean_K[k]),
                gap_failure=float(lift_SK[~success_S, k].mean() - mean_K[k]),
            )
            for k, layer in enumerate(layers)
        ),
    )


def _counts(success_S: NDArray[np.bool_], draws: int, seed: int) -> NDArray[np.float64]:
    """How often each video is drawn, [B,S], drawn within its own outcome."""
    random = np.random.default_rng(seed)
    counts_BS = np.zeros((draws, len(success_S)))
    for outcome in (success_S, ~success_S):
        size = int(outcome.sum())
        counts_BS[:, outcome] = random.multinomial(size, np.full(size, 1 / size), size=draws)
    return counts_BS


def _effect(
    weights_BS: NDArray[np.float64],
    regressors_SX: NDArray[np.float64],
    values_SK: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Coefficient of the second regressor in weighted least squares, [B,K]."""
    weighted_BSX = weights_BS[:, :, None] * regressors_SX
    normal_BXX = np.einsum("bsx,sy->bxy", weighted_BSX, regressors_SX)
    right_BXK = np.einsum("bsx,sk->bxk", weighted_BSX, values_SK)
    # The pseudo-inverse gives coefficient 0 to a regressor that does not vary (equal areas).
    return (np.linalg.pinv(normal_BXX, hermitian=True) @ right_BXK)[:, 1]
