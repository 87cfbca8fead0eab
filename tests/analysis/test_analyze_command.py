"""``matrix analyze`` from a pipeline folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from matrix_video.analysis.layers import read_choice
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
    choice = read_choice(tmp_path / "run" / "layers.json")
    for group in choice.evidence.groups:  # each layer with its own figures, not the best one's
        for layer in choice.layers(group.kind):
            own = group.layers[layer]
            cells = (group.kind, layer, group.words, f"{own.aas:.3f}", f"{own.log_lift:+.2f}")
            assert re.search(" +│ ".join(re.escape(str(cell)) for cell in cells), shown), cells
    assert "(influential, in order of binding contrast; dominance was not measured)" in shown
    assert "dominance not measured" in shown
    assert (tmp_path / "run" / "layers.json").is_file()
