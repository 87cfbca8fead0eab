"""Masks found by phrases become id maps, before anything is generated."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from matrix_video.backbones.base import Backbone
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.data.sample import Instance, Sample
from matrix_video.data.tracks import first_masks
from matrix_video.generation.config import GenerateConfig
from matrix_video.generation.find import find_masks, read_found
from matrix_video.generation.idmaps import read_id_map
from matrix_video.generation.replay import replay
from matrix_video.generation.run import generate
from matrix_video.perception.locate import Finder, Proposal
from matrix_video.recipes.generate import GenerateCommand, run
from matrix_video.services.errors import MatrixError
from matrix_video.world.write import write_split

FRAMES, SIDE = 9, 32
TRAINING = Path(__file__).parents[2] / "docs/training.md"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Two prompts of plain drawings without tracks: a red box, a blue box, and a cat of neither."""
    folder = tmp_path / "plain"
    with DatasetWriter(folder) as writer:
        for index in range(2):
            frames = np.full((FRAMES, SIDE, SIDE, 3), 230, dtype=np.uint8)
            frames[:, 2:14, 2 : 14 + index] = (210, 40, 40)
            frames[:, 18:28, 16:28] = (40, 60, 220)
            sample = Sample(
                id=f"p{index}",
                file_name=f"videos/p{index}.mp4",
                caption="the red box pushes the blue box",
                instances=(
                    Instance(id="id1", noun="box", phrase="red box"),
                    Instance(id="id2", noun="cat", phrase="old cat"),
                    Instance(id="id3", noun="box", phrase="blue box"),
                ),
            )
            writer.add(sample, frames, 8.0, {}, lossless=True)
    return folder


def config(prompts: Path, out: Path, adapter: Path, **changed: Any) -> GenerateConfig:
    given = {"steps": 1, "masks": "appearance", "batch": 2, **changed}
    return GenerateConfig(prompts=prompts, out=out, adapter=adapter, **given)


def test_what_is_found_is_what_is_given(
    plain: Path, tmp_path: Path, backbone: Backbone, adapter: Path
) -> None:
    found = config(plain, tmp_path / "found", adapter)
    videos = Dataset(generate(found, backbone))
    record = read_found(tmp_path / "found/id_maps/p1.json")
    assert [(one.id, one.colour is not None) for one in record.instances] == [
        *(("id1", True), ("id2", False), ("id3", True))
    ]
    assert record.instances[1].reason == "no region"
    assert record.instances[0].area == pytest.approx(12 * 13 / SIDE**2, abs=1e-4)
    masks = read_id_map(tmp_path / "found/id_maps/p1.png", (SIDE, SIDE))
    assert [int(mask.sum()) for mask in masks] == [12 * 13, 10 * 12]
    facts = json.loads((tmp_path / "found/generation.json").read_text())
    assert (facts["masks"], facts["id_map"]) == ("appearance", True)
    # The same pictures by hand, and no masks at all.
    same = GenerateConfig(
        prompts=plain,
        out=tmp_path / "same",
        adapter=adapter,
        steps=1,
        batch=2,
        id_maps=tmp_path / "found/id_maps",
    )
    by_hand = Dataset(generate(same, backbone))
    bare = {"id_maps": None, "id_map": False, "out": tmp_path / "none"}
    without = Dataset(generate(same.model_copy(update=bare), backbone))
    for index in range(2):
        frames = videos.video(index).frames_THWC
        assert (frames == by_hand.video(index).frames_THWC).all()
        assert (frames != without.video(index).frames_THWC).any()
    with replay(tmp_path / "found", backbone, videos.samples) as known:
        again = known.sample("p0", lambda step, level: None)
    stored = videos.video(0).frames_THWC
    (tmp_path / "found/id_maps/p1.png").unlink()
    with (
        pytest.raises(MatrixError, match=r"p1\.png: this picture is not as it was found"),
        replay(tmp_path / "found", backbone, videos.samples),
    ):
        pass
    assert np.abs(again.astype(int) - stored.astype(int)).max() <= 1  # rounding


