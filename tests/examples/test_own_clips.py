"""The example for clips of one's own: videos, texts and pictures become a data set that trains."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.check import check_datasets
from matrix_video.data.dataset import Dataset
from matrix_video.data.spans import phrases
from matrix_video.data.tracks import State
from matrix_video.data.video import write_video
from matrix_video.training.config import TrainConfig
from matrix_video.training.run import train

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "own_clips.py"
PAGE = ROOT / "docs/own-data.md"
CAPTION = "the red ball pushes the blue ball, the other red ball follows the box"
FACTS = {
    "caption": CAPTION,
    "instances": {"1": "red ball", "3": "blue ball", "4": "red ball"},
    "interactions": [["1", "pushes", "3"], ["4", "follows", "3"]],
}


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    for name in ("a", "b"):
        numbers_THW = np.zeros((9, 32, 32), np.uint8)
        for t in range(9):
            numbers_THW[t, 2:10, t : t + 8] = 1
            numbers_THW[t, 2:10, 20:28] = 3
            numbers_THW[t, 20:28, 4:12] = 4
        frames_THWC = np.repeat(60 * numbers_THW[..., None], 3, axis=-1)
        (folder / name).mkdir(parents=True)
        write_video(folder / f"{name}.mp4", frames_THWC, 8.0)
        (folder / f"{name}.json").write_text(json.dumps(FACTS))
        for t in range(9):
            if t != 5:  # one frame that nobody annotated
                picture = Image.fromarray(numbers_THW[t], mode="P")
                picture.putpalette([*range(256)] * 3)
                picture.save(folder / name / f"{t:05d}.png")
    return folder


def run(clips: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(clips), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_clips_become_a_data_set_that_trains(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "own"
    done = run(clips, out)
    assert (done.returncode, done.stdout) == (0, f"2 clips in {out}\n"), done.stderr
    assert check_datasets([out]).ok
    data = Dataset(out)
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
    assert run(clips, out).stdout == f"2 clips in {out}\n"  # again: nothing is done twice
    settings = TrainConfig(
        data=out, out=tmp_path / "run", v2t=(0,), v2v=(1,), steps=1, batch=2, heldout_samples=0
    )
    assert train(settings, tiny_pipeline(0)).steps == 1


def test_the_page_cuts_video_and_masks_together(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(clips, tmp_path / "data/own")
    (code, *_) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
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


def test_a_caption_without_the_phrase_is_named(clips: Path, tmp_path: Path) -> None:
    twice = FACTS | {"instances": {"1": "red ball", "3": "blue ball", "4": "box", "5": "box"}}
    (clips / "b.json").write_text(json.dumps(twice))
    done = run(clips, tmp_path / "own")
    assert done.returncode == 1
    assert f"'{CAPTION}' does not hold 'box' (again)" in done.stderr
