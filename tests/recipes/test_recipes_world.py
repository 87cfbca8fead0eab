"""``matrix world``: the wire from options to files, and refused values."""

from pathlib import Path

import pytest

from matrix_video import cli
from matrix_video.data.dataset import Dataset
from matrix_video.recipes.world import WorldCommand, run


def test_options_reach_the_renderer(tmp_path: Path) -> None:
    assert run(WorldCommand(out=tmp_path / "a", clips=2, seed=5, split="analysis")) == 0
    samples = Dataset(tmp_path / "a").samples
    assert [sample.id for sample in samples] == ["analysis-5-000000", "analysis-5-000001"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--clips 0", ["clips", "greater than or equal to 1"]),
        ("--seed -1", ["seed", "greater than or equal to 0"]),
        ("--split test", ["test-iid", "test-composition"]),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, told: list[str]
) -> None:
    out = tmp_path / "w"
    with pytest.raises(SystemExit) as end:
        cli.main(["world", "--out", str(out), *options.split()])
    assert end.value.code == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert all(one in printed for one in told)
    assert not out.exists()


def test_it_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {
        3: "3 clips written, 0 were there",
        4: "1 clips written, 3 were there",
        2: "0 clips written, 4 were there; it keeps 2 more than were asked for",
    }
    for clips, line in told.items():
        assert run(WorldCommand(out=tmp_path / "w", clips=clips)) == 0
        assert capsys.readouterr().out == f"{tmp_path}/w: {line}\n"
