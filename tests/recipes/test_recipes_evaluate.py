"""``matrix evaluate``: the table and the paired difference it prints."""

from pathlib import Path

import pytest

from matrix_video.cli import parse
from matrix_video.data.dataset import Dataset
from matrix_video.recipes.evaluate import EvaluateCommand, run
from matrix_video.world.write import write_split


def test_table_null_rows_and_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    write_split(tmp_path / "val", 3, 0, "val")
    first = EvaluateCommand(videos=tmp_path / "val", prompts=tmp_path / "val", out=tmp_path / "one")
    assert run(first) == 0
    printed = capsys.readouterr().out
    for row in ("one", "frozen first frame", "another prompts clip", "straight drift"):
        assert row in printed
    assert (
        run(
            EvaluateCommand(
                videos=tmp_path / "val",
                prompts=tmp_path / "val",
                out=tmp_path / "two",
                nulls=False,
                against=(tmp_path / "one",),
                tracked=True,
            )
        )
        == 0
    )
    assert len(Dataset(tmp_path / "two/tracked")) == 3
    printed = capsys.readouterr().out
    assert "two − one: IF 0.000 [0.000, 0.000] over 3 videos, not resolved" in printed


def test_the_command_line_gives_the_settings() -> None:
    name, config = parse(
        ["evaluate", "--videos", "a", "--prompts", "b", "--out", "c", "--against", "d", "e"]
    )
    assert name == "evaluate"
    assert config.against == (Path("d"), Path("e"))
