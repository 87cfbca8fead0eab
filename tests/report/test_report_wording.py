"""Numbers as the page writes them."""

from __future__ import annotations

import pytest

from matrix_video.evaluation.scores import ScoredAnswer
from matrix_video.report.wording import duration, evidence, interval, number, signed

from .conftest import estimate


@pytest.mark.parametrize(
    ("value", "plain", "with_sign"),
    [
        (0.41249, "0.412", "+0.412"),
        (-0.5, "−0.500", "−0.500"),
        (1, "1.000", "+1.000"),
        (0.0001, "0.000", "0.000"),
        (-0.0001, "0.000", "0.000"),
    ],
)
def test_numbers_have_true_minus_signs_and_zero_has_none(
    value: float, plain: str, with_sign: str
) -> None:
    assert (number(value), signed(value)) == (plain, with_sign)


def test_interval() -> None:
    assert interval(estimate(0.4, 0.331, 0.49, 24)) == "[0.331, 0.490]"
    assert interval(estimate(0.04, -0.018, 0.0996, 24), sign=True) == "[−0.018, +0.100]"
    assert interval(estimate(0.4, None, None, 4)) == ""


def test_duration() -> None:
    seconds = (None, 4.24, 59.94, 59.96, 187.2, 7_501)
    texts = ["–", "4.2 s", "59.9 s", "1 min 00 s", "3 min 07 s", "2 h 05 min"]
    assert [duration(one) for one in seconds] == texts


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
