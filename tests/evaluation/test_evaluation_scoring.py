"""Scores: the paper's formulas, foils and gaps, unscored answers, pairs."""

from __future__ import annotations

import pytest

from matrix_video.data.sample import Instance, Interaction, Sample
from matrix_video.evaluation.questions import foils, with_foils
from matrix_video.evaluation.scores import REPLY_LETTERS, VideoScore
from matrix_video.evaluation.scoring import (
    foil_numbers,
    paired_difference,
    score_video,
    spi,
    summarise,
)
from matrix_video.evaluation.verdict import Answer, Propagation, Verdict

MEANING = {letter: reply for reply, letter in REPLY_LETTERS.items()}


def _sample(*asked: tuple[str, str, str], bidirectional: bool = False) -> Sample:
    return Sample(
        id="v",
        file_name="videos/v.mp4",
        caption="two of them",
        instances=tuple(Instance(id=f"id{i}", noun="ball", phrase="ball") for i in (1, 2, 3)),
        interactions=tuple(
            Interaction(subject=s, verb=v, object=o, bidirectional=bidirectional)
            for s, v, o in asked
        ),
    )


def _answers(replies: str) -> tuple[Answer, ...]:
    return tuple(
        Answer(q, MEANING[r], 3, {"gap": 1.0}, "raw", "why" if r == "u" else None)
        for q, r in enumerate(replies, start=1)
    )


def _score(
    *replies: str,
    sample: Sample | None = None,
    verbs: tuple[str, ...] = (),
    emerged: int = 0,
    gone: int = 0,
    id: str = "v",
) -> VideoScore:
    sample = sample or _sample(("id1", "hit", "id2"), bidirectional=True)
    flags = tuple(
        Propagation(t, "yes" if t <= emerged else "no", "yes" if t <= gone else "no")
        for t in range(1, 17)
    )
    verdict = Verdict(tuple(map(_answers, replies)), flags)
    asked = foils(sample, verbs)
    named = sample.model_copy(update={"id": id})
    return score_video(named, verdict, asked, video="file", prompt="asked")


def test_formulas() -> None:
    score = _score("yyynnn" + "yyni", emerged=1, gone=2)
    assert score.kisa_raw == pytest.approx(3 / 6)
    assert score.sgi_raw == pytest.approx(2 / 4)
    expected = 0.5 * ((1 - 5 * 1 / 16) + (1 - 5 * 2 / 16))
    assert score.spi == pytest.approx(expected)
    assert score.kisa == pytest.approx(0.5 * expected)
    assert score.if_ == pytest.approx(0.5 * expected)
    assert (score.looked_at, score.emerged, score.disappeared) == (16, (1,), (1, 2))


def test_spi_is_clamped_term_by_term() -> None:
    assert spi(0, 0) == 1
    assert spi(1, 0) == 0.5
    assert spi(0.2, 1) == 0
    assert spi(0.1, 0.5) == pytest.approx(0.25)


def test_an_unscored_answer_is_neither_yes_nor_no() -> None:
    score = _score("yyyuuu" + "uuuu")
    assert score.kisa_raw == 1
    assert (score.sgi_raw, score.if_, score.margin) == (None, None, None)
    assert (score.unscored, score.state, score.reason) == (7, "unscored", "why")
    summary = summarise([score])
    assert (summary["kisa_raw"].n, summary["if"].n, summary["if"].mean) == (1, 0, None)
    nothing = _score(sample=_sample())
    assert (nothing.state, nothing.reason) == ("unscored", "the prompt asks for no interaction")


def test_a_score_keeps_its_evidence_and_goes_round() -> None:
    score = _score("yynnnn" + "nnnn")
    answer = score.interactions[0].answers[0]
    assert answer.text.startswith("Are the ball (red bbox) and the ball (green bbox) both there")
    assert (answer.answer, answer.frame, answer.raw) == ("yes", 3, "raw")
    assert answer.evidence == {"gap": 1.0}
    stored = score.model_dump(mode="json", by_alias=True)
    assert stored["if"] == score.if_
    assert VideoScore.model_validate(stored) == score


