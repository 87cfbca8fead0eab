"""``matrix generate`` from a pipeline folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.dataset import Dataset
from matrix_video.recipes.generate import GenerateCommand, run


def test_a_pipeline_folder_is_loaded_and_run(prompts: Path, tmp_path: Path) -> None:
    pipe: Any = tiny_pipeline(layers=2)
    pipe.save_pretrained(tmp_path / "model")
    command = GenerateCommand(
        prompts=prompts, out=tmp_path / "run", model=str(tmp_path / "model"), steps=1, limit=2
    )
    assert run(command) == 0
    assert [s.id for s in Dataset(tmp_path / "run" / "dataset").samples] == ["p0", "p1"]
