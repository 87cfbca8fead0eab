"""What cannot be converted, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from matrix_video.data.convert import convert
from matrix_video.services.errors import MatrixError

H, W = 8, 10


def test_neither_layout(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match=r"in no layout that is known: looked for metadata.jsonl"):
        convert(tmp_path, tmp_path.parent / "other")
    with pytest.raises(MatrixError, match="there is no such folder"):
        convert(tmp_path / "nothing", tmp_path / "target")


def test_already_in_this_layout(dataset_path: Path, tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match="is in the layout 'matrix' already"):
        convert(dataset_path, tmp_path / "target", "matrix")


def test_target_is_taken(dataset_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    convert(dataset_path, target, "authors")  # an empty folder is no obstacle
    with pytest.raises(MatrixError, match="exists already and is not empty"):
        convert(dataset_path, target, "authors")
    with pytest.raises(MatrixError, match="lies inside the source"):
        convert(dataset_path, dataset_path / "target", "authors")


def spoil_video(authors: Path) -> None:
    path = authors / "videos" / "000001.mp4"
    path.write_bytes(path.read_bytes()[:-1500])


def spoil(authors: Path, what: str, kit: Any) -> None:
    masks = authors / "mask_annotation" / "000001"
    table = authors / "metadata.csv"
    changes: dict[str, Callable[[], object]] = {
        "size": lambda: kit.save(masks / "<id1>" / "000.png", Image.new("L", (W, H - 1))),
        "merged size": lambda: kit.save(masks / "merged" / "000.png", Image.new("RGB", (W + 2, H))),
        "length": lambda: kit.save(masks / "<id1>" / "005.png", Image.new("L", (W, H))),
        "digits": lambda: (masks / "<id1>" / "001.png").rename(masks / "<id1>" / "01.png"),
        "twice": lambda: (masks / "id1").mkdir(),
        "no png": lambda: (masks / "<id1>" / "000.png").write_bytes(b"GIF89a"),
        "cut": lambda: (masks / "<id1>" / "000.png").write_bytes(
            (masks / "<id1>" / "000.png").read_bytes()[:60]
        ),
        "no video": lambda: (authors / "videos" / "000002.mp4").unlink(),
        "video": lambda: spoil_video(authors),
        "outside": lambda: table.write_text("video,prompt\n../a.mp4,x\n"),
        "columns": lambda: table.write_text("file,prompt\na.mp4,x\n"),
        "cells": lambda: table.write_text("video,prompt\n000001.mp4,a, b\n"),
        "quote": lambda: table.write_text('video,prompt\n000001.mp4,"a" b\n'),
        "encoding": lambda: table.write_bytes("video,prompt\n000001.mp4,ü\n".encode("latin-1")),
        "no table": lambda: table.unlink(),
        "sidecar": lambda: (authors / "matrix.jsonl").write_text('{"video": 1}\n'),
    }
    changes[what]()


@pytest.mark.parametrize(
    ("what", "text"),
    [
        (
            "size",
            r"<id1>/000\.png: the mask is 7x10, but its video is 8x10 \(height x width\)\. Make",
        ),
        ("merged size", r"merged/000\.png: the mask is 8x12, but its video is 8x10"),
        ("length", r"005\.png: there is a mask for frame 5, but the video has 5 frames \(0 to 4\)"),
        ("digits", r"<id1>: the frame numbers mix different numbers of digits"),
        ("twice", r"id1 has two mask folders, '<id1>' and 'id1'"),
        ("no png", r"<id1>/000\.png: the mask cannot be read as a PNG"),
        ("cut", r"<id1>/000\.png: the mask cannot be read as a PNG"),
        (
            "no video",
            r"row 1: video: there is no video '000002\.mp4': looked for videos/000002\.mp4",
        ),
        ("video", r"000001\.mp4: the video is damaged or truncated"),
        ("outside", r"row 0: video: '\.\./a\.mp4' is no path below videos/"),
        ("columns", r"line 1: expected one column 'video' among the columns \['file', 'prompt'\]"),
        ("cells", r"line 2: 3 cells under 2 columns; a comma in a prompt needs quotes"),
        ("quote", r"line 2: this is not CSV"),
        ("encoding", r"metadata\.csv: the file is not UTF-8"),
        ("no table", r"the folder has no metadata: looked for metadata\.csv, metadata\.json, "),
        ("sidecar", r"matrix\.jsonl: line 1: video: the sidecar is broken"),
    ],
)
def test_bad_input_leaves_nothing(
    tmp_path: Path, what: str, text: str, authors: Path, kit: Any
) -> None:
    spoil(authors, what, kit)
    with pytest.raises(MatrixError, match=text):
        convert(authors, tmp_path / "target")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["authors"]


def test_bad_input_of_ours(dataset_path: Path, tmp_path: Path) -> None:
    tracks = dataset_path / "tracks" / "0001.json"
    good = tracks.read_text()
    value = json.loads(good)
    value["instances"]["id9"] = value["instances"]["id1"]
    tracks.write_text(json.dumps(value))
    with pytest.raises(MatrixError, match=r"instances\.id9: the track names no instance"):
        convert(dataset_path, tmp_path / "target")
    tracks.write_text(good.replace("[8,10]", "[10,8]"))
    with pytest.raises(MatrixError, match=r"size: the masks have 10x8 .* has 8x10"):
        convert(dataset_path, tmp_path / "target")
    tracks.write_text(good)
    (dataset_path / "metadata.partial.jsonl").write_text("")
    with pytest.raises(MatrixError, match=r"unfinished: it still has metadata\.partial\.jsonl"):
        convert(dataset_path, tmp_path / "target")
    (dataset_path / "metadata.partial.jsonl").unlink()
    (dataset_path / "videos" / "0002.mp4").unlink()
    with pytest.raises(MatrixError, match=r"0002\.mp4: there is no such video file"):
        convert(dataset_path, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_sidecar_that_does_not_fit(tmp_path: Path, authors: Path) -> None:
    convert(authors, tmp_path / "middle")
    (tmp_path / "middle" / "authors" / "metadata.csv").write_text("video,prompt\n")
    with pytest.raises(MatrixError, match=r"clips\.000001\.row: row 0 is not among the 0 rows"):
        convert(tmp_path / "middle", tmp_path / "back")
