"""``matrix world``: the wire from options to files."""

from pathlib import Path

from matrix_video.data.dataset import Dataset
from matrix_video.recipes.world import WorldCommand, run


def test_options_reach_the_renderer(tmp_path: Path) -> None:
    assert run(WorldCommand(tmp_path / "a", clips=2, seed=5, split="analysis")) == 0
    samples = Dataset(tmp_path / "a").samples
    assert [sample.id for sample in samples] == ["analysis-5-000000", "analysis-5-000001"]
