"""Scales map linearly and stay in their plot; ticks are round and evenly spaced."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.report.svg import Scale


@given(st.lists(st.floats(-1e6, 1e6), max_size=20))
def test_values_and_zero_fall_inside_and_ticks_are_multiples_of_a_round_step(
    found: list[float],
) -> None:
    scale = Scale.over(found, 200.0, 10.0)
    # Limits are rounded to steps, give or take a billionth of one and the floats' own precision.
    slack = 1e-8 * (scale.high - scale.low) + 1e-12 * max(abs(scale.low), abs(scale.high))
    assert all(scale.low - slack <= value <= scale.high + slack for value in [0.0, *found])
    places = [scale(v) for v in sorted(found)]
    assert all(10.0 <= place <= 200.0 for place in places)
    assert places == sorted(places, reverse=True)
    marks = [value for value, _ in scale.ticks()]
    assert 2 <= len(marks) <= 12
    step = marks[1] - marks[0]
    mantissa = step / 10.0 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-6
    assert all(abs(mark / step - round(mark / step)) < 1e-6 for mark in marks)


def test_equal_steps_in_data_are_equal_steps_in_pixels() -> None:
    scale = Scale(-1.0, 3.0, 40.0, 440.0)
    assert [scale(v) for v in (-9, -1, 0, 1, 3, 9)] == [40, 40, 140, 240, 440, 440]


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0, 0.8, ["0.0", "0.2", "0.4", "0.6", "0.8"]),
        (-0.1, 0.1, ["−0.10", "−0.05", "0.00", "0.05", "0.10"]),
        (0, 300, ["0", "100", "200", "300"]),
    ],
)
def test_ticks_have_just_the_places_that_they_need(
    low: float, high: float, texts: list[str]
) -> None:
    assert [text for _, text in Scale(low, high, 0, 1).ticks()] == texts


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan, 1)])
def test_a_scale_over_nothing_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="scale over"):
        Scale(low, high, 0.0, 1.0)
