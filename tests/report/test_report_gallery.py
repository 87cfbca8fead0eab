"""From generation runs to the gallery: which prompts, whose clips, and where ground truth lies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from matrix_video.data.dataset import DatasetWriter
from matrix_video.data.sample import Sample
from matrix_video.data.video import write_video
from matrix_video.report.collect import collect
from matrix_video.report.content import ReportContent
from matrix_video.services.errors import MatrixError
from matrix_video.services.run import RunFolder

FRAMES = np.zeros((3, 16, 16, 3), dtype=np.uint8)


class Settings(BaseModel):
    prompts: Path
    out: Path | None = None


def dataset(path: Path, names: Sequence[str]) -> Path:
    with DatasetWriter(path) as writer:
        for name in names:
            sample = Sample(id=name, file_name=f"videos/{name}.mp4", caption=f"a ball, clip {name}")
            writer.add(sample, FRAMES, 8.0, {}, lossless=True)
    return path


def generation(path: Path, prompts: Path, names: Sequence[str], out: Path | None = None) -> Path:
    with RunFolder.open(path, Settings(prompts=prompts, out=out), command="generate") as run:
        dataset(run.path / "dataset", names)
    return path


def page(*runs: Path, prompts: int = 8) -> ReportContent:
    return collect([(run.name, run) for run in runs], title="t", prompts=prompts)


def clips(content: ReportContent) -> list[str]:
    """Labels in the first card."""
    return [clip.label for clip in content.gallery[0].clips]


def test_the_gallery_takes_the_first_prompts_that_all_runs_have(tmp_path: Path) -> None:
    truth = dataset(tmp_path / "val", "abcd")
    base = generation(tmp_path / "base", truth, "abc")
    lora = generation(tmp_path / "lora", truth, "dcb")
    write_video(base / "overlays" / "b_v2t_layer05.mp4", FRAMES, 8.0)
    content = page(base, lora, prompts=1)
    (item,) = content.gallery
    assert item.sample.id == "b"
    assert clips(content) == ["ground truth", "base", "lora"]
    assert [clip.reference for clip in item.clips] == [True, False, False]
    assert item.clips[2].video == lora / "dataset" / "videos" / "b.mp4"
    assert [overlay.label for overlay in item.overlays] == ["base, V2T, layer 5"]
    assert content.gallery_note == "The first 1 of 2 prompts; none was picked."
    assert content.missing["gallery"] == (
        "answers for base: no evaluation of its videos was given",
        "answers for lora: no evaluation of its videos was given",
    )
    none = page(base, lora, prompts=0)
    assert none.gallery == ()
    assert none.missing["gallery"][-1] == "clips: none were asked for"
    apart = page(generation(tmp_path / "a", truth, "a"), generation(tmp_path / "d", truth, "d"))
    assert apart.missing["gallery"][-1] == "clips: the generation runs share no prompt"


def test_a_prompt_set_that_is_lost_or_lost_a_prompt_is_not_shown(tmp_path: Path) -> None:
    truth = dataset(tmp_path / "val", "ac")
    content = page(generation(tmp_path / "base", truth, "abc"))
    assert [clip.label for item in content.gallery for clip in item.clips] == ["base"] * 3
    line = f"ground truth: the prompt set {truth} no longer has b"
    assert line in content.missing["gallery"]
    assert "maps over the clips: no run has overlays of these prompts" in content.missing["gallery"]
    # The lost one has no card.
    assert clips(page(tmp_path / "base", prompts=1)) == ["ground truth", "base"]
    lost = page(generation(tmp_path / "lora", tmp_path / "gone", "a"))
    assert clips(lost) == ["lora"]
    line = f"ground truth: the prompt set {tmp_path / 'gone'} is not there"
    assert line in lost.missing["gallery"]


def test_a_run_without_settings_names_no_prompt_set(tmp_path: Path) -> None:
    truth = dataset(tmp_path / "val", "a")
    dataset(tmp_path / "copied" / "dataset", "a")
    content = page(tmp_path / "copied")
    assert clips(content) == ["copied"]
    line = "ground truth: the generation runs have no settings, which name the prompt set"
    assert line in content.missing["gallery"]
    named = generation(tmp_path / "named", truth, "a")
    assert clips(page(tmp_path / "copied", named)) == ["ground truth", "copied", "named"]


def test_different_prompt_sets_are_refused(tmp_path: Path) -> None:
    one = generation(tmp_path / "one", tmp_path / "val", "a")
    two = generation(tmp_path / "two", tmp_path / "test", "a")
    paths = re.escape(f"{tmp_path / 'test'}, {tmp_path / 'val'}")
    with pytest.raises(MatrixError, match=f"different prompt sets \\({paths}\\)"):
        page(one, two)


def test_relative_settings_start_where_the_run_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, elsewhere = tmp_path / "made", tmp_path / "elsewhere"
    elsewhere.mkdir()
    dataset(made / "data" / "val", "a")
    monkeypatch.chdir(made)
    generation(Path("runs/base"), Path("data/val"), "a", out=Path("runs/base"))
    generation(Path("runs/lora"), made / "data" / "val", "a", out=made / "runs" / "lora")
    monkeypatch.chdir(elsewhere)
    for base in (Path("../made/runs/base"), made / "runs" / "base"):
        content = page(base, made / "runs" / "lora")
        assert clips(content) == ["ground truth", "base", "lora"]
        assert content.runs[0].named_data == "data/val"
    # Moved away from its data, the run finds them in the working directory alone.
    moved = (made / "runs").rename(elsewhere / "runs") / "base"
    line = f"ground truth: the prompt set {elsewhere / 'data' / 'val'} is not there"
    assert line in page(moved).missing["gallery"]
    monkeypatch.chdir(made)
    assert clips(page(moved)) == ["ground truth", "base"]
