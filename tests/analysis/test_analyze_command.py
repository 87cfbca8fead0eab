"""``matrix analyze`` from a pipeline folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.recipes.analyze import AnalyzeCommand, run


def test_the_choice_is_printed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe: Any = tiny_pipeline(layers=2)
    pipe.save_pretrained(tmp_path / "model")
    command = AnalyzeCommand(
        data=data, out=tmp_path / "run", model=str(tmp_path / "model"), levels=1, overlays=0
    )
    assert run(command) == 0
    shown = capsys.readouterr().out
    assert "v2t: layers" in shown
    assert "(by binding)" in shown
    assert "dominance not measured" in shown
    assert (tmp_path / "run" / "layers.json").is_file()
