"""Shared map scores against loops in float64."""

from __future__ import annotations

import pytest
import torch

from matrix_video.attention.scores import aas, frame_share


def positive_maps(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) + 1e-3


def test_low_precision_maps_are_scored_in_float32() -> None:
    maps = positive_maps(3, 4, 16).to(torch.bfloat16)
    assert frame_share(maps.reshape(4, 2, 2, 4), torch.ones(2, 2, 4, dtype=torch.bool)).dtype == (
        torch.float32
    )


def test_aas_counts_visible_frames_only() -> None:
    maps = positive_maps(4, 3, 2, 2)
    mask = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(5)) < 0.5
    visible = torch.tensor([True, False, True])
    shares: list[float] = []
    for f in range(3):
        mass = inside = 0.0
        for y in range(2):
            for x in range(2):
                mass += maps[f, y, x].item()
                inside += maps[f, y, x].item() if mask[f, y, x] else 0.0
        shares.append(inside / mass)
    assert aas(maps, mask, visible).item() == pytest.approx((shares[0] + shares[2]) / 2, abs=1e-12)


def test_aas_bounds_and_nothing_visible() -> None:
    maps = positive_maps(6, 2, 2, 2)
    everywhere = torch.ones(2, 2, 2, dtype=torch.bool)
    both = torch.tensor([True, True])
    assert aas(maps, everywhere, both).item() == pytest.approx(1.0, abs=1e-12)
    assert aas(maps, ~everywhere, both).item() == 0.0
    assert aas(maps, everywhere, ~both).isnan()
    assert aas(torch.zeros_like(maps), everywhere, both).item() == 0.0
