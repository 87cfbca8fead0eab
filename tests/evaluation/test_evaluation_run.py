"""An evaluation run from folders to scores.json."""

import json
from pathlib import Path

import pytest

from matrix_video.data.dataset import Dataset
from matrix_video.evaluation import run as run_module
from matrix_video.evaluation.run import EvaluateConfig, evaluate, read_scores
from matrix_video.evaluation.tracked import write_tracked
from matrix_video.services.errors import MatrixError
from matrix_video.world.clips import make_clip
from matrix_video.world.write import write_split


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "val"
    write_split(folder, 6, 0, "val")
    return folder


def test_ground_truth_wins_and_null_rows_lose(prompts: Path, tmp_path: Path) -> None:
    summary = evaluate(EvaluateConfig(videos=prompts, prompts=prompts, out=tmp_path / "s"))
    assert summary["if"].mean is not None
    assert summary["if"].mean > 0.95
    stored = json.loads((tmp_path / "s/scores.json").read_text())
    assert stored["format"] == 1
    assert [video["id"] for video in stored["videos"]] == [s.id for s in Dataset(prompts).samples]
    assert set(stored["nulls"]) == set(run_module.NULLS)
    assert stored["nulls"]["frozen_first_frame"]["if"]["mean"] == pytest.approx(1 / 12)
    for row in stored["nulls"].values():
        assert row["if"]["mean"] < summary["if"].mean
    assert len(stored["videos"][0]["interactions"][0]["answers"]) == 10
    assert read_scores(tmp_path / "s")[0].id == stored["videos"][0]["id"]


def test_a_killed_run_goes_on_at_its_row(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EvaluateConfig(videos=prompts, prompts=prompts, out=tmp_path / "s")
    whole = EvaluateConfig(videos=prompts, prompts=prompts, out=tmp_path / "whole")
    evaluate(whole)
    judged: list[str] = []
    original = run_module.judge

    def dying(frames, tracks, sample):
        judged.append(sample.id)
        if len(judged) == 9:
            raise KeyboardInterrupt
        return original(frames, tracks, sample)

    monkeypatch.setattr(run_module, "judge", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config)
    assert not (tmp_path / "s/scores.json").exists()
    evaluate(config)  # the first row is not judged again
    assert len(judged) == 9 + 18
    ours, theirs = ((tmp_path / name / "scores.json").read_bytes() for name in ("s", "whole"))
    assert ours == theirs


def test_videos_of_other_prompts_are_refused(prompts: Path, tmp_path: Path) -> None:
    write_split(tmp_path / "other", 2, 1, "val")
    with pytest.raises(MatrixError, match=r"'val-1-000000' has no prompt in .*the prompt set"):
        evaluate(EvaluateConfig(videos=tmp_path / "other", prompts=prompts, out=tmp_path / "s"))


def test_the_judges_tracks_become_a_data_set(prompts: Path, tmp_path: Path) -> None:
    write_tracked(prompts, prompts, tmp_path / "tracked")
    found = Dataset(tmp_path / "tracked")
    truth = [make_clip(0, "val", index) for index in range(6)]
    overlaps: list[float] = []
    for row, clip in enumerate(truth):
        assert found.video_path(row).read_bytes() == Dataset(prompts).video_path(row).read_bytes()
        tracks = found.tracks(row)
        for instance, masks_THW in zip(clip.sample.instances, clip.masks_RTHW, strict=True):
            ours_THW = tracks[instance.id].masks()
            both, either = (ours_THW & masks_THW).sum(), (ours_THW | masks_THW).sum()
            overlaps.append(float(both / either))
    assert sum(overlaps) / len(overlaps) > 0.85
