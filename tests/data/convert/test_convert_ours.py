"""Our layout → the authors' → ours."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from matrix_video.data.convert import convert
from matrix_video.data.dataset import Dataset
from matrix_video.data.sample import Instance, Interaction, Span


def test_our_round_trip(dataset_path: Path, tmp_path: Path, kit: Any) -> None:
    (dataset_path / "README.md").write_text("mine")
    middle, back = kit.there_and_back(dataset_path, tmp_path)
    assert kit.contents(back) == kit.contents(dataset_path)
    with (middle / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "video": "0001.mp4",
        "prompt": "the small red <id1> ball pushes the blue <id2> box, "
        "and the red <id1> ball stops",
    }
    folder = middle / "mask_annotation" / "0001"
    names = {path.name for path in folder.iterdir()}
    assert names == {"<id1>", "<id2>", "merged"}
    assert sorted(p.name for p in (folder / "<id1>").iterdir()) == [f"00{t}.png" for t in range(4)]
    first = Image.open(folder / "<id1>" / "000.png")
    tracks = Dataset(dataset_path).tracks(0)
    assert first.mode == "L"
    assert np.array_equal(np.asarray(first), tracks["id1"].mask(0) * np.uint8(255))
    assert not np.asarray(Image.open(folder / "<id2>" / "000.png")).any()
    merged = np.asarray(Image.open(folder / "merged" / "001.png"))
    assert (merged[tracks["id1"].mask(1)] == (255, 0, 0)).all()
    assert (merged[tracks["id2"].mask(1)] == (0, 255, 0)).all()


def test_the_images_and_the_table_alone_hold_masks_and_ids(
    dataset_path: Path, tmp_path: Path
) -> None:
    convert(dataset_path, tmp_path / "middle")
    (tmp_path / "middle" / "matrix.jsonl").unlink()
    convert(tmp_path / "middle", tmp_path / "back")
    ours, theirs = Dataset(dataset_path), Dataset(tmp_path / "back")
    for index in range(3):
        assert theirs.tracks(index) == ours.tracks(index)
        assert theirs.samples[index].caption == ours.samples[index].caption
        mentions = [i.mentions for i in theirs.samples[index].instances]
        assert mentions == [i.mentions for i in ours.samples[index].instances]


def test_videos_of_one_stem_keep_masks_of_their_own(
    dataset_path: Path, tmp_path: Path, kit: Any
) -> None:
    metadata = dataset_path / "metadata.jsonl"
    metadata.write_text(metadata.read_text().replace("videos/0002.mp4", "videos/0001.mov"))
    (dataset_path / "videos" / "0002.mp4").rename(dataset_path / "videos" / "0001.mov")
    tracks = dataset_path / "tracks" / "0002.json"
    tracks.write_text(tracks.read_text().replace('"id1"', '"id3"').replace('"id2"', '"id1"'))
    tracks.write_text(tracks.read_text().replace('"id3"', '"id2"'))
    before = [Dataset(dataset_path).tracks(index) for index in range(3)]
    _, back = kit.there_and_back(dataset_path, tmp_path)
    assert [Dataset(back).tracks(index) for index in range(3)] == before
    assert Dataset(back).samples == Dataset(dataset_path).samples


def test_an_edited_prompt_keeps_the_interactions(dataset_path: Path, tmp_path: Path) -> None:
    convert(dataset_path, tmp_path / "middle")
    table = tmp_path / "middle" / "metadata.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:2], "0002.mp4,a <id2> crate waits", lines[3]]) + "\n")
    summary = convert(tmp_path / "middle", tmp_path / "back")
    assert summary.notes == (
        "0002.mp4: the prompt was edited, so its mentions were read anew and its verbs have no "
        "spans",
    )
    before, after = Dataset(dataset_path).samples, Dataset(tmp_path / "back").samples
    assert (after[0], after[2]) == (before[0], before[2])
    edited = after[1]
    assert edited.caption == "a crate waits"
    assert edited.instances[1].mentions == (Span(start=2, end=7),)
    assert (edited.instances[0].phrase, edited.instances[0].mentions) == ("small red ball", ())
    assert edited.interactions == (Interaction(subject="id1", verb="push", object="id2"),)


def test_new_masks_add_an_instance(dataset_path: Path, tmp_path: Path, kit: Any) -> None:
    convert(dataset_path, tmp_path / "middle")
    folder = tmp_path / "middle" / "mask_annotation" / "0001" / "<id5>"
    kit.save(folder / "002.png", kit.mask_image(kit.box(2, 0, 0)))
    convert(tmp_path / "middle", tmp_path / "back")
    sample = Dataset(tmp_path / "back").samples[0]
    assert sample.instances[:2] == Dataset(dataset_path).samples[0].instances
    assert sample.instances[2] == Instance(id="id5", noun="instance", phrase="instance")
    assert Dataset(tmp_path / "back").tracks(0)["id5"].mask(2).sum() == 9
