"""From evaluations, made by the evaluation itself, to rows, answers, boxes and differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.evaluation.run import EvaluateConfig, evaluate
from matrix_video.evaluation.scores import JudgeFacts, Scores, read_scores, write_scores
from matrix_video.evaluation.scoring import paired_difference
from matrix_video.report.collect import collect
from matrix_video.report.runs import Run
from matrix_video.report.scores import Evaluation, differences, like_pairs, score_rows
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import write_json
from matrix_video.services.run import RunFolder
from matrix_video.world.write import write_split

from .conftest import summary, video_score


class Settings(BaseModel):
    prompts: Path


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt set of three clips, two generation runs (ground truth; frozen), both evaluated."""
    root = tmp_path_factory.mktemp("scored")
    write_split(root / "val", 3, 5, "val")
    truth = Dataset(root / "val")
    for label in ("frozen", "truth"):
        with (
            RunFolder.open(root / label, Settings(prompts=root / "val"), command="generate"),
            DatasetWriter(root / label / "dataset") as writer,
        ):
            for i, sample in enumerate(truth.samples):
                frames = truth.video(i).frames_THWC
                if label == "frozen":
                    frames = np.repeat(frames[:1], len(frames), axis=0)
                writer.add(sample, frames, 8.0, {}, lossless=True)
        facts = {"format": 1, "prompts": str(root / "val"), "seed": 0}
        write_json(root / label / "generation.json", facts)
        config = EvaluateConfig(
            videos=root / label,
            prompts=root / "val",
            out=root / f"scores-{label}",
            tracked=label == "truth",
        )
        evaluate(config)
    return root


RUNS = ("frozen", "truth", "scores-frozen", "scores-truth")


def test_rows_answers_and_boxes_are_those_of_the_evaluation(scored: Path) -> None:
    content = collect([(name, scored / name) for name in RUNS], title="t")
    stored = read_scores(scored / "scores-truth")
    by_label = {row.label: row for row in content.rows}
    assert [row.kind for row in content.rows[:3]] == ["null", "run", "run"]
    nulls = [row.summary["if"].mean or 0 for row in content.rows if row.kind == "null"]
    assert nulls == sorted(nulls, reverse=True)  # the strongest opens
    assert content.rows[-1].kind == "ceiling"
    assert by_label["truth"].summary == stored.summary
    drift = stored.references["straight_drift"].summary
    assert by_label["straight drift"].summary == drift
    assert {"another verb", "roles exchanged", "another prompt’s clip"} <= set(by_label)
    assert content.judges == (f"oracle {stored.judge.version}",)
    frozen_videos = read_scores(scored / "scores-frozen").videos
    assert content.differences[0].estimate == paired_difference(stored.videos, frozen_videos, "if")
    videos = {video.id: video for video in stored.videos}
    for item in content.gallery:
        truth, frozen, generated = item.clips
        assert (truth.label, frozen.label, generated.label) == ("ground truth", "frozen", "truth")
        assert truth.score is None
        assert generated.score == videos[item.sample.id]
        assert frozen.score is not None
        assert (frozen.score.if_ or 0) < (generated.score.if_ or 0)
        # Followed by the judge; not followed: the first frame, which all clips share.
        assert {len(track) for track in generated.tracks.values()} == {17}
        assert {len(track) for track in frozen.tracks.values()} == {1}
        assert set(frozen.tracks) == set(generated.tracks) == {i.id for i in item.sample.instances}


def scores(values: Sequence[float], **fields: Any) -> Scores:
    """Of as many videos as ``values``."""
    videos = tuple(video_score(f"v{i}", "y" * 10, **{"if": v}) for i, v in enumerate(values))
    head: dict[str, Any] = {
        "judge": JudgeFacts(name="oracle", version="2"),
        "prompts": "p",
        "seed": 0,
        "video_seed": 0,
        **dict.fromkeys(("asked", "delivered", "scored"), len(videos)),
        **dict.fromkeys(("unscored", "quarantined"), 0),
        "summary": summary(0.5),
        "references": {},
        "videos": videos,
    }
    return Scores(**{**head, **fields})


