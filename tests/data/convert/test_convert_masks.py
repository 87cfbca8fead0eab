"""Videos, texts and masks become a data set."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from matrix_video.data.check import check_datasets
from matrix_video.data.convert import MaskOptions, convert
from matrix_video.data.dataset import Dataset
from matrix_video.data.spans import phrases
from matrix_video.data.tracks import State
from matrix_video.data.video import write_video
from matrix_video.recipes.convert import ConvertCommand, run
from matrix_video.services.errors import MatrixError

CAPTION = "the red ball pushes the blue ball, the other red ball follows the box"
FACTS: dict[str, Any] = {
    "caption": CAPTION,
    "instances": {"1": "red ball", "3": "blue ball", "4": "red ball"},
    "interactions": [["1", "pushes", "3"], ["4", "follows", "3"]],
}


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    for name in ("a", "b 1"):
        numbers_THW = np.zeros((9, 32, 32), np.uint8)
        for t in range(9):
            numbers_THW[t, 2:10, t : t + 8] = 1
            numbers_THW[t, 2:10, 20:28] = 3
            numbers_THW[t, 20:28, 4:12] = 4
        frames_THWC = np.repeat(60 * numbers_THW[..., None], 3, axis=-1)
        (folder / name).mkdir(parents=True)
        write_video(folder / f"{name}.mp4", frames_THWC, 8.0)
        mark = "\ufeff" if name == "b 1" else ""  # a byte order mark is no text
        (folder / f"{name}.json").write_text(mark + json.dumps(FACTS))
        for t in range(9):
            if t != 5:  # one frame that nobody annotated
                picture = Image.fromarray(numbers_THW[t], mode="P")
                picture.putpalette([*range(256)] * 3)
                picture.save(folder / name / f"frame_{t:05d}.png")
    return folder


def test_clips_become_a_data_set(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "own"
    assert run(ConvertCommand(clips, out, layout="masks")) == 0
    assert capsys.readouterr().out.startswith(f"{out}: 2 clips and 16 mask pictures\n")
    assert check_datasets([out]).ok
    data = Dataset(out)
    assert [sample.id for sample in data.samples] == ["a", "b-1"]
    assert [(p.role, p.instances, p.text) for p in phrases(data.sample(0))] == [
        ("subject", ("id1",), "red ball"),
        ("object", ("id3",), "blue ball"),
        ("verb", ("id1", "id3"), "pushes"),
        ("subject", ("id4",), "red ball"),
        ("verb", ("id4", "id3"), "follows"),
    ]
    first, second = (data.sample(0).instance(name).mentions[0] for name in ("id1", "id4"))
    assert (first.start, second.start) == (4, CAPTION.index("red ball follows"))
    track = data.tracks(0)["id1"]
    assert track.states[5] is State.UNKNOWN
    assert {*track.states} == {State.UNKNOWN, State.VISIBLE}
    assert track.mask(3).nonzero()[1].tolist()[0] == 3


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: (c / "a.json").unlink(), r"a\.json: the video has no texts\. Write its caption"),
        (lambda c: (c / "a.json").write_text("{"), r"a\.json: this is not valid JSON"),
        (lambda c: (c / "a.json").write_text('{"caption": "", "caption": ""}'), "stands twice"),
        (lambda c: put(c, instances={}), r"a\.json: instances: .* should have at least 1"),
        (
            lambda c: put(c, instances={"1": "red ball", "3": "box", "4": "box"}),
            r"says 'box' 1 tim",
        ),
        (lambda c: put(c, caption="a caterpillar", instances={"1": "cat"}), r"only as a part of"),
        (lambda c: put(c, interactions=[["1", "pushes", "2"]]), r"interactions: '2' is not among"),
        (lambda c: put(c, instances={"1": "box", "01": "blue ball"}), r"two names mean the same"),
        (
            lambda c: put(c, instances={"7": "blue ball", "3": "box"}),
            r"no mask shows '7'; the masks",
        ),
        (lambda c: (c / "a").rename(c / "other"), r"a\.mp4: expected masks in one of a/, a\.npz"),
        (lambda c: (c / "a.npz").write_bytes(b""), r"found a, a\.npz"),
        (lambda c: (c / "a.mov").write_bytes(b""), r"2 videos have this name"),
        (lambda c: (c / "a.mp4").write_bytes(b"x"), r"a\.mp4: .*"),
    ],
)
def test_what_is_wrong_is_said_of_its_clip(
    clips: Path, tmp_path: Path, change: Callable[[Path], object], problem: str, kit: Any
) -> None:
    change(clips)
    summary = convert(clips, tmp_path / "own", masks=MaskOptions())
    assert kit.matches(problem, summary.left_out[0][1])
    assert [sample.id for sample in Dataset(tmp_path / "own").samples] == ["b-1"]


def put(clips: Path, **changes: object) -> None:
    facts = FACTS | {"interactions": []} | changes
    (clips / "a.json").write_text(json.dumps(facts))


def test_names_that_are_no_numbers_and_phrases_said_twice(clips: Path, tmp_path: Path) -> None:
    (clips / "notes.flac").write_bytes(b"x")
    put(clips, instances={"1": "red ball", "obj_3": "blue ball"}, interactions=[])
    summary = convert(clips, tmp_path / "own", masks=MaskOptions())
    assert "a.mp4: the caption says 'red ball' 2 times, all taken for id1" in summary.notes
    assert "1 files belong to no video and are left aside: notes.flac" in summary.notes
    assert [one.id for one in Dataset(tmp_path / "own").samples[0].instances] == ["id1", "id3"]


def test_folders_without_videos_and_options_without_masks(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MatrixError, match="0 videos are in this folder; it holds nothing"):
        convert(tmp_path / "empty", tmp_path / "own", masks=MaskOptions())
    with pytest.raises(MatrixError, match="masks are made into our layout alone"):
        run(ConvertCommand(clips, tmp_path / "own", layout="masks", to="authors"))
    for stride in (0, -1):  # masks of later frames would land before the first
        with pytest.raises(MatrixError, match=rf"stride: expected .* 1 or more, not {stride}"):
            run(ConvertCommand(clips, tmp_path / "own", layout="masks", stride=stride))
    with pytest.raises(MatrixError, match="Add --from masks"):
        run(ConvertCommand(clips, tmp_path / "own", stride=2))
    assert not (tmp_path / "own").exists()


def test_the_page_cuts_video_and_masks_together(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(clips, tmp_path / "data/own", masks=MaskOptions())
    page = Path(__file__).parents[3] / "docs/own-data.md"
    (code, *_) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    sizes = {"(0, 128, 720, 1024)": "(0, 8, 32, 16)", "(480, 720)": "(16, 32)"}
    for shown, small in sizes.items():
        assert shown in code
        code = code.replace(shown, small)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert check_datasets([tmp_path / "data/cut"]).ok
    cut = Dataset(tmp_path / "data/cut")[0]
    assert cut.video.size == cut.tracks["id1"].mask(0).shape == (16, 32)
    assert cut.tracks["id1"].mask(8)[:, :16].any()  # columns 8 to 15 became 0 to 15
