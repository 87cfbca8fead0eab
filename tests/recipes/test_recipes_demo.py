"""``matrix demo`` from end to end on a random tiny pipeline, and resumed after a kill.

What a random pipeline shows hangs on the last bits of its weights, and so would whom the judge
finds in it. The videos that are labelled are therefore planted: true clips, or such as show nobody.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from matrix_video.analysis.layers import write_choice
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.recipes.demo import DemoCommand, run
from matrix_video.recipes.demo_stages import LOSSES, Stages
from matrix_video.services.errors import MatrixError
from matrix_video.world.captions import vocabulary

from ..report.conftest import layer_choice

SIZES = {
    "analysis_clips": 3,
    "train_clips": 10,
    "val_clips": 2,
    "train_steps": 2,
    "sampling_steps": 2,
    "gallery": 1,
}
GREY = 226


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_pipeline(layers=3, size=64, num_frames=17, vocab=vocabulary()).save_pretrained(folder)
    return folder


def plant(monkeypatch: pytest.MonkeyPatch, *, empty: tuple[int, ...]) -> None:
    """The base "generates" true clips; those in ``empty`` show nobody after their first frame."""
    generate = Stages._generate

    def planted(self: Stages, name: str, prompts: str, adapter: str | None) -> None:
        if name != "base-analysis":
            return generate(self, name, prompts, adapter)
        truth = Dataset(self.path("data", prompts))
        with DatasetWriter(self.path("videos", name, "dataset")) as writer:
            for i, sample in enumerate(truth.samples):
                frames = np.array(truth.video(i).frames_THWC)
                if i in empty:
                    frames[1:] = GREY
                writer.add(sample, frames, 8.0, {}, lossless=True)
        return None

    monkeypatch.setattr(Stages, "_generate", planted)


def test_the_loop_ends_in_a_page_and_resumes(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One video of three shows nobody: it is counted, and the loop goes on."""
    config = DemoCommand(out=tmp_path / "demo", model=str(model), **SIZES)
    plant(monkeypatch, empty=(1,))

    def killed(self: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Stages, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    video = next((tmp_path / "demo/videos/matrix/dataset/videos").iterdir())
    made = video.stat().st_mtime_ns
    assert run(config) == 0
    assert video.stat().st_mtime_ns == made  # what was done is not done again
    printed = capsys.readouterr().out
    for stage in ("render", "label", "analyze", "train-lora", "train-matrix", "report"):
        assert stage in printed
    told = "instances in 1 of 3 videos right after the first frame (analysis-0-000001: id1 "
    assert told in printed
    assert "matrix − lora: IF" in printed
    page = (tmp_path / "demo/report/index.html").read_text()
    for word in ("frozen first frame", "MATRIX", "LoRA", "Held-out AAS"):
        assert word in page
    assert list((tmp_path / "demo/analysis/overlays").glob("val-*.mp4"))
    assert run(config) == 0


def test_it_stops_where_nothing_is_left_and_says_who_lost_whom(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plant(monkeypatch, empty=(0, 1, 2))
    with pytest.raises(MatrixError, match="the oracle judge lost every instance of every video"):
        run(DemoCommand(out=tmp_path / "demo", model=str(model), **SIZES))
    assert (
        "in 3 of 3 videos right after the first frame (analysis-0-000000: id1 "
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("lost", ["sga", "spa"])
def test_a_loss_without_a_layer_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    kinds = {"v2t": (1,), "v2v": (2,), LOSSES[lost]: ()}
    write_choice(tmp_path / "analysis/layers.json", layer_choice(**kinds))
    config = DemoCommand(out=tmp_path, **SIZES)
    settings = Stages(config, Console()).training("m", aligned=True)
    assert getattr(settings, lost) == 0
    assert settings.sga + settings.spa > 0
    assert f"m: no layer was found for {lost.upper()}, so it is off" in capsys.readouterr().out
