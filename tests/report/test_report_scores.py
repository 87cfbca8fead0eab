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
from matrix_video.report.collect import collect
from matrix_video.report.runs import Run
from matrix_video.report.scores import Evaluation, differences, score_rows
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import write_json
from matrix_video.services.run import RunFolder
from matrix_video.world.write import write_split

from .conftest import summary, video_score


class Settings(BaseModel):
    model: str = "tiny"
    prompts: Path


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt set of three clips, two generation runs (ground truth; frozen), both evaluated."""
    root = tmp_path_factory.mktemp("scored")
    write_split(root / "val", 3, 5, "val")
    truth = Dataset(root / "val")
    for label in ("frozen", "truth"):
        with RunFolder.open(
            root / label, Settings(prompts=root / "val"), command="generate"
        ) as run:
            with DatasetWriter(run.path / "dataset") as writer:
                for i, sample in enumerate(truth.samples):
                    frames = truth.video(i).frames_THWC
                    if label == "frozen":
                        frames = np.repeat(frames[:1], len(frames), axis=0)
                    writer.add(sample, frames, 8.0, {}, lossless=True)
            facts = {"format": 1, "prompts": str(root / "val"), "seed": 0}
            write_json(run.path / "generation.json", facts)
        evaluate(
            EvaluateConfig(
                videos=root / label,
                prompts=root / "val",
                out=root / f"scores-{label}",
                tracked=label == "truth",
            )
        )
    return root


def both(root: Path) -> list[tuple[str, Path]]:
    return [
        ("frozen", root / "frozen"),
        ("truth", root / "truth"),
        ("scores of frozen", root / "scores-frozen"),
        ("scores of truth", root / "scores-truth"),
    ]


def test_rows_are_those_of_the_evaluation_and_the_strongest_null_opens(scored: Path) -> None:
    content = collect(both(scored), title="t")
    stored = read_scores(scored / "scores-truth")
    by_label = {row.label: row for row in content.rows}
    assert [row.kind for row in content.rows[:3]] == ["null", "run", "run"]
    nulls = [row.summary["if"].mean or 0 for row in content.rows if row.kind == "null"]
    assert nulls == sorted(nulls, reverse=True)
    assert content.rows[-1].kind == "ceiling"
    assert by_label["truth"].summary == stored.summary
    drift = stored.references["straight_drift"].summary
    assert by_label["straight drift"].summary == drift
    assert {"another verb", "roles exchanged", "another prompt’s clip"} <= set(by_label)
    assert content.judges == (f"oracle {stored.judge.version}",)


def test_answers_and_boxes_reach_the_clip_that_they_judge(scored: Path) -> None:
    content = collect(both(scored), title="t")
    stored = {video.id: video for video in read_scores(scored / "scores-truth").videos}
    for item in content.gallery:
        truth, frozen, generated = item.clips
        assert (truth.label, frozen.label, generated.label) == ("ground truth", "frozen", "truth")
        assert truth.score is None
        assert generated.score == stored[item.sample.id]
        assert frozen.score is not None
        assert (frozen.score.if_ or 0) < (generated.score.if_ or 0)
        # Followed by the judge; not followed: the first frame, which all clips share.
        assert {len(track) for track in generated.tracks.values()} == {17}
        assert {len(track) for track in frozen.tracks.values()} == {1}
        assert set(frozen.tracks) == set(generated.tracks) == {i.id for i in item.sample.instances}


def evaluation(name: str, scores: Sequence[float], **fields: Any) -> Evaluation:
    """Of as many videos as ``scores``."""
    videos = [video_score(f"v{i}", "y" * 10, **{"if": v}) for i, v in enumerate(scores)]
    head: dict[str, Any] = {
        "judge": JudgeFacts(name="oracle", version="2"),
        "prompts": "p",
        "seed": 0,
        "video_seed": 0,
        "asked": len(videos),
        "delivered": len(videos),
        "scored": len(videos),
        "unscored": 0,
        "quarantined": 0,
        "summary": summary(0.5),
        "references": {},
        "videos": tuple(videos),
    }
    path = Path(name)
    return Evaluation(Run(name, path, "evaluate", {}), name, Scores(**{**head, **fields}))


def test_differences_are_later_less_earlier_with_verdicts_that_are_corrected() -> None:
    random = np.random.default_rng(0)
    base = random.uniform(0.2, 0.6, 30)
    shifts = {"a": 0.0, "b": 0.002, "c": 0.3}
    given = [
        evaluation(name, [float(v) for v in base + shift + random.normal(0, 0.01, 30)])
        for name, shift in shifts.items()
    ]
    found, lines = differences(given)
    assert lines == ()
    shown = [(d.left, d.right, d.metric) for d in found]
    assert shown[:3] == [("c", "b", "if"), ("c", "a", "if"), ("b", "a", "if")]
    by_pair = dict(zip(shown, found, strict=True))
    assert by_pair["c", "b", "if"].verdict == "c is higher"
    assert by_pair["c", "a", "if"].resolved
    assert not by_pair["b", "a", "if"].resolved
    assert by_pair["b", "a", "role_gap"].verdict == "not resolved"


def test_few_videos_have_no_verdict() -> None:
    (found, *_), _ = differences([evaluation("a", [0.1] * 19), evaluation("b", [0.9] * 19)])
    assert (found.verdict, found.resolved) == ("no verdict below 20 videos", False)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"video_seed": 7}, "their seeds differ (7 and 0)"),
        ({"judge": JudgeFacts(name="oracle", version="1")}, "their judges differ"),
        ({"videos": (video_score("v0", "y" * 10, prompt="q"),)}, "their prompts differ"),
        (
            {"videos": (video_score("v0", "y" * 10), video_score("v1", "y" * 10, prompt="q"))},
            "some of their prompts differ",
        ),
    ],
)
def test_unlike_evaluations_are_no_pairs(other: dict[str, Any], reason: str) -> None:
    left = evaluation("b", [0.5] * 30, **other)
    found, lines = differences([evaluation("a", [0.5] * 30), left])
    assert found == ()
    assert lines == (f"paired difference b − a: {reason}",)


def test_what_has_no_score_stands_in_the_row() -> None:
    lost = {"if": None, "kisa_raw": None}
    videos = (
        video_score("a", "y" * 8 + "uu", unscored=2),
        video_score("b", "u" * 10, state="unscored", **lost),
        video_score("c", "n" * 10, state="missing", **lost),
        video_score("d", "n" * 10, state="quarantined", **lost),
    )
    rows, lines = score_rows([evaluation("a", [], videos=videos, asked=4)])
    assert rows[0].told == "of 4: 1 missing, 1 unscored, 1 quarantined, 2 answers unscored"
    assert lines == ("null rows: not evaluated", "ceiling: not evaluated")


def test_two_evaluations_of_one_run_and_rows_of_other_prompts_stand_apart(
    scored: Path, tmp_path: Path
) -> None:
    head = read_scores(scored / "scores-truth")
    shifted = head.references["straight_drift"].model_copy(update={"summary": summary(0.3)})
    references = {"straight_drift": shifted}
    again = tmp_path / "again"
    with RunFolder.open(
        again,
        EvaluateConfig(videos=scored / "truth", prompts=scored / "val", out=again),
        command="evaluate",
    ):
        changed = head.model_copy(update={"references": references})
        write_scores(again, changed, {"straight_drift": ()}, head.videos)
    content = collect([*both(scored), ("again", again)], title="t")
    labels = [row.label for row in content.rows]
    assert [row.label for row in content.rows if row.kind == "run"] == [
        "frozen",
        "scores of truth",
        "again",
    ]
    assert "straight drift (frozen, scores of truth)" in labels
    assert "straight drift (again)" in labels
    assert len(set(labels)) == len(labels)


def test_scores_of_another_format_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "scores.json", {"format": 1, "videos": []})
    with pytest.raises(MatrixError, match=r"format: not the scores of an evaluation"):
        collect([("s", tmp_path)], title="t")
