"""Numbers as the page writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.evaluation.scores import ScoredAnswer
from matrix_video.report.wording import (
    duration,
    evidence,
    interval,
    number,
    signed,
    tick_label,
)

from .conftest import estimate


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
    assert interval(estimate(0.4, 0.331, 0.49, 24)) == "[0.331, 0.490]"
    assert interval(estimate(0.04, -0.018, 0.0996, 24), sign=True) == "[−0.018, +0.100]"
    assert interval(estimate(0.4, None, None, 4)) == ""


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


def test_evidence_is_numbers_words_and_the_reply_itself() -> None:
    answer = ScoredAnswer(
        question=1,
        text="?",
        answer="unscored",
        frame=None,
        evidence={"path_length": -0.12345, "seen": "the ball"},
        raw="[/b]",
        reason="no reply",
    )
    assert evidence(answer) == "no reply, path length −0.123, seen the ball, “[/b]”"
