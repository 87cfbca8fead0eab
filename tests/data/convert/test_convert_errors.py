"""What cannot be converted, and what is said of it."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from matrix_video.data.convert import convert
from matrix_video.data.dataset import Dataset
from matrix_video.services.errors import MatrixError

H, W = 8, 10


def test_what_is_refused_before_anything_is_written(dataset_path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MatrixError, match=r"no layout that is known: .* \(authors\).*--from masks"):
        convert(tmp_path / "empty", tmp_path / "target")
    with pytest.raises(MatrixError, match="there is no such folder"):
        convert(tmp_path / "nothing", tmp_path / "target")
    with pytest.raises(MatrixError, match="is in the layout 'matrix' already"):
        convert(dataset_path, tmp_path / "target", "matrix")
    with pytest.raises(MatrixError, match="lies inside the source"):
        convert(dataset_path, dataset_path / "target", "authors")
    assert not (tmp_path / "target").exists()
    convert(dataset_path, tmp_path / "empty", "authors")  # an empty folder is no obstacle
    with pytest.raises(MatrixError, match="exists already and is not empty"):
        convert(dataset_path, tmp_path / "empty", "authors")


def spoil(authors: Path, what: str, kit: Any) -> None:
    masks = authors / "mask_annotation" / "000001"
    table = authors / "metadata.csv"
    first = masks / "<id1>" / "000.png"
    video = authors / "videos" / "000001.mp4"
    changes: dict[str, Callable[[], object]] = {
        "size": lambda: kit.save(first, Image.new("L", (W, H - 1))),
        "merged size": lambda: kit.save(masks / "merged" / "000.png", Image.new("RGB", (W + 2, H))),
        "merged cut": lambda: (masks / "merged" / "000.png").write_bytes(first.read_bytes()[:60]),
        "length": lambda: kit.save(masks / "<id1>" / "005.png", Image.new("L", (W, H))),
        "digits": lambda: shutil.copy(first, masks / "<id1>" / "00.png"),
        "twice": lambda: kit.save(masks / "id1" / "000.png", Image.new("L", (W, H))),
        "no png": lambda: first.write_bytes(b"GIF89a"),
        "cut": lambda: first.write_bytes(first.read_bytes()[:60]),
        "bomb": lambda: first.write_bytes(kit.huge_png()),
        "no video": lambda: video.unlink(),
        "video": lambda: video.write_bytes(video.read_bytes()[:-1500]),
        "outside": lambda: table.write_text(table.read_text().replace("000001.mp4", "../a.mp4")),
        "nul": lambda: table.write_text(table.read_text().replace("000001.mp4", "a\0.mp4")),
        "ours": lambda: table.write_text(table.read_text().replace("000001.mp4", "metadata.csv")),
        "linked mask": lambda: (first.unlink(), first.symlink_to("/etc/passwd")),
        "linked video": lambda: (video.unlink(), video.symlink_to("/etc/passwd")),
        "linked folder": lambda: (shutil.rmtree(masks), masks.symlink_to("/etc")),
        "loop": lambda: (masks / "loop").symlink_to(masks),
    }
    changes[what]()


LEFT_OUT = [
    ("size", r"<id1>/000\.png: the mask is 7x10, but its video is 8x10 \(height x width\)\. Make"),
    ("merged size", r"merged/000\.png: the mask is 8x12, but its video is 8x10"),
    ("merged cut", r"merged/000\.png: the mask cannot be read as a PNG"),
    ("length", r"005\.png: there is a mask for frame 5, but the video has 5 frames \(0 to 4\)"),
    ("digits", r"000001: frame 0 has two masks, '<id1>/00\.png' and '<id1>/000\.png'"),
    ("twice", r"id1 has two mask folders, '<id1>' and 'id1'"),
    ("no png", r"<id1>/000\.png: the mask cannot be read as a PNG"),
    ("cut", r"<id1>/000\.png: the mask cannot be read as a PNG"),
    ("bomb", r"<id1>/000\.png: the mask cannot be read as a PNG .*exceeds limit"),
    ("no video", r"row 0: video: there is no video '000001\.mp4': looked for videos/000001\.mp4"),
    ("video", r"000001\.mp4: the video is damaged or truncated"),
    ("outside", r"row 0: video: 'videos/\.\./a\.mp4' is no path inside the data set"),
    ("nul", r"row 0: video: .* is no path inside the data set"),
    ("ours", r"row 0: video: .*'videos/metadata\.csv' is the name of a file of the data set's own"),
    ("linked mask", r"<id1>/000\.png: this is a link out of"),
    ("linked video", r"000001\.mp4: this is a link out of"),
    ("linked folder", r"mask_annotation/000001: this is a link out of"),
    ("loop", r"000001/loop: links to folders are not followed"),
]


@pytest.mark.parametrize(("what", "text"), LEFT_OUT)
def test_a_bad_clip_is_left_out_and_taken_once_it_is_mended(
    tmp_path: Path, what: str, text: str, authors: Path, kit: Any
) -> None:
    good = tmp_path / "good"
    shutil.copytree(authors, good)
    spoil(authors, what, kit)
    target = tmp_path / "target"
    summary = convert(authors, target)
    ((name, reason),) = summary.left_out
    assert kit.matches(text, reason)
    assert summary.clips == 1
    assert [sample.id for sample in Dataset(target).samples] == ["000002"]
    told = json.loads((target / "convert-left-out.jsonl").read_text())
    assert told == {"clip": name, "reason": reason}
    if name != "000001.mp4":
        return  # the metadata itself was changed, which wants another target
    shutil.rmtree(authors)
    shutil.copytree(good, authors)
    assert not convert(authors, target).left_out
    convert(authors, tmp_path / "undisturbed")
    assert kit.contents(target) == kit.contents(tmp_path / "undisturbed")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path: Path, authors: Path) -> None:
    (authors / "mask_annotation" / "000001" / "<id1>" / "000.png").chmod(0)
    ((_, reason),) = convert(authors, tmp_path / "target").left_out
    assert "000.png: cannot be read (Permission denied)" in reason


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("video,prompt\n000001.mp4,\udcfc\n", r"metadata\.csv: the file is not UTF-8"),
        ("video,prompt\n", r"there are 0 clips to convert"),
        (
            "video,prompt\nno.mp4,x\n",
            r"none of 1 clips could be converted, the first because: .* no",
        ),
        (None, r"the folder has no metadata: looked for metadata\.csv, metadata\.json, "),
    ],
)
def test_bad_metadata_leaves_nothing(
    tmp_path: Path, text: str | None, problem: str, authors: Path
) -> None:
    table = authors / "metadata.csv"
    if text is None:
        table.unlink()
    else:
        table.write_text(text, errors="surrogateescape")
    with pytest.raises(MatrixError, match=problem):
        convert(authors, tmp_path / "target")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["authors"]


def test_bad_clips_of_ours(dataset_path: Path, tmp_path: Path, kit: Any) -> None:
    tracks = [dataset_path / "tracks" / f"000{n}.json" for n in (1, 2)]
    good = tracks[0].read_text()
    value = json.loads(good)
    value["instances"]["id9"] = value["instances"]["id1"]
    tracks[0].write_text(json.dumps(value))
    tracks[1].write_text(good.replace("[8,10]", "[10,8]"))
    reasons = dict(convert(dataset_path, tmp_path / "target").left_out)
    assert kit.matches(r"0001\.json: instances\.id9: the track names no instance", reasons["0001"])
    assert kit.matches(
        r"masks are 5 frames of 10x8, but the video .* has 5 of 8x10", reasons["0002"]
    )
    (dataset_path / "videos" / "0003.mp4").unlink()
    with pytest.raises(MatrixError, match=r"none of 3 clips could be converted"):
        convert(dataset_path, tmp_path / "other")
    (dataset_path / "metadata.partial.jsonl").write_text("")
    with pytest.raises(MatrixError, match=r"unfinished: it still has metadata\.partial\.jsonl"):
        convert(dataset_path, tmp_path / "other")
    assert not (tmp_path / "other").exists()


HOSTILE = ("path", "rows", "name", "compressed", "torn", "json", "twice", "linked")


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_records_write_nothing_outside(
    tmp_path: Path, what: str, authors: Path, kit: Any
) -> None:
    """Records of a data set of ours that a stranger made."""
    middle, target = tmp_path / "middle", tmp_path / "out" / "target"
    convert(authors, middle)
    record, archive = (middle / "authors" / "clips" / f"000001.{kind}" for kind in ("json", "zip"))
    value = json.loads(record.read_text())
    if what == "path":
        record.write_text(json.dumps(value | {"path": "../../pwned.mp4"}))
    elif what == "rows":
        record.write_text(json.dumps(value | {"row": 7}))
    elif what == "json":
        record.write_text("[" * 100_000)
    elif what == "twice":
        record.write_text(json.dumps(value)[:-1] + ', "row": 1}')
    elif what == "torn":
        archive.write_bytes(archive.read_bytes()[:-30])
    elif what == "linked":
        archive.unlink()
        archive.symlink_to("/etc/passwd")
    else:
        kind = zipfile.ZIP_DEFLATED if what == "compressed" else zipfile.ZIP_STORED
        with zipfile.ZipFile(archive, "w", kind) as out:
            out.writestr("../../../../pwned" if what == "name" else "<id1>/000.png", "0" * 99)
    summary = convert(middle, target)
    assert [name for name, _ in summary.left_out] == ["000001"]
    assert not list(tmp_path.rglob("*pwned*"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["target"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            '"id":"id2"',
            '"id":"id1"',
            r"line 1: sample: .*instances\[1\]\.id: 'id1' is the id of 2 in",
        ),
        ('"sample":{', '"sample":{"id":"a",', r"line 1: .*the name 'id' stands twice"),
        (
            '"sample":{',
            '"sample":{"x":1,',
            r"line 1: sample\.x: the record is broken \(Extra inputs",
        ),
        ('"prompt":', '"text":', r"line 1: prompt: the record is broken \(Field required\)"),
    ],
)
def test_broken_records_of_ours_are_one_clear_error(
    dataset_path: Path, tmp_path: Path, old: str, new: str, problem: str
) -> None:
    convert(dataset_path, tmp_path / "middle")
    lines = tmp_path / "middle" / "matrix.jsonl"
    good = lines.read_text()
    lines.write_text("\ufeff" + good)  # a byte order mark is none
    assert convert(tmp_path / "middle", tmp_path / "back").clips == 3
    lines.write_text(good.replace(old, new, 1))
    with pytest.raises(MatrixError, match=problem):
        convert(tmp_path / "middle", tmp_path / "other")


def test_stray_links_and_names_are_left_behind(tmp_path: Path, authors: Path) -> None:
    (authors / "README").symlink_to("/etc/passwd")
    (authors / "more").symlink_to("/etc")
    (authors / "a\\b.txt").write_text("x")
    summary = convert(authors, tmp_path / "target")
    assert len([note for note in summary.notes if "guess" not in note]) == 3
    assert not (tmp_path / "target" / "authors" / "extra").exists()


def test_files_of_others_never_take_the_place_of_the_data(tmp_path: Path, authors: Path) -> None:
    (authors / "matrix" / "videos").mkdir(parents=True)
    for name in ("metadata.jsonl", "metadata.partial.jsonl", "videos/000001.mp4", "notes.txt"):
        (authors / "matrix" / name).write_text("mine")
    summary = convert(authors, tmp_path / "middle")
    assert len([note for note in summary.notes if "was not copied" in note]) == 3
    assert (tmp_path / "middle" / "notes.txt").read_text() == "mine"
    assert len(Dataset(tmp_path / "middle")) == 2
    extra = tmp_path / "middle" / "authors" / "extra"
    (extra / "mask_annotation" / "000001" / "<id1>").mkdir(parents=True)
    for name in ("metadata.csv", "mask_annotation/000001/<id1>/000.png"):
        (extra / name).write_text("mine")
    summary = convert(tmp_path / "middle", tmp_path / "back")
    assert len(summary.notes) == 2
    assert (tmp_path / "back" / "metadata.csv").read_bytes() == (
        authors / "metadata.csv"
    ).read_bytes()
