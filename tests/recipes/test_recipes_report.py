"""``matrix report``: from folders named on the command line to a page with real differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from matrix_video import cli
from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.evaluation.run import EvaluateConfig, evaluate
from matrix_video.evaluation.scores import read_scores
from matrix_video.evaluation.scoring import paired_difference
from matrix_video.recipes.report import ReportCommand, named_runs, run
from matrix_video.services.errors import MatrixError
from matrix_video.world.write import write_split


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_split(folder / "val", 3, 5, "val")
    truth = Dataset(folder / "val")
    with DatasetWriter(folder / "frozen") as writer:
        for i, sample in enumerate(truth.samples):
            frames = truth.video(i).frames_THWC
            held = np.repeat(frames[:1], len(frames), axis=0)
            writer.add(sample, held, 8.0, {}, lossless=True)
    for name in ("frozen", "val"):
        out = folder / f"scores-{name}"
        evaluate(EvaluateConfig(videos=folder / name, prompts=folder / "val", out=out, nulls=False))
    return folder


def test_the_page_has_the_paired_difference(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = (f"frozen={root / 'scores-frozen'}", f"truth={root / 'scores-val'}")
    assert run(ReportCommand(out=tmp_path / "page", runs=runs, title="Ceiling")) == 0
    page = tmp_path / "page" / "index.html"
    assert f"report: {page}" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    ours, theirs = (read_scores(root / f"scores-{name}").videos for name in ("val", "frozen"))
    found = paired_difference(ours, theirs, "if")
    assert f"+{found.mean:.3f}" in text
    assert "truth − frozen" in text
    assert "Too small to tell rows apart: 3 videos a row." in text
    assert "Not shown: null rows: not evaluated." in text


def test_names_are_given_or_taken_from_the_folder(tmp_path: Path) -> None:
    (tmp_path / "matrix").mkdir()
    assert named_runs(("LoRA=runs/lora", f"{tmp_path}/matrix/")) == (
        ("LoRA", Path("runs/lora")),
        ("matrix", tmp_path / "matrix"),
    )
    # As many parts of the path as tell it from others of one name.
    named = named_runs(("base/scores", "X=other/scores", "lora/scores", "lora/videos"))
    assert [name for name, _ in named] == ["base/scores", "X", "lora/scores", "videos"]
    for text in ("=runs/lora", "LoRA="):
        with pytest.raises(MatrixError, match=f"runs: '{text}' lacks a name or a folder"):
            named_runs((text,))


def test_a_wrong_number_of_prompts_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValidationError, match=r"prompts\n.*greater than or equal to 0"):
        ReportCommand(out=tmp_path, runs=(), prompts=-1)
    with pytest.raises(SystemExit) as end:
        cli.main(["report", "--out", str(tmp_path / "page"), "--runs", "x", "--prompts", "-1"])
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert "prompts" in told
    assert "greater than or equal to 0" in told
    assert not (tmp_path / "page").exists()


def test_the_command_is_frozen_and_knows_its_fields(tmp_path: Path) -> None:
    command = ReportCommand(out=tmp_path, runs=("a",))
    assert (command.title, command.prompts) == ("MATRIX", 8)
    with pytest.raises(ValidationError, match="frozen"):
        command.prompts = 3  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValidationError, match=r"prompt\n.*Extra inputs are not permitted"):
        ReportCommand.model_validate({"out": tmp_path, "runs": ("a",), "prompt": 3})
