"""Scores: the paper's formulas, unscored answers, intervals, pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.evaluation.oracle import Answer, InteractionVerdict, Reply, Verdict
from matrix_video.evaluation.scoring import (
    VideoScore,
    estimate,
    paired_difference,
    score_video,
    spi,
    summarise,
)


def _verdict(replies: str, emerged: int = 0, gone: int = 0, frames: int = 17) -> Verdict:
    """y, n, i(mplausible) and u(nscored) for questions 1 to 10."""
    meaning: dict[str, Reply] = {
        "y": "yes",
        "n": "no",
        "i": "no (visually implausible)",
        "u": "unscored",
    }
    answers = tuple(
        Answer(q + 1, f"Q{q + 1}?", meaning[r], 3, {"gap": 1.0}, "why" if r == "u" else None)
        for q, r in enumerate(replies)
    )
    flags = np.zeros((2, frames), dtype=bool)
    flags[0, 1 : 1 + emerged] = True
    flags[1, 1 : 1 + gone] = True
    return Verdict((InteractionVerdict("a hits b", "hit", answers),), flags[0], flags[1])


def test_formulas() -> None:
    score = score_video("v", _verdict("yyynnn" + "yyni", emerged=1, gone=2))
    assert score.kisa_raw == pytest.approx(3 / 6)
    assert score.sgi_raw == pytest.approx(2 / 4)
    expected = 0.5 * ((1 - 5 * 1 / 16) + (1 - 5 * 2 / 16))
    assert score.spi == pytest.approx(expected)
    assert score.kisa == pytest.approx(0.5 * expected)
    assert score.if_ == pytest.approx(0.5 * expected)


def test_spi_is_clamped_term_by_term() -> None:
    assert spi(0, 0) == 1
    assert spi(1, 0) == 0.5
    assert spi(0.2, 1) == 0
    assert spi(0.1, 0.5) == pytest.approx(0.25)


def test_an_unscored_answer_is_neither_yes_nor_no() -> None:
    score = score_video("v", _verdict("yyyuuu" + "uuuu"))
    assert score.kisa_raw == 1
    assert score.sgi_raw is None
    assert score.if_ is None
    assert score.unscored == 7
    summary = summarise([score])
    assert (summary["kisa_raw"].n, summary["if"].n, summary["if"].mean) == (1, 0, None)


def test_a_score_keeps_its_evidence_and_goes_round() -> None:
    score = score_video("v", _verdict("yynnnn" + "nnnn"))
    answer = score.interactions[0]["answers"][0]
    assert answer == {
        "question": 1,
        "text": "Q1?",
        "answer": "yes",
        "frame": 3,
        "evidence": {"gap": 1.0},
        "reason": None,
    }
    assert VideoScore.from_json(score.to_json()) == score
    assert "if" in score.to_json()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_intervals_hold_the_mean_and_repeat(values: list[float]) -> None:
    found = estimate(values, draws=200)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.low is not None
    assert found.high is not None
    assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12
    assert estimate(values, draws=200) == found


def test_the_interval_covers_as_it_should() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        found = estimate(rng.normal(0.3, 1, size=60).tolist(), draws=300)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.3 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_pairs_match_by_id() -> None:
    # Every video has a score of its own, the same in both runs but for one question.
    left = [score_video(f"v{i}", _verdict("y" * i + "n" * (10 - i))) for i in range(1, 6)]
    right = [
        score_video(f"v{i}", _verdict("y" * (i - 1) + "n" * (11 - i))) for i in range(5, 1, -1)
    ]
    found = paired_difference(left, right, "kisa_raw")
    assert found.n == 4
    assert (found.mean, found.low, found.high) == pytest.approx((1 / 6, 1 / 6, 1 / 6))
    assert paired_difference(left, [], "if").n == 0
