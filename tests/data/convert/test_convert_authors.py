"""The authors' layout → ours → the authors', compared file by file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from matrix_video.data.check import check_datasets
from matrix_video.data.convert import convert
from matrix_video.data.dataset import Dataset
from matrix_video.data.tracks import MaskTrack, State

T, H, W = 5, 8, 10
CLIP = "mask_annotation/000001"


def test_authors_round_trip(tmp_path: Path, video: Path, authors: Path, kit: Any) -> None:
    middle, back = kit.there_and_back(authors, tmp_path)
    assert kit.contents(back) == kit.contents(authors)
    assert not check_datasets([middle]).problems
    dataset = Dataset(middle)
    one, two = dataset.samples
    assert (one.id, one.file_name) == ("000001", "videos/000001.mp4")
    assert one.caption == "a woman, in red, hands “a cup” to a man"
    assert [instance.id for instance in one.instances] == ["id1", "id3"]
    assert [instance.noun for instance in one.instances] == ["woman", "man"]
    assert two.caption == 'a "tall" Frau gibt\nder Katze Wasser'
    assert (middle / "videos/000001.mp4").read_bytes() == video.read_bytes()
    tracks = dataset.tracks(0)
    assert tracks["id3"].states == (
        State.VISIBLE,
        State.VISIBLE,
        State.ABSENT,
        State.UNKNOWN,
        State.VISIBLE,
    )
    assert np.array_equal(tracks["id3"].mask(4), kit.box(4, 2, 3, 4))
    assert all(np.array_equal(dataset.tracks(1)["id2"].mask(t), kit.box(t, 4, 4)) for t in range(T))


JSON_ROWS = [
    {"prompt": 'a <id1> man, "so to say"\n\u2028 runs', "fps": 16.5, "video": "000001.mp4"},
    {"video": "videos/000002.mp4", "prompt": "<id1><id2> two people", "tags": ["x", None]},
]
TABLES = {
    "json": json.dumps(JSON_ROWS, indent=7),
    "jsonl": "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in JSON_ROWS),
    "csv": '\ufeff"fps",prompt,"video"\r\n'
    '16,"a <id1> man, ""so to say""\n\u2028 runs",000001.mp4\r\n\r\n',
}


@pytest.mark.parametrize("kind", TABLES)
def test_metadata_of_any_kind_and_formatting(
    tmp_path: Path, kind: str, authors: Path, kit: Any
) -> None:
    (authors / "metadata.csv").unlink()
    (authors / f"metadata.{kind}").write_bytes(TABLES[kind].encode())
    middle, back = kit.there_and_back(authors, tmp_path)
    assert kit.contents(back) == kit.contents(authors)
    assert Dataset(middle).samples[0].caption == 'a man, "so to say"\n\u2028 runs'


def test_an_edited_caption_changes_its_row_alone(tmp_path: Path, authors: Path) -> None:
    table = "fps,video,prompt\r\n16,000001.mp4,a <id1> man runs\r\n8,000002.mp4,a  <id2>  cat\r\n"
    (authors / "metadata.csv").write_bytes(table.encode())
    convert(authors, tmp_path / "middle")
    metadata = tmp_path / "middle" / "metadata.jsonl"
    metadata.write_text(metadata.read_text().replace("a man runs", "a man walks"))
    convert(tmp_path / "middle", tmp_path / "back")
    assert (tmp_path / "back" / "metadata.csv").read_text() == (
        "fps,video,prompt\n16,000001.mp4,a <id1> man walks\n8,000002.mp4,a  <id2>  cat\n"
    )


def test_edited_and_added_tracks_change_their_images_alone(
    tmp_path: Path, authors: Path, kit: Any
) -> None:
    grey = np.asarray(kit.mask_image(kit.box(0, 1, 1, 4))).copy()
    grey[grey > 0] = np.arange(1, 1 + (grey > 0).sum())
    kit.save(authors / CLIP / "<id1>" / "000.png", Image.fromarray(grey))
    convert(authors, tmp_path / "middle")
    path = tmp_path / "middle" / "tracks" / "000001.json"
    edited = Dataset(tmp_path / "middle").tracks(0)["id1"].masks()
    edited[0] = kit.box(0, 5, 5)
    added = np.zeros((T, H, W), dtype=bool)
    added[1, 7, 9] = True
    value = json.loads(path.read_text())
    for name, masks in (("id1", edited), ("id4", added)):
        track = MaskTrack.from_masks(masks)
        value["instances"][name] = {"states": track.states, "rles": track.rles}
    path.write_text(json.dumps(value))
    metadata = tmp_path / "middle" / "metadata.jsonl"
    first, second = metadata.read_text().splitlines()
    sample = json.loads(first)
    sample["instances"].append({"id": "id4", "noun": "cup", "phrase": "cup"})
    metadata.write_text(f"{json.dumps(sample)}\n{second}\n")
    convert(tmp_path / "middle", tmp_path / "back")
    before, after = kit.contents(authors), kit.contents(tmp_path / "back")
    beside = {"matrix.jsonl", f"{CLIP}/<id4>", *(f"{CLIP}/<id4>/{t:03d}.png" for t in range(T))}
    assert after.keys() - before.keys() == beside
    painted = [f"{CLIP}/merged/{t:03d}.png" for t in (0, 1)]
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed == {f"{CLIP}/<id1>/000.png", *painted}
    image = Image.open(tmp_path / "back" / CLIP / "<id1>" / "000.png")
    assert np.array_equal(np.asarray(image), kit.box(0, 5, 5) * np.uint8(255))
    merged, later = (np.asarray(Image.open(tmp_path / "back" / name)) for name in painted)
    assert (merged[kit.box(0, 2, 3, 4)] == (0, 0, 255)).all()  # in our colours, later ids on top
    assert (merged[7, 7] == (255, 0, 0)).all()
    assert tuple(later[7, 9]) == (255, 255, 0)


def odd_images(kit: Any) -> dict[str, Callable[[Path], None]]:
    mask = kit.box(0, 2, 2)
    soft = (mask * np.arange(W, dtype=np.uint8)).astype(np.uint8)
    rgba = np.dstack([soft, soft, soft, 255 - soft])
    bright_back = Image.frombytes("P", (W, H), mask.astype(np.uint8).tobytes())
    bright_back.putpalette(bytes([9, 9, 9, 0, 0, 0]))
    return {
        "soft": lambda p: kit.save(p, Image.fromarray(soft)),
        "rgba": lambda p: kit.save(p, Image.fromarray(rgba)),
        "grey with alpha": lambda p: kit.save(p, Image.fromarray(rgba[..., [0, 3]])),
        "16 bit": lambda p: kit.save(p, Image.fromarray(soft.astype(np.uint16) * 257)),
        "index 1 is black": lambda p: kit.save(p, bright_back),
        "transparent": lambda p: kit.save(p, kit.mask_image(mask, "P", 2), transparency=0),
        "2 bits": lambda p: kit.save(p, kit.mask_image(mask, "P", 2), bits=2),
        "colour": lambda p: kit.save(p, Image.fromarray(rgba[..., :3] * np.uint8([1, 0, 3]))),
        "note inside": lambda p: kit.save(p, kit.mask_image(mask), dpi=(70, 70)),
    }


def test_odd_images_come_back(tmp_path: Path, authors: Path, kit: Any) -> None:
    masks = authors / "mask_annotation"
    for k, write in enumerate(odd_images(kit).values()):
        for folder in (masks / "000001", masks / "000002"):
            for name, number in ((f"<id{5 + k // T}>", k % T), (f"<id{8 + k}>", 0)):
                (folder / name).mkdir(exist_ok=True)
                write(folder / name / f"{number:03d}.png")
    shutil.rmtree(masks / "000002" / "merged", ignore_errors=True)
    shutil.copytree(masks / "000002" / "<id5>", masks / "000002" / "merged")
    shutil.copytree(masks / "000001" / "<id6>", masks / "000001" / "merged", dirs_exist_ok=True)
    middle, back = kit.there_and_back(authors, tmp_path)
    assert kit.contents(back) == kit.contents(authors)
    # Of "index 1 is black": black is outside, whatever its index.
    assert np.array_equal(Dataset(middle).tracks(0)["id12"].mask(0), ~kit.box(0, 2, 2))


def test_folders_and_files_that_neither_layout_knows(
    tmp_path: Path, authors: Path, kit: Any
) -> None:
    (authors / "mask_annotation" / "000001" / "<id4>").mkdir()
    (authors / "mask_annotation" / "000002" / "merged").mkdir()
    (authors / "mask_annotation" / "000001" / "<id1>" / "notes.txt").write_text("x")
    (authors / "mask_annotation" / "000001" / "background").mkdir()
    kit.save(
        authors / "mask_annotation" / "000001" / "background" / "000.png", Image.new("L", (3, 3))
    )
    (authors / "README.md").write_text("mine")
    (authors / "videos" / "unused.avi").write_bytes(b"\0\1")
    middle, back = kit.there_and_back(authors, tmp_path)
    assert kit.contents(back) == kit.contents(authors)
    extra = ("README.md", "videos/unused.avi")  # the rest lies with its clip
    assert convert(authors, tmp_path / "again").extra == extra
    assert set(Dataset(middle).tracks(0)["id4"].states) == {State.UNKNOWN}


def test_rows_that_share_a_video_and_videos_in_folders(
    tmp_path: Path, video: Path, authors: Path, kit: Any
) -> None:
    (authors / "videos" / "part 1").mkdir()
    shutil.copyfile(video, authors / "videos" / "part 1" / "größe.mp4")
    kit.save(
        authors / "mask_annotation/part 1/größe/<id12>/000.png", kit.mask_image(kit.box(0, 1, 1))
    )
    with (authors / "metadata.csv").open("a", encoding="utf-8") as file:
        file.write("000001.mp4,another <id1> wording for <id9> it\n")
        file.write("part 1/größe.mp4,\n")
    middle, back = kit.there_and_back(authors, tmp_path)
    assert kit.contents(back) == kit.contents(authors)
    samples = Dataset(middle).samples
    assert [sample.id for sample in samples] == ["000001", "000002", "000001-2", "part-1-gr-e"]
    assert samples[2].file_name == "videos/000001-2.mp4"
    assert [instance.id for instance in samples[2].instances] == ["id1", "id3", "id9"]


def test_a_tag_without_masks_is_a_note_and_then_a_problem(
    tmp_path: Path, authors: Path, kit: Any
) -> None:
    (authors / "metadata.csv").write_text("video,prompt\n000001.mp4,a <id2> dog runs\n")
    summary = convert(authors, tmp_path / "middle")
    assert summary.notes == ("000001.mp4: the prompt names id2, which has no masks",)
    problems = check_datasets([tmp_path / "middle"]).problems
    assert [p.field for p in problems] == ["instances.id2"]
    convert(tmp_path / "middle", tmp_path / "back")
    assert kit.contents(tmp_path / "back") == kit.contents(authors)


def test_what_was_added_here_survives_a_visit_there(
    tmp_path: Path, authors: Path, kit: Any
) -> None:
    """Authors' data, annotated here, taken there and back: nothing of either side is lost."""
    convert(authors, tmp_path / "middle")
    metadata = tmp_path / "middle" / "metadata.jsonl"
    lines = metadata.read_text().splitlines()
    sample = json.loads(lines[0])
    act = {"subject": "id1", "verb": "hand", "object": "id3", "contact": 4}
    sample.update(interactions=[act], source="hoigen", scores={"sharp": 0.25})
    metadata.write_text(json.dumps(sample) + "\n" + lines[1] + "\n")
    there, here = tmp_path / "there", tmp_path / "here"
    convert(tmp_path / "middle", there)
    convert(there, here)
    beside = kit.contents(there)
    assert b'"verb":"hand"' in beside.pop("matrix.jsonl")
    assert beside == kit.contents(authors)
    assert Dataset(here).samples == Dataset(tmp_path / "middle").samples
    again = kit.contents(here)
    before = kit.contents(tmp_path / "middle")
    assert again.pop("metadata.jsonl") != before.pop("metadata.jsonl")  # our own formatting now
    assert again == before
