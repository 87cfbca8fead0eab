"""Wan's schedule: where timesteps are drawn and measured, whole and by expert."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.backbones.wan_schedule import Expert, WanSchedule
from matrix_video.services.errors import MatrixError


def schedule(
    expert: Expert = "high", boundary: float | None = None, shift: float = 5.0
) -> WanSchedule:
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    return WanSchedule(scheduler, expert, boundary)


def test_shift_is_that_of_the_scheduler_now() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    found = WanSchedule(scheduler, "high", None)
    assert found.shift == 3.0
    scheduler.set_shift(7.0)
    assert found.shift == 7.0
    assert schedule(shift=5.0).shift == 5.0


def test_levels_are_those_of_the_stock_schedule() -> None:
    """Middles of 4 parts are every other edge of 8."""
    found = schedule()
    found.scheduler.set_timesteps(sigmas=np.array([7, 5, 3, 1]) / 8)
    expected = found.scheduler.sigmas[:-1].flip(0) * 1000
    torch.testing.assert_close(found.levels(4), expected.float())
    assert found.levels(1).tolist() == [pytest.approx(1000 * 2.5 / 3)]


@pytest.mark.parametrize("count", [0, 1001])
def test_number_of_levels(count: int) -> None:
    with pytest.raises(MatrixError, match=rf"{count} noise levels of a schedule with 1000 steps"):
        schedule().levels(count)


@given(boundary=st.floats(0.05, 0.95), shift=st.floats(0.5, 12.0), count=st.integers(1, 50))
def test_experts_part_the_schedule(boundary: float, shift: float, count: int) -> None:
    high = schedule("high", boundary, shift)
    low = schedule("low", boundary, shift)
    assert low.part[0] == 0.0
    assert low.part[1] == high.part[0]
    assert high.part[1] == 1.0
    g = torch.Generator().manual_seed(count)
    edge, rounding = 1000 * boundary, 1e-3
    for found, start, end in ((low, 0.0, edge), (high, edge, 1000.0)):
        levels, drawn = found.levels(count), found.sample(count, g)
        assert bool((levels.diff() > 0).all())
        for t in (levels, drawn):
            assert t.shape == (count,)
            assert start - rounding <= float(t.min())
            assert float(t.max()) <= end + rounding


def test_samples_are_logit_normal_before_the_shift() -> None:
    found = schedule()
    drawn = found.sample(4000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, found.sample(4000, torch.Generator().manual_seed(0)))
    sigma = drawn.double() / 1000
    normal = torch.logit(sigma / (5 - 4 * sigma)).sort().values
    # Kolmogorov-Smirnov at a level of one in ten thousand.
    share = torch.arange(1, 4001, dtype=torch.float64) / 4000
    assert float((torch.special.ndtr(normal) - share).abs().max()) < 2.2 / 4000**0.5


def test_a_draw_of_an_expert_is_a_draw_of_the_whole_in_its_part() -> None:
    whole = schedule().sample(20000, torch.Generator().manual_seed(0))
    for expert, inside in (("high", whole[whole >= 900]), ("low", whole[whole < 900])):
        own = schedule(expert, 0.9).sample(5000, torch.Generator().manual_seed(1))
        for q in (0.1, 0.5, 0.9):
            assert abs(float(own.quantile(q) - inside.quantile(q))) < 15
