"""Intervals and verdicts: how often they are wrong, and when there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.evaluation.estimates import Estimate, estimate, holm, standing


@given(st.lists(st.floats(0, 1), min_size=5, max_size=40))
def test_intervals_hold_the_mean_and_repeat(values: list[float]) -> None:
    found = estimate(values, draws=200)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.low is not None
    assert found.high is not None
    assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12
    assert estimate(values, draws=200) == found


@pytest.mark.parametrize(("count", "most"), [(5, 0.12), (20, 0.08), (60, 0.08)])
def test_where_there_is_no_difference_few_are_found(count: int, most: float) -> None:
    rng = np.random.default_rng(0)
    found = [estimate(rng.normal(0, 1, size=count).tolist(), draws=300) for _ in range(300)]
    assert np.mean([not (e.low or 0) <= 0 <= (e.high or 0) for e in found]) <= most
    assert np.mean([(e.p or 0) < 0.05 for e in found]) <= most
    verdicts = {standing(e) for e in found}
    assert verdicts == {"too few"} if count < 20 else {"resolved", "not resolved"}


def test_few_videos_have_no_interval_and_no_verdict() -> None:
    assert estimate([]) == Estimate()
    assert estimate([0.25, 0.75]) == Estimate(mean=0.5, n=2)
    assert standing(estimate([0.2] * 4)) == "too few"
    assert estimate([0.2] * 5).low == pytest.approx(0.2)
    assert standing(estimate([0.2] * 19)) == "too few"
    assert standing(estimate([0.2] * 20)) == "resolved"


@pytest.mark.parametrize(
    ("mean", "low", "high", "planned", "expected"),
    [
        (0.1, 0.02, 0.2, 0.05, "resolved"),
        (-0.1, -0.2, -0.02, 0.05, "resolved"),
        (0.04, 0.01, 0.07, 0.05, "smaller than planned"),
        (-0.04, -0.07, -0.01, 0.05, "smaller than planned"),
        (0.04, -0.01, 0.09, 0.05, "not resolved"),
        (0.04, 0.0, 0.09, 0.0, "not resolved"),
    ],
)
def test_what_a_difference_is(
    mean: float, low: float, high: float, planned: float, expected: str
) -> None:
    assert standing(Estimate(mean=mean, low=low, high=high, n=20), planned) == expected


def test_several_differences_are_corrected_for_their_number() -> None:
    assert holm({"a": 0.03}) == {"a": True}
    assert holm({"a": 0.03, "b": 0.02}) == {"a": True, "b": True}
    assert holm({"a": 0.03, "b": 0.026}) == {"a": False, "b": False}
    # The first that does not stay resolved takes all after it along.
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": True, "b": False, "c": False}
    assert holm({}) == {}
