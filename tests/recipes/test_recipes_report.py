"""``matrix report``: from folders named on the command line to a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix_video.recipes.report import ReportCommand, named_runs, run
from matrix_video.services.errors import MatrixError


def test_the_page_has_the_runs_under_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.yaml").write_text("command: train\n")
    command = ReportCommand(out=tmp_path / "page", runs=(f"LoRA={tmp_path / 'm'}",), title="Mine")
    assert run(command) == 0
    page = tmp_path / "page" / "index.html"
    assert f"report: {page}" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert "<title>Mine</title>" in text
    assert "Not shown: loss curves of LoRA: it logged no step." in text


def test_names_are_given_or_taken_from_the_folder() -> None:
    # As many parts of the path as tell it from others of one name.
    named = named_runs(("base/scores", "X=other/scores", "lora/scores", "lora/videos/"))
    assert named == (
        ("base/scores", Path("base/scores")),
        ("X", Path("other/scores")),
        ("lora/scores", Path("lora/scores")),
        ("videos", Path("lora/videos")),
    )
    for text in ("=runs/lora", "LoRA="):
        with pytest.raises(MatrixError, match=f"runs: '{text}' lacks a name or a folder"):
            named_runs((text,))
