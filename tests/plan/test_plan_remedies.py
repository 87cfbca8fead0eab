"""What is proposed when a run does not fit."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from matrix_video.plan.config import PlanConfig
from matrix_video.plan.predict import Planner, Prediction
from matrix_video.plan.remedies import changes, remedies

Plan = Callable[..., Prediction]
BILLION = 10**9


@pytest.fixture
def base(plan: Plan) -> Prediction:
    """A training that takes 100 GB, of which `predict` below knows more."""
    found = plan(batch=8)
    return replace(found, total=100 * BILLION)


def predict(config: PlanConfig, base: Prediction) -> Prediction:
    """Half with one sample, 10 GB less with recomputing, 5 without maps, 1 more in bfloat16; an
    8-bit base saves 2 with recomputing and costs 2 without."""
    total = (100 if config.batch == 8 else 50) - 10 * config.gradient_checkpointing
    total += (config.precision == "bf16") - 5 * (not config.aligned)
    total -= 2 * (config.quantize == "int8") * (1 if config.gradient_checkpointing else -1)
    return replace(base, config=config, total=total * BILLION)


def test_remedies_come_cheapest_first_with_what_they_save(base: Prediction) -> None:
    found, way = remedies(base, 100 * BILLION, lambda c: predict(c, base), lambda _: False)
    assert way is None
    planned = [(remedy.how, remedy.saved // BILLION) for remedy in found]
    assert planned == [
        ("--micro-batch 1", 50), ("--gradient-checkpointing", 10), ("--sga 0 --spa 0", 5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("budget", "how", "fits"),
    [
        (60, ("--micro-batch 1",), True),
        (45, ("--micro-batch 1", "--gradient-checkpointing"), True),
        (39, ("--micro-batch 1", "--gradient-checkpointing", "--quantize int8"), True),
        (30, ("--micro-batch 1", "--gradient-checkpointing", "--quantize int8"), False),
    ],
)
def test_a_way_takes_no_more_than_it_needs(
    base: Prediction, budget: int, how: tuple[str, ...], fits: bool
) -> None:
    _, way = remedies(base, budget * BILLION, lambda c: predict(c, base), lambda _: False)
    assert way is not None
    assert (way.how, way.fits) == (how, fits)


@pytest.mark.parametrize("where", ["decode", "encode a clip", "losses"])
def test_tiles_are_proposed_where_the_vae_has_the_peak(base: Prediction, where: str) -> None:
    hows = [change.how for change in changes(replace(base, where=where), lambda _: False)]
    assert ("--tiling" in hows) == (where != "losses")


def test_only_sizes_that_the_model_takes_are_tried(planner: Planner, base: Prediction) -> None:
    tried = {change.title: change.update for change in changes(base, planner.takes)}
    assert tried["fewer frames"]["num_frames"] == 1  # 9 frames or 1, nothing between
    assert (tried["smaller frames"]["height"], tried["smaller frames"]["width"]) == (16, 16)
