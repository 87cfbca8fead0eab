"""``matrix world``: the wire from options to files, and refused values."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from matrix_video import cli
from matrix_video.data.dataset import Dataset
from matrix_video.recipes.world import WorldCommand, run


def test_options_reach_the_renderer(tmp_path: Path) -> None:
    assert run(WorldCommand(out=tmp_path / "a", clips=2, seed=5, split="analysis")) == 0
    samples = Dataset(tmp_path / "a").samples
    assert [sample.id for sample in samples] == ["analysis-5-000000", "analysis-5-000001"]


def test_the_configuration_is_frozen(tmp_path: Path) -> None:
    config = WorldCommand(out=tmp_path)
    with pytest.raises(ValidationError, match="frozen"):
        config.clips = 3  # type: ignore[misc]


@pytest.mark.parametrize(("option", "value", "least"), [("clips", "0", 1), ("seed", "-1", 0)])
def test_a_number_too_small_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, least: int
) -> None:
    out = tmp_path / "w"
    with pytest.raises(SystemExit) as end:
        cli.main(["world", "--out", str(out), f"--{option}", value])
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert option in told
    assert f"greater than or equal to {least}" in told
    assert not out.exists()


def test_a_split_that_is_not_there_lists_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["world", "--out", "w", "--split", "test"])
    assert end.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "test-iid" in told
    assert "test-composition" in told
