"""``matrix check``: what is printed, and the exit code."""

from pathlib import Path

import pytest

from matrix_video.recipes.check import CheckCommand, run
from matrix_video.world.write import write_split


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check") / "val"
    write_split(path, 3, 0, "val")
    return path


def _check(capsys: pytest.CaptureFixture[str], *paths: Path) -> tuple[int, list[str]]:
    code = run(CheckCommand(paths[0], paths[1:]))
    return code, capsys.readouterr().out.splitlines()


def test_a_sound_data_set_is_summed_up(val: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = _check(capsys, val)
    assert code == 0
    assert lines[-1].startswith("val: 3 samples")


def test_a_problem_is_one_line_with_file_field_and_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_split(tmp_path, 2, 0, "val")
    missing = sorted((tmp_path / "videos").iterdir())[0]
    missing.unlink()
    code, lines = _check(capsys, tmp_path)
    assert code == 1
    (problem,) = [line for line in lines if line.startswith("problem: ")]
    assert str(missing) in problem
    assert "there is no such video file. Check the path" in problem


def test_shared_scenes_are_a_problem(
    val: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_split(tmp_path / "other", 3, 0, "test-composition")
    assert _check(capsys, val, tmp_path / "other")[0] == 0
    write_split(tmp_path / "again", 2, 0, "val")
    code, lines = _check(capsys, val, tmp_path / "again")
    assert code == 1
    assert any("scene" in line for line in lines if line.startswith("problem: "))
