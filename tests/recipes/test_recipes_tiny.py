"""Settings for the tiny pipeline, and the command line that scripts start them by."""

import runpy
import sys
from pathlib import Path

import pytest
import yaml

from matrix_video.recipes.tiny import tiny_training

HERE = {"data": Path("d"), "out": Path("o"), "layers": Path("l.json")}


def test_rows_of_a_comparison_differ_in_what_they_compare_alone() -> None:
    full = tiny_training(**HERE).model_dump()
    plain = tiny_training(**HERE, aligned=False).model_dump()
    without = tiny_training(**HERE, id_map=False).model_dump()
    assert {key for key in full if full[key] != plain[key]} == {"sga", "spa"}
    assert (plain["sga"], plain["spa"]) == (0, 0)
    assert {key for key in full if full[key] != without[key]} == {"id_map"}


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (3, 1), (120, 30), (800, 200), (2000, 200)])
def test_a_short_run_is_scored_and_saved_on_its_way_too(steps: int, every: int) -> None:
    config = tiny_training(**HERE, steps=steps)
    assert config.steps == steps
    assert config.heldout_every == config.checkpoint_every == every


def test_it_runs_as_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "matrix_video.recipes.tiny"
    options = ["--data", str(tmp_path), "--out", str(tmp_path / "o"), "--layers", "l.json"]
    monkeypatch.setattr(sys, "argv", [module, *options, "--no-aligned"])
    monkeypatch.delitem(sys.modules, module)
    with pytest.raises(SystemExit, match=f"recipes.tiny: {tmp_path}: .* no metadata.jsonl"):
        runpy.run_module(module, run_name="__main__")
    stored = yaml.safe_load((tmp_path / "o/config.yaml").read_text())
    assert stored["command"] == "train"
    assert (stored["sga"], stored["id_map"]) == (0.0, True)