class Counted:
    """A finder of one region for every phrase, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def propose(self, frame_HW3: Any, phrases: Sequence[str]) -> list[list[Proposal]]:
        self.asked += 1
        mask = np.zeros(frame_HW3.shape[:2], dtype=bool)
        mask[:4, :4] = True
        return [[Proposal(mask, 0.5)] for _ in phrases]


def test_a_stopped_search_goes_on(plain: Path, tmp_path: Path, adapter: Path) -> None:
    given, finder = config(plain, tmp_path / "out", adapter), Counted()

    def make(_: GenerateConfig) -> Finder:
        return finder

    folder = tmp_path / "maps"
    assert find_masks(given, Dataset(plain), folder, make) == (2, 6)
    (folder / "p1.json").unlink()
    assert find_masks(given, Dataset(plain), folder, make) == (2, 6)
    assert finder.asked == 3
    (folder / "p0.png").unlink()
    assert find_masks(given, Dataset(plain), folder, make) == (2, 6)
    assert finder.asked == 4
    Image.new("RGB", (SIDE, SIDE)).save(folder / "p0.png")
    with pytest.raises(MatrixError, match=r"p0\.png: .*as it was found.*copy is for another run"):
        find_masks(given, Dataset(plain), folder, make)
    (folder / "p0.png").unlink()
    find_masks(given, Dataset(plain), folder, make)
    assert np.asarray(Image.open(folder / "p0.png")).any(axis=2).sum() == 16
    reasons = [one.reason for one in read_found(folder / "p0.json").instances]
    assert reasons.count("every region was another phrase's") == 2


def test_tiny_worlds_prompts_need_no_tracks(
    tmp_path: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe: Any = tiny_pipeline(layers=2)
    pipe.save_pretrained(tmp_path / "model")
    write_split(tmp_path / "prompts", 2, seed=0, split="val")
    command = GenerateCommand(
        model=str(tmp_path / "model"),
        prompts=tmp_path / "prompts",
        out=tmp_path / "run",
        adapter=adapter,
        masks="appearance",
        steps=1,
        num_frames=9,
    )
    assert run(command) == 0
    clips = Dataset(tmp_path / "prompts")
    count = sum(len(sample.instances) for sample in clips.samples)
    assert f"masks of {count} of {count} instances found" in capsys.readouterr().out
    true = first_masks(clips.tracks(0)).values()
    found = read_id_map(tmp_path / "run/id_maps" / f"{clips.samples[0].id}.png", (64, 64))
    assert len(found) == len(true)
    union = np.logical_or.reduce([*true])
    assert (found.any(axis=0) != union).sum() <= 0.05 * union.sum()


def test_a_picture_and_a_line_are_a_prompt(
    tmp_path: Path, backbone: Backbone, adapter: Path
) -> None:
    """As docs/training.md shows it: no video, no tracks."""
    shown = re.findall(r"```json\n(.*?)```", TRAINING.read_text(), re.DOTALL)[0]
    (tmp_path / "own/images").mkdir(parents=True)
    (tmp_path / "own/metadata.jsonl").write_text(shown)
    frame = np.full((SIDE, SIDE, 3), 230, dtype=np.uint8)
    frame[2:14, 2:14] = (40, 60, 220)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    frame[(rows - 22) ** 2 + (columns - 22) ** 2 <= 36] = (210, 40, 40)
    Image.fromarray(frame).save(tmp_path / "own/images/a.png")
    given = config(tmp_path / "own", tmp_path / "out", adapter, num_frames=FRAMES, fps=8.0)
    made = Dataset(generate(given, backbone))
    assert made.video(0).frames_THWC.shape == (FRAMES, SIDE, SIDE, 3)
    found = read_found(tmp_path / "out/id_maps/a.json").instances
    picture = np.asarray(Image.open(tmp_path / "out/id_maps/a.png"))
    assert [one.colour for one in found] == [tuple(picture[22, 22]), tuple(picture[8, 8])]


def test_mistakes_are_named(plain: Path, tmp_path: Path, adapter: Path) -> None:
    with pytest.raises(MatrixError, match=r"masks: id maps are given, but nothing that takes them"):
        GenerateConfig(prompts=plain, out=tmp_path / "o", masks="grounded")
    with pytest.raises(MatrixError, match=r"masks: .*found by appearance.*one of --id-maps and"):
        config(plain, tmp_path / "o", adapter, id_maps=tmp_path)
    with pytest.raises(
        MatrixError, match=r"detector: detector is given, but masks are from appear"
    ):
        config(plain, tmp_path / "o", adapter, detector="d")
    bare = shutil.copytree(adapter, tmp_path / "bare")
    for file in bare.glob("matrix_cond.*"):
        file.unlink()
    with pytest.raises(MatrixError, match=r"bare: adapter: .*this adapter was trained without"):
        generate(config(plain, tmp_path / "a", bare))
    nobody = tmp_path / "nobody"
    with DatasetWriter(nobody) as writer:
        sample = Sample(id="q", file_name="videos/q.mp4", caption="a storm")
        writer.add(sample, np.zeros((1, 8, 8, 3), dtype=np.uint8), 8.0, {}, lossless=True)
    with pytest.raises(MatrixError, match=r"1 of 1 clips .* q: it names no instance"):
        generate(config(nobody, tmp_path / "b", adapter, num_frames=9))
    many = sample.model_copy(
        update={
            "instances": tuple(Instance(id=f"id{i}", noun="x", phrase="x") for i in range(1, 66))
        }
    )
    crowd = tmp_path / "crowd"
    with DatasetWriter(crowd) as writer:
        writer.add(many, np.zeros((1, 8, 8, 3), dtype=np.uint8), 8.0, {}, lossless=True)
    with pytest.raises(MatrixError, match=r"1 of 1 clips .* q: it has 65 instances.*room for 64"):
        generate(config(crowd, tmp_path / "c", adapter, num_frames=9))
