"""Scales map linearly and stay in their plot; ticks are round and evenly spaced."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.report.scale import Scale, nice_step, ticks

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20)


@given(values, st.lists(st.floats(-1e3, 1e3), max_size=2))
def test_every_value_falls_inside_and_in_order(found: list[float], include: list[float]) -> None:
    scale = Scale.over(found, 200.0, 10.0, include=include)
    # Limits are rounded to steps, give or take a billionth of one and the floats' own precision.
    slack = 1e-8 * (scale.high - scale.low) + 1e-12 * max(abs(scale.low), abs(scale.high))
    for value in [*found, *include]:
        assert scale.low - slack <= value <= scale.high + slack
    places = [scale(v) for v in sorted(found)]
    assert all(10.0 <= place <= 200.0 for place in places)
    assert places == sorted(places, reverse=True)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.floats(0, 1), st.floats(0, 1))
def test_equal_steps_in_data_are_equal_steps_in_pixels(
    low: float, span: float, a: float, b: float
) -> None:
    scale = Scale(low, low + span, 40.0, 440.0)
    assert scale(low) == 40.0
    assert scale(low + span) == 440.0
    assert scale(low + (a + b) / 2 * span) == pytest.approx(
        (scale(low + a * span) + scale(low + b * span)) / 2, abs=1e-6
    )


@given(values)
def test_ticks_are_multiples_of_a_round_step_inside_the_scale(found: list[float]) -> None:
    scale = Scale.over(found, 0.0, 100.0)
    marks, step = ticks(scale)
    assert 2 <= len(marks) <= 12
    mantissa = step / 10.0 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-6
    assert all(abs(mark / step - round(mark / step)) < 1e-6 for mark in marks)
    assert marks[0] >= scale.low - 1e-6 * step
    assert marks[-1] <= scale.high + 1e-6 * step


def test_one_value_and_no_value_still_make_a_scale() -> None:
    assert Scale.over([0.25], 0, 1).low < 0.25 < Scale.over([0.25], 0, 1).high
    assert (Scale.over([], 0, 1).low, Scale.over([], 0, 1).high) == (0.0, 1.0)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan, 1)])
def test_a_scale_over_nothing_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="scale over"):
        Scale(low, high, 0.0, 1.0)


def test_nice_step() -> None:
    assert nice_step(0, 1, 4) == pytest.approx(0.5)
    assert nice_step(0, 0.8, 4) == pytest.approx(0.2)
    assert nice_step(-3, 300, 5) == pytest.approx(100)
