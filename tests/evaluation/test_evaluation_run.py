"""An evaluation run from folders to scores.json."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from matrix_video.backbones import loading
from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.data.sample import Sample
from matrix_video.data.trackfile import TrackFile, track_path, write_tracks
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.video import Video
from matrix_video.evaluation.oracle import OracleJudge
from matrix_video.evaluation.questions import write_questions
from matrix_video.evaluation.references import CEILING, GROUND_TRUTH, NULLS
from matrix_video.evaluation.run import EvaluateConfig, evaluate
from matrix_video.evaluation.scores import Scores, read_scores
from matrix_video.evaluation.verdict import Answer, Judge, Propagation, Verdict
from matrix_video.services.errors import MatrixError
from matrix_video.world.clips import make_clip
from matrix_video.world.write import write_split

if TYPE_CHECKING:
    from matrix_video.backbones.base import Backbone


class StubJudge:
    """Answers by the pixels' sum, at once; writes down whom it was shown."""

    name = "stub"
    verbs: tuple[str, ...] | None = ("push", "pull", "hug")

    def __init__(self, version: str = "1", log: Path | None = None) -> None:
        self.version, self.log = version, log
        self.seen: list[str] = []

    def judge(
        self, video: Video, sample: Sample, first_masks: Mapping[str, NDArray[np.bool_]]
    ) -> Verdict:
        self.seen.append(sample.id)
        if self.log is not None:
            time.sleep(0.004)
            with self.log.open("a") as file:
                file.write(f"{sample.id} {len(video)} {int(video.frames_THWC.sum())}\n")
        total = int(video.frames_THWC.sum())
        return Verdict(
            tuple(
                tuple(
                    Answer(q, "yes" if (total + q + k) % 3 else "no", 1, {"why": "the sum"}, "Yes.")
                    for q in range(1, 11)
                )
                for k, _ in enumerate(sample.interactions)
            ),
            tuple(Propagation(t, "no", "no") for t in range(1, len(video))),
        )


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "val"
    write_split(folder, 6, 0, "val")
    return folder


@pytest.fixture
def videos(prompts: Path, tmp_path: Path) -> Path:
    """A copy whose files may be broken."""
    return Path(shutil.copytree(prompts, tmp_path / "videos"))


def _config(videos: Path, prompts: Path, out: Path, **options: Any) -> EvaluateConfig:
    return EvaluateConfig(videos=videos, prompts=prompts, out=out, **options)


def _scores(
    videos: Path, prompts: Path, out: Path, judge: Judge | None = None, **options: Any
) -> Scores:
    """Of an evaluation, by a stub unless a judge is given."""
    evaluate(_config(videos, prompts, out, **options), judge=judge or StubJudge())
    return read_scores(out)


def _judged(config: EvaluateConfig, **options: Any) -> list[str]:
    judge = StubJudge(**options)
    evaluate(config, judge=judge)
    return judge.seen


def test_ground_truth_wins_and_null_rows_lose(prompts: Path, tmp_path: Path) -> None:
    scores = _scores(prompts, prompts, tmp_path, OracleJudge())
    summary = scores.summary
    assert summary["if"].mean is not None
    assert summary["if"].mean > 0.95
    assert [video.id for video in scores.videos] == [s.id for s in Dataset(prompts).samples]
    assert {video.state for video in scores.videos} == {"scored"}
    assert all(video.margin is not None and video.margin > 0 for video in scores.videos)
    rows = {name: row.summary["if"].mean or 0 for name, row in scores.references.items()}
    assert set(rows) == {*NULLS, GROUND_TRUTH}
    nulls = [rows[name] for name, row in scores.references.items() if row.kind == "null"]
    assert nulls == sorted(nulls, reverse=True)
    assert max(nulls) < summary["if"].mean
    assert rows["frozen_first_frame"] == pytest.approx(1 / 12)
    assert rows[GROUND_TRUTH] == summary["if"].mean
    # What is asked is worth more than its foils, in ground truth alone.
    for metric, foiled in (("role_gap", "roles_exchanged"), ("verb_gap", "another_verb")):
        assert (summary[metric].mean or 0) > 0.3
        assert (scores.references[foiled].summary[metric].mean or 0) < 0
        assert scores.references["frozen_first_frame"].summary[metric].mean == 0


