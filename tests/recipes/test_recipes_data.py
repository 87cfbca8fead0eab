"""``matrix world``, ``convert`` and ``check``: what they print, and the exit code."""

from pathlib import Path

import pytest

from matrix_video.data.dataset import Dataset
from matrix_video.recipes.check import CheckCommand
from matrix_video.recipes.check import run as check
from matrix_video.recipes.convert import ConvertCommand
from matrix_video.recipes.convert import run as convert
from matrix_video.recipes.world import WorldCommand
from matrix_video.recipes.world import run as world
from matrix_video.world.write import write_split


def test_world_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "w"
    told = {
        3: "3 clips written, 0 were there",
        4: "1 clips written, 3 were there",
        2: "0 clips written, 4 were there; it keeps 2 more than were asked for",
    }
    for clips, line in told.items():
        assert world(WorldCommand(out=out, clips=clips, seed=5, split="analysis")) == 0
        assert capsys.readouterr().out == f"{out}: {line}\n"
    assert Dataset(out).samples[3].id == "analysis-5-000003"


def test_convert_tells_what_it_made_and_what_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    write_split(ours, 2, 0, "val")
    (ours / "tracks/val-0-000001.json").write_text("{")
    assert convert(ConvertCommand(ours, theirs)) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{theirs}: 1 clips and ")
    assert "left out: val-0-000001: " in told
    assert "1 clips were left out, see " in told
    assert convert(ConvertCommand(theirs, tmp_path / "again", to="matrix")) == 0


def test_check_exits_with_1_where_there_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        write_split(folder, 2, 0, "val")
    assert check(CheckCommand(one)) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("one: 2 samples")
    assert check(CheckCommand(one, (two,))) == 1
    assert f"problem: {two}/metadata.jsonl: line 1: scene: " in capsys.readouterr().out
