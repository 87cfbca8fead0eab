"""An evaluation run from folders to scores.json."""

import json
from pathlib import Path

import numpy as np
import pytest

from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.data.tracks import MaskTrack, State
from matrix_video.evaluation import run as run_module
from matrix_video.evaluation.run import EvaluateConfig, evaluate, read_scores
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
    with pytest.raises(MatrixError, match=r"no clip 'val-1-000000'"):
        evaluate(EvaluateConfig(videos=tmp_path / "other", prompts=prompts, out=tmp_path / "s"))


def test_a_finished_run_is_not_judged_again(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EvaluateConfig(videos=prompts, prompts=prompts, out=tmp_path, nulls=False)
    summary = evaluate(config)
    facts = (tmp_path / "done/evaluate.json").read_bytes()
    monkeypatch.setattr(run_module, "judge", None)
    assert evaluate(config) == summary
    assert (tmp_path / "done/evaluate.json").read_bytes() == facts


def test_damaged_scores_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text('{"videos": [{"id": "a"}]}')
    with pytest.raises(MatrixError, match=r"scores\.json: these are no scores"):
        read_scores(tmp_path)


def test_the_judges_tracks_become_a_data_set(prompts: Path, tmp_path: Path) -> None:
    evaluate(EvaluateConfig(videos=prompts, prompts=prompts, out=tmp_path, tracked=True))
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


def test_the_remains_of_a_vanished_instance_are_no_mask(prompts: Path, tmp_path: Path) -> None:
    """An instance of which a corner is left is gone: its later frames are absent."""
    dataset = Dataset(prompts)
    clip, sample = make_clip(0, "val", 3), dataset.samples[3]
    frames = clip.frames_THWC.copy()
    background = np.median(frames[0][~clip.masks_RTHW[:, 0].any(0)], axis=0)
    for t in range(6, 17):
        rows, _ = np.nonzero(clip.masks_RTHW[0, t])
        body = clip.masks_RTHW[0, t] & (np.arange(64)[:, None] < rows.max() - 2)
        frames[t][body] = background
        assert rows.size > 300
        assert 40 > (clip.masks_RTHW[0, t] & ~body).sum() > 20
    with DatasetWriter(tmp_path / "videos") as writer:
        writer.add(sample, frames, 8.0, {}, lossless=True)
    evaluate(
        EvaluateConfig(
            videos=tmp_path / "videos", prompts=prompts, out=tmp_path / "s", tracked=True
        )
    )
    states = Dataset(tmp_path / "s/tracked").tracks(0)[sample.instances[0].id].states
    assert states[0] is State.VISIBLE
    assert all(state is State.ABSENT for state in states[6:])


def test_clips_of_several_sizes_are_exchanged_within_their_size(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "mixed") as writer:
        for index in range(5):
            clip = make_clip(0, "val", index)
            pad = ((0, 0), (0, 0), (0, 8 * (index % 2)))
            frames = np.pad(clip.frames_THWC, (*pad, (0, 0)), mode="edge")
            tracks = {
                instance.id: MaskTrack.from_masks(np.pad(masks_THW, pad))
                for instance, masks_THW in zip(clip.sample.instances, clip.masks_RTHW, strict=True)
            }
            if index != 3:  # leaves one wide clip, which has no partner
                writer.add(clip.sample, frames, 8.0, tracks, lossless=True)
    config = EvaluateConfig(
        videos=tmp_path / "mixed", prompts=tmp_path / "mixed", out=tmp_path / "s"
    )
    evaluate(config)
    nulls = json.loads((tmp_path / "s/scores.json").read_text())["nulls"]
    assert nulls["frozen_first_frame"]["if"]["n"] == 4
    assert nulls["another_prompts_clip"]["if"]["n"] == 3


def test_a_prompts_null_rows_do_not_depend_on_the_others(prompts: Path, tmp_path: Path) -> None:
    few = Dataset(prompts)[4:]
    with DatasetWriter(tmp_path / "few") as writer:
        for row, sample in enumerate(few.samples):
            writer.add_file(sample, few.video_path(row), few.tracks(row))
    for name, folder in (("few", tmp_path / "few"), ("all", prompts)):
        evaluate(EvaluateConfig(videos=folder, prompts=folder, out=tmp_path / f"s-{name}"))
    rows = [
        json.loads((tmp_path / f"s-{name}/rows/straight_drift.json").read_text())
        for name in ("few", "all")
    ]
    assert rows[0] == rows[1][4:]


def test_the_shipped_vae_is_a_high_ceiling(prompts: Path, tmp_path: Path) -> None:
    evaluate(
        EvaluateConfig(videos=prompts, prompts=prompts, out=tmp_path, nulls=False, model="tiny")
    )
    stored = json.loads((tmp_path / "scores.json").read_text())
    assert stored["nulls"]["ceiling"]["if"]["mean"] > 0.95
    assert stored["nulls"]["ceiling"]["if"]["n"] == 6


@pytest.mark.slow
def test_200_clips_through_the_shipped_vae(tmp_path: Path) -> None:
    write_split(tmp_path / "val", 200, 0, "val")
    data = tmp_path / "val"
    evaluate(EvaluateConfig(videos=data, prompts=data, out=tmp_path / "s", model="tiny"))
    stored = json.loads((tmp_path / "s/scores.json").read_text())
    assert stored["summary"]["if"]["mean"] >= 0.98
    assert stored["nulls"]["ceiling"]["if"]["mean"] >= 0.95
    frozen = json.loads((tmp_path / "s/rows/frozen_first_frame.json").read_text())
    for video in frozen:
        for answer in video["interactions"][0]["answers"][1:]:
            assert answer["answer"] != "yes", video["id"]