@pytest.mark.parametrize("bidirectional", [True, False])
def test_foils_are_what_nobody_asked_for(bidirectional: bool) -> None:
    sample = _sample(
        ("id1", "push", "id2"), ("id2", "push", "id1"), ("id1", "hug", "id2"), ("id3", "hit", "id3")
    )
    if bidirectional:
        sample = _sample(("id1", "hug", "id2"), bidirectional=True)
    found = [(f.of, f.kind, f.interaction.verb) for f in foils(sample, ("push", "hug", "chase"))]
    if bidirectional:
        assert found == [(0, "another verb", "push"), (0, "another verb", "chase")]
        return
    assert found == [
        (0, "another verb", "chase"),
        (1, "another verb", "hug"),
        (1, "another verb", "chase"),
        (2, "roles exchanged", "hug"),
        (2, "another verb", "chase"),
        *((3, "another verb", verb) for verb in ("push", "hug", "chase")),
    ]
    assert [f.same_effect for f in foils(sample, ("chase",))][:2] == [True, True]
    assert len(with_foils(sample, foils(sample, ("chase",))).interactions) == 4 + 5


YES, HALF, NO = "y" * 10, "yyynnnyynn", "n" * 10


def test_gaps_are_what_the_prompt_is_worth() -> None:
    sample = _sample(("id1", "push", "id2"))
    # As asked; roles exchanged; pull; chase, which leaves the same effect as push.
    score = _score(YES, HALF, NO, YES, sample=sample, verbs=("push", "pull", "chase"), gone=1)
    integrity = spi(0, 1 / 16)
    assert score.role_gap == pytest.approx(0.5 * integrity)
    assert score.verb_gap == pytest.approx((1 - (0 + 1) / 2) * integrity)
    assert score.margin == pytest.approx(0.5)  # SPI and verbs of the same effect do not count
    exchanged, other = (foil_numbers(score, k) for k in ("roles exchanged", "another verb"))
    assert exchanged is not None
    assert other is not None
    assert (exchanged.kisa_raw, exchanged.role_gap) == (0.5, pytest.approx(-0.5 * integrity))
    # The mean over pull (less the mean of push and chase) and chase (less that of push and pull).
    assert (other.sgi_raw, other.spi) == (0.5, pytest.approx(integrity))
    assert other.verb_gap == pytest.approx(((0 - 1) + (1 - 0.5)) / 2 * integrity)
    assert _score(HALF, HALF, sample=sample).margin == 0


def test_gaps_of_several_interactions_are_means_and_unscored_foils_do_not_count() -> None:
    sample = _sample(("id1", "push", "id2"), ("id2", "pull", "id3"))
    score = _score(YES, HALF, NO, "u" * 10, sample=sample)
    assert score.role_gap == 1
    assert score.verb_gap is None
    assert score.margin == 1
    assert _score(YES, HALF, NO, NO, sample=sample).role_gap == pytest.approx((1 + 0.5) / 2)


def test_a_judge_that_answers_another_number_of_interactions_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="1 interactions were asked, not 2"):
        _score(YES, NO)


def test_pairs_match_by_id() -> None:
    # Every video has a score of its own, the same in both runs but for one question.
    left = [_score("y" * i + "n" * (10 - i), id=f"v{i}") for i in range(1, 7)]
    right = [_score("y" * (i - 1) + "n" * (11 - i), id=f"v{i}") for i in range(6, 1, -1)]
    found = paired_difference(left, right, "kisa_raw")
    assert found.n == 5
    assert (found.mean, found.low, found.high) == pytest.approx((1 / 6, 1 / 6, 1 / 6))
    assert paired_difference(left, [], "if").n == 0
