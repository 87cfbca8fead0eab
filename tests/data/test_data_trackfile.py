from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matrix_video.data.trackfile import (
    TrackFile,
    read_tracks,
    scan_tracks,
    track_path,
    write_tracks,
)
from matrix_video.data.tracks import MaskTrack, run_lengths
from matrix_video.services.errors import MatrixError

Json = dict[str, Any]


@pytest.fixture
def path(tmp_path: Path, tracks: dict[str, MaskTrack]) -> Path:
    """A track file of the fixture's two tracks, 5 frames of 8x10."""
    file = track_path(tmp_path, "0001")
    write_tracks(file, TrackFile((8, 10), 5, tracks))
    return file


def edit(path: Path, change: Callable[[Json], object]) -> None:
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))


def test_round_trip(tmp_path: Path, path: Path, tracks: dict[str, MaskTrack]) -> None:
    assert path == tmp_path / "tracks" / "0001.json"
    assert read_tracks(path) == TrackFile((8, 10), 5, tracks)
    stored = json.loads(path.read_text())
    assert list(stored) == ["format", "size", "num_frames", "instances"]
    assert (stored["format"], stored["size"], stored["num_frames"]) == (2, [8, 10], 5)
    assert stored["instances"]["id2"]["states"][:2] == ["absent", "visible"]
    assert stored["instances"]["id2"]["rles"][0] is None
    write_tracks(path, TrackFile((8, 10), 5, {}))
    assert read_tracks(path).tracks == {}


def test_old_files_have_no_number_and_newer_ones_are_refused(
    path: Path, tracks: dict[str, MaskTrack]
) -> None:
    edit(path, lambda v: v.pop("format"))
    assert read_tracks(path).tracks == tracks
    for number in (3, 0, "2", None):
        edit(path, lambda v, number=number: v.update(format=number))
        message = rf"format: the file is of format {number!r}; formats 1 to 2 can be read\. Install"
        with pytest.raises(MatrixError, match=message):
            read_tracks(path)


def first_rle(value: object) -> Callable[[Json], object]:
    return lambda v: v["instances"]["id1"]["rles"].__setitem__(0, value)


def of_id1(**values: object) -> Callable[[Json], object]:
    return lambda v: v["instances"]["id1"].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(size=[8, 11]), r"instances\.id1: frame 0: RLE covers 80 pixels, not 8"),
        (lambda v: v.update(size=[0, 10]), r"size\[0\]: Input should be greater than 0"),
        (lambda v: v.update(num_frames=6), r"instances\.id1: 5 frames, not 6"),
        (lambda v: v.update(num_frames=1 << 40), r"num_frames: Input should be less than or equal"),
        (lambda v: v.update(masks=[]), r"masks: Extra inputs are not permitted"),
        (of_id1(states=["visible"]), r"instances\.id1: 1 states but 5 masks"),
        (of_id1(states=["seen"] * 5), r"instances\.id1\.states\[0\]: Input should be 'visible'"),
        (of_id1(rles=[None] * 5), r"instances\.id1: frame 0 is visible but mask is None"),
        (first_rle({"size": [8, 11], "counts": "P2"}), "frame 0: RLE of 8x11, not 8x10"),
        (first_rle({"size": 8, "counts": "P2"}), "frame 0: RLE whose size is 8"),
        (first_rle({"counts": [3]}), "frame 0: RLE covers 3 pixels, not 8x10 = 80"),
        (first_rle([-1, 81]), "frame 0: RLE runs must be whole numbers"),
        (first_rle({"counts": {}}), "frame 0: RLE counts must be a string or a list, not dict"),
        (first_rle("o" * 99), "frame 0: RLE holds a number without end"),
    ],
)
def test_problems_name_file_and_field(
    path: Path, change: Callable[[Json], object], message: str
) -> None:
    edit(path, change)
    with pytest.raises(MatrixError, match=rf"0001\.json: .*{message}.*\. Correct the entry"):
        read_tracks(path)


@pytest.mark.parametrize("listed", [False, True])
def test_run_lengths_of_others_are_read(
    path: Path, tracks: dict[str, MaskTrack], listed: bool
) -> None:
    def change(stored: Json) -> None:
        for entry in stored["instances"].values():
            for t, counts in enumerate(entry["rles"]):
                if counts is not None:
                    other = run_lengths(counts) if listed else {"size": [8, 10], "counts": counts}
                    entry["rles"][t] = other

    edit(path, change)
    assert read_tracks(path).tracks == tracks


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such track file. Track the clip, or restore the file."),
        (b'{"size": [8,', "this is not valid JSON ("),
        (b"[]", "Input should be a valid dictionary"),
        (b'{"size": [8, 10], "size": [8, 10]}', "this is not valid JSON (the name 'size' stands"),
    ],
)
def test_missing_broken_and_endless_files(path: Path, content: bytes | None, message: str) -> None:
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(MatrixError) as error:
        read_tracks(path)
    assert str(error.value).startswith(f"{path}: {message}")


def test_scan_reports_every_bad_instance_and_keeps_the_good(
    path: Path, tracks: dict[str, MaskTrack]
) -> None:
    more = tracks | {"id3": MaskTrack.from_masks(np.ones((5, 8, 10), dtype=bool))}
    write_tracks(path, TrackFile((8, 10), 5, more))
    edit(path, lambda v: [v["instances"][name]["states"].pop() for name in ("id1", "id3")])
    file, problems = scan_tracks(path)
    assert file == TrackFile((8, 10), 5, {"id2": tracks["id2"]})
    assert [problem.field for problem in problems] == ["instances.id1", "instances.id3"]
