"""Stability of the order between halves. Shapes: S samples, L layers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from matrix_video.analysis.ranking import top_count
from matrix_video.analysis.stability import LOW, half_stability


def _noisy(samples: int, layers: int, noise: float, seed: int = 0) -> NDArray[np.float64]:
    """AAS that rises with the layer's index."""
    random = np.random.default_rng(seed)
    return np.arange(layers) / layers + noise * random.normal(size=(samples, layers))


def test_a_single_split_is_spearmans_correlation() -> None:
    aas_SL = np.round(_noisy(9, 7, 0.5), 1)  # with ties
    found = half_stability(aas_SL, 2, seed=3, splits=1)
    assert found is not None
    order = np.argsort(np.random.default_rng(3).random((1, 9)), axis=1)[0]
    halves = [aas_SL[order[:4]].mean(axis=0), aas_SL[order[4:8]].mean(axis=0)]
    assert found.mean == found.low == found.high == pytest.approx(spearmanr(*halves).statistic)
    tops = [set(np.argsort(-half, kind="stable")[:2].tolist()) for half in halves]
    assert found.top_shared == len(tops[0] & tops[1]) / 2


def test_clear_orders_are_stable_and_noise_is_not() -> None:
    clear = half_stability(_noisy(20, 12, 0.01), 3)
    assert clear is not None
    assert (clear.splits, clear.mean, clear.low, clear.high) == (100, 1.0, 1.0, 1.0)
    assert clear.top_shared == 1.0
    assert not clear.unstable
    means = []
    for seed in range(30):
        noise = half_stability(np.random.default_rng(seed).random((20, 12)), 3)
        assert noise is not None
        assert -1 <= noise.low <= noise.mean <= noise.high <= 1
        means.append((noise.mean, noise.top_shared))
    # Chance: no correlation, and k/L of the top shared.
    assert np.mean(means, axis=0) == pytest.approx([0.0, 3 / 12], abs=0.1)


def test_a_settled_top_over_a_random_rest_is_not_called_unstable() -> None:
    """The rule that `LOW` states, for the paper's model."""
    layers, count = 42, top_count(42)
    means = []
    for seed in range(20):
        aas_SL = 0.1 * np.random.default_rng(seed).random((20, layers))
        aas_SL[:, :count] += np.arange(1, count + 1)
        found = half_stability(aas_SL, count, seed=seed)
        assert found is not None
        assert found.top_shared == 1.0
        assert not found.unstable
        means.append(found.mean)
    expected = 1 - (1 - count / layers) ** 3
    assert np.mean(means) == pytest.approx(expected, abs=0.05)
    assert expected > LOW


def test_equal_seeds_give_equal_splits_and_others_do_not() -> None:
    aas_SL = _noisy(10, 8, 0.5)
    assert half_stability(aas_SL, 2, seed=1) == half_stability(aas_SL, 2, seed=1)
    assert half_stability(aas_SL, 2, seed=1) != half_stability(aas_SL, 2, seed=2)


@pytest.mark.parametrize(
    "aas_SL",
    [_noisy(3, 8, 0.1), _noisy(8, 2, 0.1), np.full((8, 5), 0.25)],
    ids=["too few samples", "two layers", "layers all alike"],
)
def test_what_cannot_be_measured_is_none(aas_SL: NDArray[np.float64]) -> None:
    assert half_stability(aas_SL, 2) is None
