"""From evaluations, made by the evaluation itself, to score rows, answers and differences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.evaluation.run import EvaluateConfig, evaluate
from matrix_video.report.collect import collect
from matrix_video.report.content import Estimate, Metric
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import write_json
from matrix_video.services.run import RunFolder
from matrix_video.world.write import write_split


class Settings(BaseModel):
    model: str = "tiny"
    prompts: Path


def judged(path: Path, videos: Path, prompts: Path, *, nulls: bool = True) -> Path:
    evaluate(EvaluateConfig(videos=videos, prompts=prompts, out=path, nulls=nulls))
    return path


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt set of three clips, two generation runs (ground truth; frozen), both evaluated."""
    root = tmp_path_factory.mktemp("scored")
    write_split(root / "val", 3, 5, "val")
    truth = Dataset(root / "val")
    for label in ("frozen", "truth"):
        settings = Settings(prompts=root / "val")
        with RunFolder.open(root / label, settings, command="generate") as run:
            with DatasetWriter(run.path / "dataset") as writer:
                for i, sample in enumerate(truth.samples):
                    frames = truth.video(i).frames_THWC
                    if label == "frozen":
                        frames = np.repeat(frames[:1], len(frames), axis=0)
                    writer.add(sample, frames, 8.0, {}, lossless=True)
            facts = {"format": 1, "prompts": str(root / "val"), "seed": 0}
            write_json(run.path / "generation.json", facts)
        judged(root / f"scores-{label}", root / label, root / "val")
    return root


def both(root: Path) -> list[tuple[str, Path]]:
    return [
        ("frozen", root / "frozen"),
        ("truth", root / "truth"),
        ("scores of frozen", root / "scores-frozen"),
        ("scores of truth", root / "scores-truth"),
    ]


def test_scores_are_those_of_the_evaluation(scored: Path) -> None:
    content = collect(both(scored), title="t")
    stored = json.loads((scored / "scores-truth" / "scores.json").read_text())
    by_label = {row.label: row for row in content.rows}
    assert list(by_label) == [
        "frozen",
        "truth",
        "another verb",
        "roles exchanged",
        "straight drift",
        "frozen first frame",
        "another prompt’s clip",
        "ground truth",
    ]
    for label, summary in (
        ("truth", stored["summary"]),
        ("straight drift", stored["references"]["straight_drift"]["summary"]),
    ):
        for metric, found in by_label[label].scores.items():
            wanted = [summary[metric][name] for name in ("mean", "low", "high", "n")]
            assert found == Estimate(*wanted)
    own = by_label["truth"]
    assert own.unscored == 0
    answers = sum(len(i["answers"]) for v in stored["videos"] for i in v["interactions"])
    assert own.answers == answers
    assert content.judge == "oracle"
    assert "scores" not in content.missing


def test_two_evaluations_of_one_run_keep_their_own_names(scored: Path, tmp_path: Path) -> None:
    again = judged(tmp_path / "again", scored / "truth" / "dataset", scored / "val", nulls=False)
    content = collect([*both(scored), ("again", again)], title="t")
    labels = [row.label for row in content.rows if row.kind == "run"]
    assert labels == ["frozen", "scores of truth", "again"]
    alone = collect([("scores", again)], title="t")
    assert [row.label for row in alone.rows] == ["scores"]
    assert alone.missing["scores"] == ("null rows: not evaluated", "ceiling: not evaluated")


def test_answers_reach_the_clip_that_they_judge(scored: Path) -> None:
    content = collect(both(scored), title="t")
    stored = json.loads((scored / "scores-truth" / "scores.json").read_text())
    for item in content.gallery:
        video = next(v for v in stored["videos"] if v["id"] == item.sample.id)
        truth, frozen, generated = item.clips
        assert (truth.label, frozen.label, generated.label) == ("ground truth", "frozen", "truth")
        assert truth.answers == ()
        assert generated.scores["if"] == video["if"]
        assert frozen.scores["if"] < generated.scores["if"]
        (group,) = generated.answers
        given = video["interactions"][0]
        assert group.interaction == given["key_interaction"]
        for answer, wanted in zip(group.answers, given["answers"], strict=True):
            assert (answer.question, answer.text) == (wanted["question"], wanted["text"])
            assert answer.verdict == wanted["answer"]  # "yes" or "no" on a perfect clip
            assert answer.frame == wanted["frame"]
            for name in wanted["evidence"]:
                assert name.replace("_", " ") in answer.evidence


