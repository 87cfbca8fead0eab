"""From generation runs to the gallery: which prompts, whose clips, and where ground truth lies."""

from __future__ import annotations

import re
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


class Settings(BaseModel):
    prompts: Path
    out: Path | None = None


def prompt(name: str) -> Sample:
    return Sample(id=name, file_name=f"videos/{name}.mp4", caption=f"a ball, clip {name}")


def dataset(path: Path, names: tuple[str, ...]) -> Path:
    frames = np.zeros((3, 16, 16, 3), dtype=np.uint8)
    with DatasetWriter(path) as writer:
        for name in names:
            writer.add(prompt(name), frames, 8.0, {}, lossless=True)
    return path


def generation(
    path: Path, prompts: Path, names: tuple[str, ...], *, out: Path | None = None
) -> Path:
    with RunFolder.open(path, Settings(prompts=prompts, out=out), command="generate") as run:
        dataset(run.path / "dataset", names)
    return path


def names(content: ReportContent) -> list[str]:
    return [item.sample.id for item in content.gallery]


def test_the_gallery_takes_the_first_prompts_that_all_runs_have(tmp_path: Path) -> None:
    truth = dataset(tmp_path / "val", ("a", "b", "c", "d"))
    base = generation(tmp_path / "base", truth, ("a", "b", "c"))
    lora = generation(tmp_path / "lora", truth, ("d", "c", "b"))
    write_video(base / "overlays" / "b_v2t_layer05.mp4", np.zeros((2, 16, 16, 3), np.uint8), 8.0)
    content = collect([("base", base), ("LoRA", lora)], title="t", prompts=1)
    assert names(content) == ["b"]
    (item,) = content.gallery
    assert [clip.label for clip in item.clips] == ["ground truth", "base", "LoRA"]
    assert [clip.reference for clip in item.clips] == [True, False, False]
    assert item.clips[2].video == lora / "dataset" / "videos" / "b.mp4"
    assert [overlay.label for overlay in item.overlays] == ["base, V2T, layer 5"]
    assert content.gallery_note == "The first 1 of 2 prompts; none was picked."
    assert content.missing["gallery"] == (
        "answers for base: no evaluation of its videos was given",
        "answers for LoRA: no evaluation of its videos was given",
    )


def test_a_lost_prompt_set_is_named(tmp_path: Path) -> None:
    base = generation(tmp_path / "base", tmp_path / "gone", ("a",))
    content = collect([("base", base)], title="t")
    assert [clip.label for clip in content.gallery[0].clips] == ["base"]
    assert (
        f"ground truth: the prompt set {tmp_path / 'gone'} is not there"
        in content.missing["gallery"]
    )
    assert "maps over the clips: no run has overlays of these prompts" in content.missing["gallery"]


def test_a_prompt_set_that_lost_a_prompt_is_not_shown(tmp_path: Path) -> None:
    truth = dataset(tmp_path / "val", ("a", "c"))
    base = generation(tmp_path / "base", truth, ("a", "b", "c"))
    content = collect([("base", base)], title="t")
    assert [clip.label for item in content.gallery for clip in item.clips] == ["base"] * 3
    line = f"ground truth: the prompt set {truth} no longer has b"
    assert line in content.missing["gallery"]
    first = collect([("base", base)], title="t", prompts=1)  # the lost one has no card
    assert [clip.label for clip in first.gallery[0].clips] == ["ground truth", "base"]


def test_a_run_without_settings_names_no_prompt_set(tmp_path: Path) -> None:
    truth = dataset(tmp_path / "val", ("a",))
    dataset(tmp_path / "copied" / "dataset", ("a",))
    content = collect([("copied", tmp_path / "copied")], title="t")
    assert [clip.label for clip in content.gallery[0].clips] == ["copied"]
    line = "ground truth: the generation runs have no settings, which name the prompt set"
    assert line in content.missing["gallery"]
    named = generation(tmp_path / "named", truth, ("a",))
    content = collect([("copied", tmp_path / "copied"), ("named", named)], title="t")
    assert [c.label for c in content.gallery[0].clips] == ["ground truth", "copied", "named"]


def test_no_prompts_are_shown_when_none_are_asked_for(tmp_path: Path) -> None:
    truth = dataset(tmp_path / "val", ("a",))
    base = generation(tmp_path / "base", truth, ("a",))
    content = collect([("base", base)], title="t", prompts=0)
    assert content.gallery == ()
    assert content.missing["gallery"][-1] == "clips: none were asked for"


def test_runs_without_a_common_prompt_have_no_gallery(tmp_path: Path) -> None:
    runs = [(n, generation(tmp_path / n, tmp_path / "val", (n,))) for n in ("a", "b")]
    content = collect(runs, title="t")
    assert content.gallery == ()
    assert "clips: the generation runs share no prompt" in content.missing["gallery"]


def test_different_prompt_sets_are_refused(tmp_path: Path) -> None:
    one = generation(tmp_path / "one", tmp_path / "val", ("a",))
    two = generation(tmp_path / "two", tmp_path / "test", ("a",))
    paths = re.escape(f"{tmp_path / 'test'}, {tmp_path / 'val'}")
    with pytest.raises(MatrixError, match=f"different prompt sets \\({paths}\\)"):
        collect([("one", one), ("two", two)], title="t")


def test_one_prompt_set_may_be_spelled_in_two_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = dataset(tmp_path / "val", ("a",))
    (tmp_path / "link").symlink_to(truth)
    monkeypatch.chdir(tmp_path)
    spelled = (truth, Path("val"), Path("other/../val"), Path("link"))
    (tmp_path / "other").mkdir()
    runs = [(f"r{i}", generation(tmp_path / f"r{i}", p, ("a",))) for i, p in enumerate(spelled)]
    (item,) = collect(runs, title="t").gallery
    assert [clip.label for clip in item.clips] == ["ground truth", "r0", "r1", "r2", "r3"]
    assert item.clips[0].video == truth / "videos" / "a.mp4"


def test_relative_settings_start_where_the_run_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, elsewhere = tmp_path / "made", tmp_path / "elsewhere"
    elsewhere.mkdir()
    dataset(made / "data" / "val", ("a",))
    monkeypatch.chdir(made)
    generation(Path("runs/base"), Path("data/val"), ("a",), out=Path("runs/base"))
    generation(Path("runs/lora"), made / "data" / "val", ("a",), out=made / "runs" / "lora")
    monkeypatch.chdir(elsewhere)
    for base in (Path("../made/runs/base"), made / "runs" / "base"):
        content = collect([("base", base), ("lora", made / "runs" / "lora")], title="t")
        assert [c.label for c in content.gallery[0].clips] == ["ground truth", "base", "lora"]
        assert content.runs[0].data == "data/val"  # as the settings name it
    # Moved away from its data, the run finds them in the working directory alone.
    (made / "runs").rename(elsewhere / "runs")
    line = "ground truth: the prompt set {} is not there"
    lost = collect([("base", elsewhere / "runs" / "base")], title="t")
    assert line.format(elsewhere / "data" / "val") in lost.missing["gallery"]
    monkeypatch.chdir(made)
    found = collect([("base", elsewhere / "runs" / "base")], title="t")
    assert [c.label for c in found.gallery[0].clips] == ["ground truth", "base"]
