"""The log-lift that the decoder starts from, against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.alignment.lift import log_lift
from matrix_video.attention.scores import LIMIT


def positive_maps(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) + 1e-3


def test_log_lift_is_log_of_share_over_chance() -> None:
    maps = positive_maps(0, 2, 3, 10)
    lift = log_lift(maps)
    for b in range(2):
        for r in range(3):
            for n in range(10):
                share = maps[b, r, n].item() / sum(maps[b, r].tolist())
                assert lift[b, r, n].item() == pytest.approx(math.log(share * 10), abs=1e-12)


@given(st.floats(1e-9, 1e9), st.integers(0, 100))
def test_log_lift_ignores_the_mass(scale: float, seed: int) -> None:
    maps = positive_maps(seed, 1, 1, 12)
    torch.testing.assert_close(log_lift(maps * scale), log_lift(maps))


def test_log_lift_is_clipped_both_ways_and_padding_is_finite() -> None:
    maps = torch.full((2, 1000), 1e-12, dtype=torch.float64)
    maps[0, 0] = 1.0
    maps[1] = 0.0
    lift = log_lift(maps)
    assert lift[0, 0] == LIMIT
    assert torch.all(lift[0, 1:] == -LIMIT)
    assert torch.all(lift[1] == -LIMIT)


def test_logits_mode_is_the_lift_of_the_exponential() -> None:
    logits = torch.randn(2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(log_lift(logits + 500.0, mode="logits"), log_lift(logits.exp()))


@pytest.mark.parametrize("mode", ["probabilities", "logits"])
def test_log_lift_gradient(mode: str) -> None:
    maps = positive_maps(2, 2, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: log_lift(m, mode=mode), maps)  # pyright: ignore


def test_low_precision_maps_are_lifted_in_float32() -> None:
    assert log_lift(positive_maps(3, 4, 16).to(torch.bfloat16)).dtype == torch.float32
