"""Settings for the tiny pipeline."""

from pathlib import Path

import pytest

from matrix_video.recipes.tiny import tiny_training

HERE = {"data": Path("d"), "out": Path("o"), "layers": Path("l.json")}


def test_rows_of_a_comparison_differ_in_what_they_compare_alone() -> None:
    full = tiny_training(**HERE).model_dump()
    plain = tiny_training(**HERE, aligned=False).model_dump()
    assert {key for key in full if full[key] != plain[key]} == {"sga", "spa"}
    assert (plain["sga"], plain["spa"]) == (0, 0)


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (3, 1), (120, 30), (800, 200), (2000, 200)])
def test_a_short_run_is_scored_and_saved_on_its_way_too(steps: int, every: int) -> None:
    config = tiny_training(**HERE, steps=steps)
    assert config.steps == steps
    assert config.heldout_every == config.checkpoint_every == every
