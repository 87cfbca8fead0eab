"""The success contrast against least squares, and its error rates.

Shapes: S videos, K layers.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from matrix_video.analysis.dominance import contrast_layers


def _videos(
    random: np.random.Generator, count: int, effects_K: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Log-lifts [S,K] that share noise between layers, areas [S], success [S]."""
    success = np.zeros(count, dtype=bool)
    success[: count // 2] = True
    area = random.uniform(0.02, 0.3, size=count)
    shared = random.normal(size=(count, 1))
    noise = 0.5 * shared + 0.5 * random.normal(size=(count, len(effects_K)))
    return noise + effects_K * success[:, None], area, success


def test_difference_equals_least_squares() -> None:
    random = np.random.default_rng(0)
    lift, area, success = _videos(random, 40, np.array([1.0, 0.0]))
    lift = lift - 0.8 * np.log(area)[:, None]
    found = contrast_layers(lift, area, success, (0, 1), draws=50)
    design = np.stack([np.ones(40), success, np.log(area)], axis=1)
    expected = np.linalg.lstsq(design, lift, rcond=None)[0][1]
    np.testing.assert_allclose([c.difference for c in found.contrasts], expected)
    mean = lift.mean(axis=0)
    for k, contrast in enumerate(found.contrasts):
        assert contrast.gap_success == pytest.approx(lift[success, k].mean() - mean[k])
        # One condition, as the text says: equally many of both, so the gaps are opposite.
        assert contrast.gap_failure == pytest.approx(-contrast.gap_success)


def test_mask_area_alone_makes_no_layer_dominant() -> None:
    random = np.random.default_rng(1)
    success = np.arange(80) < 40
    # Failures have small masks, and small masks are lifted less: no effect at equal area.
    area = np.where(success, 0.3, 0.1) * random.uniform(0.5, 1.5, size=80)
    lift = (np.log(area) + 0.2 * random.normal(size=80))[:, None]
    unmatched = float(lift[success].mean() - lift[~success].mean())
    found = contrast_layers(lift, area, success, (0,))
    assert unmatched > 0.8
    assert abs(found.contrasts[0].difference) < 0.2
    assert found.dominant == ()


def test_planted_effects_are_found_in_order() -> None:
    random = np.random.default_rng(2)
    lift, area, success = _videos(random, 80, np.array([0.0, 1.0, 0.0, 2.0, -2.0]))
    found = contrast_layers(lift, area, success, (4, 3, 2, 1))
    assert found.dominant == (3, 1)
    assert [c.layer for c in found.contrasts] == [4, 3, 2, 1]
    assert all((c.p_value < 0.05) == c.dominant for c in found.contrasts)
    assert (found.successes, found.failures) == (40, 40)


def test_without_effect_few_runs_find_any_layer() -> None:
    random = np.random.default_rng(3)
    wrong = 0
    for seed in range(60):
        lift, area, success = _videos(random, 60, np.zeros(6))
        wrong += bool(
            contrast_layers(lift, area, success, tuple(range(6)), seed=seed, draws=300).dominant
        )
    # Two-sided 5 % over the family, so 2.5 % upwards: 9 of 60 would be far outside.
    assert wrong <= 8


def test_intervals_hold_for_all_layers_at_once() -> None:
    random = np.random.default_rng(4)
    effects = np.array([0.0, 0.5, 1.0, -0.5])
    held = 0
    for seed in range(60):
        lift, area, success = _videos(random, 60, effects)
        found = contrast_layers(lift, area, success, (0, 1, 2, 3), seed=seed, draws=300)
        held += all(c.low <= e <= c.high for c, e in zip(found.contrasts, effects, strict=True))
    assert held >= 50


def test_equal_areas_and_layers_without_spread_are_legal() -> None:
    success = np.arange(12) < 6
    lift = np.stack([success.astype(float), np.zeros(12)], axis=1)
    found = contrast_layers(lift, np.full(12, 0.1), success, (0, 1), draws=200)
    assert [c.difference for c in found.contrasts] == pytest.approx([1.0, 0.0])
    assert all(np.isfinite([c.low, c.high, c.p_value]).all() for c in found.contrasts)


def test_same_seed_same_interval() -> None:
    lift, area, success = _videos(np.random.default_rng(5), 30, np.array([0.5]))
    one, two = (contrast_layers(lift, area, success, (0,), seed=9) for _ in range(2))
    assert one == two


def test_too_few_of_one_outcome_are_refused() -> None:
    lift, area, _ = _videos(np.random.default_rng(6), 10, np.array([0.5]))
    with pytest.raises(ValueError, match="2 successes and 8 failures are too few"):
        contrast_layers(lift, area, np.arange(10) < 2, (0,))