def test_null_rows_of_other_prompts_stand_apart(scored: Path, tmp_path: Path) -> None:
    write_split(tmp_path / "other", 2, 6, "val")
    other = judged(tmp_path / "scores", tmp_path / "other", tmp_path / "other")
    content = collect([*both(scored), ("other", other)], title="t")
    labels = [row.label for row in content.rows]
    assert "straight drift (frozen, truth)" in labels
    assert "straight drift (other)" in labels
    assert len(set(labels)) == len(labels) == 3 + 2 * 6


def test_differences_are_later_less_earlier(scored: Path) -> None:
    asked: list[tuple[str, str, str]] = []

    def compare(left: Path, right: Path, metric: Metric) -> Estimate | None:
        asked.append((left.name, right.name, metric))
        return None if metric == "sgi" else Estimate(0.25, 0.1, 0.4, 3)

    content = collect(both(scored), title="t", compare=compare)
    assert asked == [("scores-truth", "scores-frozen", m) for m in ("if", "kisa", "sgi")]
    assert [(d.left, d.right, d.metric) for d in content.differences] == [
        ("truth", "frozen", "if"),
        ("truth", "frozen", "kisa"),
    ]
    line = "paired difference truth − frozen: no video was scored in both"
    assert content.missing["scores"][-1] == line


def test_videos_of_other_seeds_are_no_pairs(scored: Path) -> None:
    file = scored / "truth" / "generation.json"
    before = file.read_text()
    try:
        write_json(file, {**json.loads(before), "seed": 7})
        content = collect(both(scored), title="t", compare=lambda *_: Estimate(1.0, 1.0, 1.0, 3))
    finally:
        file.write_text(before)
    assert content.differences == ()
    assert content.missing["scores"][-1].endswith("their seeds differ (7 and 0)")


def test_an_unscored_answer_stays_unscored(scored: Path, tmp_path: Path) -> None:
    stored = json.loads((scored / "scores-truth" / "scores.json").read_text())
    video = stored["videos"][0]
    answer = video["interactions"][0]["answers"][2]
    answer |= {"answer": "unscored", "reason": "no reply", "frame": None, "evidence": {}}
    video["kisa_raw"] = video["kisa"] = video["if"] = None
    stored["summary"]["if"] = {"mean": None, "low": None, "high": None, "n": 0}
    run = tmp_path / "scores"
    run.mkdir()
    write_json(run / "scores.json", stored)
    content = collect([("truth", scored / "truth"), ("s", run)], title="t")
    (row,) = [row for row in content.rows if row.kind == "run"]
    assert row.unscored == 1
    assert "if" not in row.scores
    # Copied without its settings, the evaluation no longer says whose videos it judged.
    assert "answers for truth: no evaluation of its videos was given" in content.missing["gallery"]
    write_json(
        run / "scores.json",
        {
            **stored,
            "videos": [
                {
                    **video,
                    "interactions": [
                        {
                            **video["interactions"][0],
                            "answers": [{**answer, "answer": "maybe"}],
                        }
                    ],
                }
            ],
        },
    )
    with pytest.raises(
        MatrixError,
        match=r"answers\.0\.answer: not the scores of an evaluation \(Input should be 'yes', 'no', "
        r"'no \(visually implausible\)' or 'unscored'\)\. Give the folder of a finished matrix",
    ):
        collect([("s", run)], title="t")


def test_an_estimate_without_its_interval_is_refused(scored: Path, tmp_path: Path) -> None:
    stored = json.loads((scored / "scores-truth" / "scores.json").read_text())
    for change, problem in (
        ({"low": 0.1}, "an interval both of its ends"),
        ({"mean": None}, "a mean needs videos"),
        ({"low": 0.9, "high": 0.1}, r"interval \[0\.9, 0\.1\] is upside down"),
    ):
        summary = {**stored["summary"], "kisa": {**stored["summary"]["kisa"], **change}}
        write_json(tmp_path / "scores.json", {**stored, "summary": summary})
        with pytest.raises(MatrixError, match=rf"scores\.json: summary\.kisa: .*{problem}"):
            collect([("s", tmp_path)], title="t")