def test_ten_kills_change_no_byte_and_no_video_is_judged_twice(
    prompts: Path, tmp_path: Path
) -> None:
    evaluate(_config(prompts, prompts, tmp_path / "whole", tracked=True), judge=StubJudge())
    config, log = _config(prompts, prompts, tmp_path / "s", tracked=True), tmp_path / "log"
    draw, kills, finished = random.Random(0), 0, False
    while not finished:
        child = os.fork()
        if child == 0:
            try:
                evaluate(config, judge=StubJudge(log=log))
                os._exit(0)
            except BaseException:
                os._exit(1)
        if kills < 10:
            time.sleep(draw.uniform(0.02, 0.16))
            os.kill(child, signal.SIGKILL)
            kills += 1
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL)
        finished = status == 0 and kills == 10
    for file in ("scores.json", "tracked/metadata.jsonl", f"tracked/videos/{_ids(prompts)[0]}.mp4"):
        assert (tmp_path / "s" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    lines = log.read_text().splitlines()
    # A verdict that was on its way into the store when its process died is the one that is lost.
    assert len(lines) - len(set(lines)) <= kills
    assert len(set(lines)) == 6 * 4  # own and truth are alike; drift, frozen, another's
    facts = (tmp_path / "s/done/evaluate.json").read_bytes()
    assert _judged(config) == []
    assert (tmp_path / "s/done/evaluate.json").read_bytes() == facts


def _ids(folder: Path) -> list[str]:
    return [sample.id for sample in Dataset(folder).samples]


def test_a_damaged_video_is_quarantined_and_the_row_goes_on(
    prompts: Path, videos: Path, tmp_path: Path
) -> None:
    names = _ids(prompts)
    whole = (videos / f"videos/{names[1]}.mp4").read_bytes()
    (videos / f"videos/{names[1]}.mp4").write_bytes(whole[: len(whole) // 2])
    (videos / f"videos/{names[2]}.mp4").write_text("no video at all")
    (videos / f"videos/{names[3]}.mp4").unlink()
    clip = make_clip(0, "val", 4)
    with DatasetWriter(tmp_path / "small") as writer:
        writer.add(clip.sample, clip.frames_THWC[:, :32, :32], 8.0, {}, lossless=True)
    shutil.copy(tmp_path / f"small/videos/{names[4]}.mp4", videos / "videos")
    scores = _scores(videos, prompts, tmp_path / "s", nulls=False)
    states = ["scored", "quarantined", "quarantined", "missing", "quarantined", "scored"]
    assert [video.state for video in scores.videos] == states
    assert (scores.asked, scores.delivered, scores.scored) == (6, 5, 2)
    assert (scores.unscored, scores.quarantined, scores.summary["if"].n) == (0, 3, 2)
    for video, reason in zip(
        (v for v in scores.videos if v.state != "scored"),
        ("damaged", "damaged", "not delivered", "the video has 32x32 pixels"),
        strict=True,
    ):
        assert reason in (video.reason or "")
        assert video.value("if") is None
    (videos / f"videos/{names[1]}.mp4").write_bytes(whole)
    assert _judged(_config(videos, prompts, tmp_path / "s", nulls=False)) == [names[1]]
    assert read_scores(tmp_path / "s").scored == 3


@pytest.mark.parametrize("what", ["videos", "tracks"])
def test_a_prompt_or_video_that_was_replaced_is_judged_again(
    what: str, videos: Path, tmp_path: Path
) -> None:
    first, second = _ids(videos)[:2]
    config = _config(videos, videos, tmp_path / "s", nulls=False, tracked=True)
    _judged(config)
    before = read_scores(tmp_path / "s")
    if what == "videos":
        shutil.copy(videos / f"videos/{second}.mp4", videos / f"videos/{first}.mp4")
    else:
        mask_THW = np.zeros((17, 64, 64), bool)
        mask_THW[:, 5:20, 5:20] = True
        tracks = {"id1": MaskTrack.from_masks(mask_THW)}
        write_tracks(track_path(videos, first), TrackFile((64, 64), 17, tracks))
    assert _judged(config) == [first]
    after = read_scores(tmp_path / "s")
    changed = [a.id for a, b in zip(after.videos, before.videos, strict=True) if a != b]
    assert changed == [first]
    copied = (tmp_path / f"s/tracked/videos/{first}.mp4").read_bytes()
    assert copied == (videos / f"videos/{first}.mp4").read_bytes()
    assert _judged(config, version="2") == _ids(videos)


def test_a_broken_prompt_is_quarantined_in_every_row(videos: Path, tmp_path: Path) -> None:
    first, second = _ids(videos)[:2]
    track_path(videos, first).write_text("{")
    track_path(videos, second).unlink()
    scores = _scores(videos, videos, tmp_path / "s")
    broken, unmasked = scores.videos[:2]
    assert (broken.state, unmasked.state) == ("quarantined", "scored")
    assert "not valid JSON" in (broken.reason or "")
    assert {row.videos[0].id for row in scores.references.values()} == {second}


def test_where_nothing_can_be_judged_the_first_reason_is_told(videos: Path, tmp_path: Path) -> None:
    for file in (videos / "videos").iterdir():
        file.write_text("no video")
    with pytest.raises(MatrixError, match=r"not one of 6 videos could be judged; the first: .*dam"):
        _scores(videos, videos, tmp_path / "s")
    shutil.rmtree(videos / "videos")
    with pytest.raises(MatrixError, match="there are no videos"):
        _scores(videos, videos, tmp_path / "s")


def test_videos_of_other_prompts_are_refused(prompts: Path, tmp_path: Path) -> None:
    write_split(tmp_path / "other", 2, 1, "val")
    with pytest.raises(MatrixError, match=r"videos are of prompts that .*'val-1-000000'"):
        evaluate(_config(tmp_path / "other", prompts, tmp_path / "s"))


def test_a_generation_runs_limit_is_what_was_asked_for(prompts: Path, tmp_path: Path) -> None:
    run = tmp_path / "made"
    with DatasetWriter(run / "dataset") as writer:
        few = Dataset(prompts)[:2]
        for index, sample in enumerate(few.samples):
            writer.add_file(sample, few.video_path(index), {})
    for settings, limit, asked in (("limit: 2\nseed: 5", None, 2), ("", None, 6), ("", 3, 3)):
        (run / "config.yaml").write_text(settings)
        out = tmp_path / f"s{asked}"
        scores = _scores(run, prompts, out, nulls=False, limit=limit)
        assert (scores.asked, scores.delivered, scores.scored) == (asked, 2, 2)
        assert scores.video_seed == (5 if settings else None)


def test_prompts_that_are_pictures_have_null_rows_as_long_as_the_video(
    prompts: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    (pictures / "videos").mkdir(parents=True)
    clips = Dataset(prompts)
    lines: list[str] = []
    for index, sample in enumerate(clips.samples):
        name = f"videos/{sample.id}.png"
        Image.fromarray(clips.video(index).frames_THWC[0]).save(pictures / name)
        lines.append(sample.model_copy(update={"file_name": name}).model_dump_json())
        first = {k: t.take([0]) for k, t in clips.tracks(index).items()}
        write_tracks(track_path(pictures, sample.id), TrackFile((64, 64), 1, first))
    (pictures / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    log = tmp_path / "log"
    scores = _scores(prompts, pictures, tmp_path / "s", StubJudge(log=log))
    assert set(scores.references) == {"straight_drift", "frozen_first_frame"}
    assert {len(row.videos) for row in scores.references.values()} == {6}
    assert {line.split()[1] for line in log.read_text().splitlines()} == {"17"}
    whole = _scores(prompts, prompts, tmp_path / "whole")
    assert scores.videos == whole.videos
    assert all(row == whole.references[name] for name, row in scores.references.items())


def test_the_judges_tracks_become_a_data_set(prompts: Path, tmp_path: Path) -> None:
    evaluate(_config(prompts, prompts, tmp_path, tracked=True, nulls=False))
    found = Dataset(tmp_path / "tracked")
    overlaps: list[float] = []
    for row in range(6):
        clip = make_clip(0, "val", row)
        assert found.video_path(row).read_bytes() == Dataset(prompts).video_path(row).read_bytes()
        tracks = found.tracks(row)
        for instance, masks_THW in zip(clip.sample.instances, clip.masks_RTHW, strict=True):
            ours_THW = tracks[instance.id].masks()
            both, either = (ours_THW & masks_THW).sum(), (ours_THW | masks_THW).sum()
            overlaps.append(float(both / either))
    assert sum(overlaps) / len(overlaps) > 0.85


def test_clips_of_several_sizes_are_exchanged_within_their_size(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "mixed") as writer:
        for index in (0, 1, 2, 4):  # one wide clip, which has no partner
            clip = make_clip(0, "val", index)
            pad = ((0, 0), (0, 0), (0, 8 * (index % 2)))
            frames = np.pad(clip.frames_THWC, (*pad, (0, 0)), mode="edge")
            tracks = {
                instance.id: MaskTrack.from_masks(np.pad(masks_THW, pad))
                for instance, masks_THW in zip(clip.sample.instances, clip.masks_RTHW, strict=True)
            }
            writer.add(clip.sample, frames, 8.0, tracks, lossless=True)
    nulls = _scores(tmp_path / "mixed", tmp_path / "mixed", tmp_path / "s").references
    assert len(nulls["frozen_first_frame"].videos) == 4
    assert len(nulls["another_prompts_clip"].videos) == 3


def test_a_prompts_null_rows_do_not_depend_on_the_others(prompts: Path, tmp_path: Path) -> None:
    few, every = (
        _scores(prompts, prompts, tmp_path / str(limit), limit=limit).references
        for limit in (3, None)
    )
    for name in ("straight_drift", "frozen_first_frame", GROUND_TRUTH):
        assert few[name].videos == every[name].videos[:3]


def test_the_shipped_vae_is_a_high_ceiling(prompts: Path, tmp_path: Path) -> None:
    scores = _scores(prompts, prompts, tmp_path, OracleJudge(), nulls=False, limit=2, model="tiny")
    ceiling = scores.references[CEILING]
    assert (ceiling.kind, ceiling.summary["if"].n) == ("ceiling", 2)
    assert (ceiling.summary["if"].mean or 0) > 0.95


class _Identity:
    """Of a backbone what the ceiling needs."""

    def encode_video(self, frames: torch.Tensor) -> torch.Tensor:
        return frames

    decode = encode_video


def test_a_ceiling_through_other_weights_of_the_shipped_vae_is_judged_again(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "model/vae/weights"
    weights.parent.mkdir(parents=True)
    monkeypatch.setattr(loading, "shipped", lambda: str(tmp_path / "model"))
    config = _config(prompts, prompts, tmp_path / "s", nulls=False, model="tiny", limit=2)
    for text, judged in (("old", 4), ("old", 0), ("new", 2)):
        weights.write_text(text)
        judge = StubJudge()
        evaluate(config, cast("Backbone", _Identity()), judge)
        assert len(judge.seen) == judged


def test_questions_that_the_judge_does_not_answer_are_refused(videos: Path, tmp_path: Path) -> None:
    first = Dataset(videos).sample(0)
    file = write_questions(videos, [first])
    _scores(videos, videos, tmp_path / "same", OracleJudge(), nulls=False, limit=1)
    own = file.read_text().replace("Does the", "Did the", 1)
    file.write_text(own)
    with pytest.raises(
        MatrixError,
        match=r"questions\.jsonl: 1 interactions have .*'val-0-000000'; the judge 'orac",
    ):
        _scores(videos, videos, tmp_path / "own", OracleJudge(), nulls=False)
    reader = StubJudge()
    reader.verbs = None
    scores = _scores(videos, videos, tmp_path / "read", reader, nulls=False)
    assert any(
        answer.text.startswith("Did the") for answer in scores.videos[0].interactions[0].answers
    )


@pytest.mark.slow
def test_200_clips_through_the_shipped_vae(tmp_path: Path) -> None:
    write_split(tmp_path / "val", 200, 0, "val")
    val = tmp_path / "val"
    scores = _scores(val, val, tmp_path / "s", OracleJudge(), model="tiny")
    assert (scores.summary["if"].mean or 0) >= 0.98
    assert (scores.references[CEILING].summary["if"].mean or 0) >= 0.95
    frozen = scores.references["frozen_first_frame"].videos
    assert {video.kisa_raw for video in frozen} <= {0, 1 / 6}
    assert {video.sgi_raw for video in frozen} == {0}
