from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matrix_video.data.trackfile import read_tracks, scan_tracks, track_path, write_tracks
from matrix_video.data.tracks import MaskTrack, run_lengths
from matrix_video.services.errors import MatrixError

Json = dict[str, Any]


def test_round_trip(tmp_path: Path, tracks: dict[str, MaskTrack]) -> None:
    path = track_path(tmp_path, "0001")
    assert path == tmp_path / "tracks" / "0001.json"
    write_tracks(path, tracks, (8, 10), 5)
    file = read_tracks(path)
    assert file.tracks == tracks
    assert (file.size, file.num_frames) == ((8, 10), 5)
    stored = json.loads(path.read_text())
    assert stored["size"] == [8, 10]
    assert stored["num_frames"] == 5
    assert stored["instances"]["id2"]["states"][:2] == ["absent", "visible"]
    assert stored["instances"]["id2"]["rles"][0] is None


def test_no_instances(tmp_path: Path) -> None:
    write_tracks(tmp_path / "a.json", {}, (8, 10), 5)
    assert read_tracks(tmp_path / "a.json").tracks == {}


def test_tracks_must_fit_the_file(tmp_path: Path, tracks: dict[str, MaskTrack]) -> None:
    with pytest.raises(ValueError, match="id1: masks are 5 frames of 8x10, not 5 of 8x9"):
        write_tracks(tmp_path / "a.json", tracks, (8, 9), 5)
    with pytest.raises(ValueError, match="id1: masks are 5 frames of 8x10, not 6 of 8x10"):
        write_tracks(tmp_path / "a.json", tracks, (8, 10), 6)
    assert not list(tmp_path.iterdir())


def change(name: str, value: object) -> Callable[[Json], None]:
    def edit(stored: Json) -> None:
        stored[name] = value

    return edit


def change_id1(name: str, value: object) -> Callable[[Json], None]:
    def edit(stored: Json) -> None:
        stored["instances"]["id1"][name] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("size", [8, 11]), r"instances\.id1: frame 0: RLE covers 80 pixels, not 8x11"),
        (change("size", [0, 10]), r"size\[0\]: Input should be greater than 0"),
        (change("num_frames", 6), r"instances\.id1: 5 frames, not 6"),
        (change("num_frames", 1 << 40), r"num_frames: Input should be less than or equal to"),
        (change("masks", []), r"masks: Extra inputs are not permitted"),
        (change_id1("states", ["visible"]), r"instances\.id1: 1 states but 5 masks"),
        (change_id1("states", ["seen"] * 5), r"instances\.id1\.states\[0\]: Input should be 'vis"),
        (change_id1("rles", [None] * 5), r"instances\.id1: frame 0 is visible but mask is None"),
    ],
)
def test_problems_name_file_and_field(
    tmp_path: Path, tracks: dict[str, MaskTrack], edit: Callable[[Json], None], message: str
) -> None:
    path = tmp_path / "0001.json"
    write_tracks(path, tracks, (8, 10), 5)
    stored = json.loads(path.read_text())
    edit(stored)
    path.write_text(json.dumps(stored))
    with pytest.raises(MatrixError, match=rf"0001\.json: {message}.*\. Correct the entry"):
        read_tracks(path)


@pytest.mark.parametrize("listed", [False, True])
def test_run_lengths_of_others_are_read(
    tmp_path: Path, tracks: dict[str, MaskTrack], listed: bool
) -> None:
    path = tmp_path / "a.json"
    write_tracks(path, tracks, (8, 10), 5)
    stored = json.loads(path.read_text())
    for entry in stored["instances"].values():
        for t, counts in enumerate(entry["rles"]):
            if counts is not None:
                other = run_lengths(counts) if listed else {"size": [8, 10], "counts": counts}
                entry["rles"][t] = other
    path.write_text(json.dumps(stored))
    assert read_tracks(path).tracks == tracks


def test_a_mistake_in_every_frame_is_told_once_for_each_instance(
    tmp_path: Path, tracks: dict[str, MaskTrack]
) -> None:
    path = tmp_path / "a.json"
    write_tracks(path, tracks, (8, 10), 5)
    stored = json.loads(path.read_text())
    for entry in stored["instances"].values():
        entry["states"], entry["rles"] = ["seen"] * 5, [7] * 5
    path.write_text(json.dumps(stored))
    file, problems = scan_tracks(path)
    assert file is None
    told = [(problem.field, problem.problem) for problem in problems]
    assert [field for field, _ in told if field and "states" in field] == [
        "instances.id1.states[0]",
        "instances.id2.states[0]",
    ]
    assert all("(5 entries like this)" in text for _, text in told)
    assert len(told) <= 2 * (1 + 3)  # a state; and a string, dict or list that is none


@pytest.mark.parametrize(
    ("rle", "problem"),
    [
        ({"size": [8, 11], "counts": "P2"}, "frame 0: RLE of 8x11, not 8x10"),
        ({"size": 8, "counts": "P2"}, "frame 0: RLE whose size is 8"),
        ({"counts": [3]}, "frame 0: RLE covers 3 pixels, not 8x10 = 80"),
        ([-1, 81], "frame 0: RLE runs must be whole numbers"),
        ({"counts": {}}, "frame 0: RLE counts must be a string or a list, not dict"),
        ("o" * 99, "frame 0: RLE holds a number without end"),
    ],
)
def test_broken_run_lengths_are_named(
    tmp_path: Path, tracks: dict[str, MaskTrack], rle: object, problem: str
) -> None:
    path = tmp_path / "a.json"
    write_tracks(path, tracks, (8, 10), 5)
    stored = json.loads(path.read_text())
    stored["instances"]["id1"]["rles"][0] = rle
    path.write_text(json.dumps(stored))
    with pytest.raises(MatrixError, match=problem):
        read_tracks(path)


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match=r"a\.json: there is no such track file\. Track the"):
        read_tracks(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"size": [8,')
    with pytest.raises(MatrixError, match=r"a\.json: this is not valid JSON"):
        read_tracks(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b"\xff\xfe")
    with pytest.raises(MatrixError, match=r"a\.json: this is not valid JSON \(Exp"):
        read_tracks(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"size": [8, 1' + "0" * 5000 + "]}", "a number of 5001 digits"),
        ('{"size": [8, NaN]}', "NaN is no number of JSON"),
        ('{"size": [8, 10], "size": [8, 10]}', "the name 'size' stands twice in one object"),
    ],
)
def test_what_a_file_holds_is_bounded(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(MatrixError, match=rf"a\.json: this is not valid JSON \({message}\)"):
        read_tracks(tmp_path / "a.json")


def test_scan_reports_every_bad_instance_and_keeps_the_good(
    tmp_path: Path, tracks: dict[str, MaskTrack]
) -> None:
    path = tmp_path / "a.json"
    more = tracks | {"id3": MaskTrack.from_masks(np.ones((5, 8, 10), dtype=bool))}
    write_tracks(path, more, (8, 10), 5)
    stored = json.loads(path.read_text())
    for name in ("id1", "id3"):
        stored["instances"][name]["states"].pop()
    path.write_text(json.dumps(stored))
    file, problems = scan_tracks(path)
    assert file is not None
    assert file.tracks == {"id2": tracks["id2"]}
    assert [problem.field for problem in problems] == ["instances.id1", "instances.id3"]