def test_one_difference_is_the_headline_and_the_rest_are_corrected() -> None:
    random = np.random.default_rng(0)
    base = random.uniform(0.2, 0.6, 30)
    # The faint one is resolved alone, and not among so many.
    shifts = {"a": 0.0, "faint": np.where(np.arange(30) % 2, 0.1, -0.04), "c": 0.3}
    named = {name: scores([float(v) for v in base + shift]) for name, shift in shifts.items()}
    pairs = [("c", "a"), ("faint", "a"), ("a", "faint")]
    found = differences(named, pairs)
    assert [(d.left, d.right, d.metric) for d in found[:4]] == [
        *[(*pair, "if") for pair in pairs],
        ("c", "a", "role_gap"),
    ]
    assert [d.verdict for d in found[:2]] == [
        "c is higher",
        "not resolved among so many differences",
    ]
    assert differences(named, pairs[1:2])[0].verdict == "faint is higher"
    assert found[3].verdict == "not resolved"
    assert found[-1].verdict == "no video has it in both"
    few = {"a": scores([0.1] * 19), "b": scores([0.9] * 19)}
    (one, *_) = differences(few, [("b", "a")])
    assert (one.verdict, one.resolved) == ("no verdict below 20 videos", False)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({}, None),
        ({"video_seed": 7}, "their seeds differ (7 and 0)"),
        (
            {"judge": JudgeFacts(name="oracle", version="1")},
            "a does not fit, its judge is oracle 2, this one's is oracle 1",
        ),
        (
            {"videos": (video_score("v0", "y" * 10), video_score("v1", "y" * 10, prompt="q"))},
            "a does not fit, it scores other prompts ('v1' asks for something else there)",
        ),
    ],
)
def test_unlike_evaluations_are_no_pairs(other: dict[str, Any], reason: str | None) -> None:
    given = [
        Evaluation(Run(name, Path(name), "evaluate", {}), name, scores([0.5] * 30, **fields))
        for name, fields in (("a", {}), ("b", other))
    ]
    pairs, lines = like_pairs(given)
    assert pairs == ((("b", "a"),) if reason is None else ())
    assert lines == (() if reason is None else (f"paired difference b − a: {reason}",))


def test_what_has_no_score_stands_in_the_row() -> None:
    lost = {"if": None, "kisa_raw": None}
    videos = (
        video_score("a", "y" * 8 + "uu", unscored=2),
        video_score("b", "u" * 10, state="unscored", **lost),
        video_score("c", "n" * 10, state="missing", **lost),
        video_score("d", "n" * 10, state="quarantined", **lost),
    )
    rows = score_rows({"a": scores([], videos=videos, asked=4)})
    assert rows[0].told == "of 4: 1 missing, 1 unscored, 1 quarantined, 2 answers unscored"


def test_two_evaluations_of_one_run_and_rows_of_other_prompts_stand_apart(
    scored: Path, tmp_path: Path
) -> None:
    head = read_scores(scored / "scores-truth")
    shifted = head.references["straight_drift"].model_copy(update={"summary": summary(0.3)})
    again = tmp_path / "again"
    config = EvaluateConfig(videos=scored / "truth", prompts=scored / "val", out=again)
    with RunFolder.open(again, config, command="evaluate"):
        changed = head.model_copy(update={"references": {"straight_drift": shifted}})
        write_scores(again, changed, {"straight_drift": ()}, head.videos)
    named = [*[(name, scored / name) for name in RUNS], ("again", again)]
    content = collect(named, title="t")
    own = [row.label for row in content.rows if row.kind == "run"]
    assert own == ["frozen", "scores-truth", "again"]
    labels = {row.label for row in content.rows}
    assert len(labels) == len(content.rows)
    assert {"straight drift (frozen, scores-truth)", "straight drift (again)"} < labels


def test_scores_of_another_format_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "scores.json", {"format": 1, "videos": []})
    with pytest.raises(MatrixError, match=r"format: not the scores of an evaluation"):
        collect([("s", tmp_path)], title="t")
