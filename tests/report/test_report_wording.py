"""Numbers as the page writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.report.content import Difference, Estimate
from matrix_video.report.wording import duration, interval, number, signed, tick_label, verdict


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.41249, "0.412"), (-0.0001, "0.000"), (-0.5, "−0.500"), (1, "1.000"), (0.0, "0.000")],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0412, "+0.041"), (-0.018, "−0.018"), (0.0001, "0.000"), (-0.0, "0.000")]
)
def test_signed(value: float, text: str) -> None:
    assert signed(value) == text


@given(st.floats(-10, 10))
def test_a_number_reads_back_to_its_places(value: float) -> None:
    assert float(number(value).replace("−", "-")) == pytest.approx(value, abs=0.0005 + 1e-9)
    assert float(signed(value).replace("−", "-")) == pytest.approx(value, abs=0.0005 + 1e-9)


def test_interval() -> None:
    assert interval(Estimate(0.4, 0.331, 0.49, 24)) == "[0.331, 0.490]"
    assert interval(Estimate(0.04, -0.018, 0.0996, 24), sign=True) == "[−0.018, +0.100]"


@pytest.mark.parametrize(
    ("mean", "low", "high", "text"),
    [
        (0.04, -0.01, 0.09, "not resolved"),
        (0.04, 0.0, 0.09, "not resolved"),
        (-0.04, -0.09, 0.0, "not resolved"),
        (0.04, 0.001, 0.09, "MATRIX is higher"),
        (-0.04, -0.09, -0.001, "LoRA is higher"),
    ],
)
def test_verdict(mean: float, low: float, high: float, text: str) -> None:
    assert verdict(Difference("MATRIX", "LoRA", "if", Estimate(mean, low, high, 24))) == text


@pytest.mark.parametrize("few", [1, 19])
def test_few_prompts_resolve_nothing(few: int) -> None:
    one = Difference("MATRIX", "LoRA", "if", Estimate(0.2, 0.1, 0.3, few))
    assert verdict(one) == "no verdict below 20 videos"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (4.24, "4.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (187.2, "3 min 07 s"),
        (7_501, "2 h 05 min"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "step", "text"), [(0.3, 0.1, "0.3"), (200, 100, "200"), (-0.25, 0.05, "−0.25")]
)
def test_tick_label(value: float, step: float, text: str) -> None:
    assert tick_label(value, step) == text


def test_an_estimate_of_no_number_or_no_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="an estimate of nan"):
        Estimate(float("nan"), 0.0, 1.0, 3)
    for low, high in ((0.2, 0.1), (float("nan"), 0.1), (0.0, float("nan"))):
        with pytest.raises(ValueError, match="interval"):
            Estimate(0.1, low, high, 3)
