"""Mask loss against plain loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from matrix_video.alignment.losses import MaskLossWeights, mask_loss


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def reference(
    logits: Tensor, target: Tensor, known: Tensor, present: Tensor, weights: MaskLossWeights
) -> list[float]:
    """The docstring of `mask_loss`, one pixel at a time."""
    totals: list[float] = []
    for b in range(logits.shape[0]):
        maps: list[float] = []
        for r in range(logits.shape[1]):
            frames = [t for t in range(logits.shape[2]) if known[b, r, t]]
            if not present[b, r] or not frames:
                continue
            pixels = [
                (z, bool(y))
                for t in frames
                for z, y in zip(
                    logits[b, r, t].flatten().tolist(),
                    target[b, r, t].flatten().tolist(),
                    strict=True,
                )
            ]
            positive = sum(y for _, y in pixels)
            weight = min(10.0, (len(pixels) - positive) / positive) if positive else 1.0
            bce = sum(
                -weight * math.log(sigmoid(z)) if y else -math.log(1 - sigmoid(z))
                for z, y in pixels
            ) / len(pixels)
            l2 = sum((sigmoid(z) - y) ** 2 for z, y in pixels) / len(pixels)
            dice: list[float] = []
            for t in frames:
                if not target[b, r, t].any():
                    continue
                zs = [sigmoid(z) for z in logits[b, r, t].flatten().tolist()]
                ys = target[b, r, t].flatten().tolist()
                overlap = sum(z for z, y in zip(zs, ys, strict=True) if y)
                dice.append(1 - (2 * overlap + 1) / (sum(zs) + sum(ys) + 1))
            mean_dice = sum(dice) / len(dice) if dice else 0.0
            maps.append(weights.bce * bce + weights.dice * mean_dice + weights.l2 * l2)
        totals.append(sum(maps) / len(maps) if maps else 0.0)
    return totals


Case = tuple[Tensor, Tensor, Tensor, Tensor]


def case(seed: int, batch: int = 2, maps: int = 3, frames: int = 3) -> Case:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, maps, frames, 3, 4)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    target = torch.rand(shape, generator=generator) < 0.3
    target &= (torch.rand(shape[:3], generator=generator) < 0.7)[..., None, None]
    known = torch.rand(shape[:3], generator=generator) < 0.7
    present = torch.rand(shape[:2], generator=generator) < 0.8
    return logits, target, known, present


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(1, 1, 0), (1, 0, 0), (0.5, 2, 3), (0, 0, 1)]))
def test_equals_the_definition(seed: int, weights: tuple[float, float, float]) -> None:
    chosen = MaskLossWeights(*weights)
    tensors = case(seed)
    loss = mask_loss(*tensors, chosen)
    assert loss.total_B.tolist() == pytest.approx(reference(*tensors, chosen), abs=1e-12)


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_unknown_frames_and_padding_do_not_matter(seed: int) -> None:
    logits, target, known, present = case(seed)
    noise = torch.Generator().manual_seed(seed + 1)
    hidden = ~(known & present[:, :, None])
    other = torch.where(
        hidden[..., None, None],
        torch.randn(logits.shape, generator=noise, dtype=torch.float64),
        logits,
    )
    flipped = target ^ hidden[..., None, None]
    before = mask_loss(logits, target, known, present)
    after = mask_loss(other, flipped, known, present)
    torch.testing.assert_close(after.total_B, before.total_B)


def test_padding_gets_no_gradient() -> None:
    logits, target, known, present = case(3)
    known[:] = True
    present = torch.tensor([[True, False, True], [False, False, False]])
    logits.requires_grad_()
    loss = mask_loss(logits, target, known, present)
    loss.total_B.sum().backward()
    assert logits.grad is not None
    touched = logits.grad.abs().sum(dim=(2, 3, 4)) > 0
    assert torch.equal(touched, present)
    assert loss.maps_B.tolist() == [2, 0]
    assert loss.total_B[1] == 0


def test_absent_instance_is_an_all_zero_target_without_dice() -> None:
    logits = torch.full((1, 1, 2, 2, 2), 1.5, dtype=torch.float64, requires_grad=True)
    none = torch.zeros(1, 1, 2, 2, 2, dtype=torch.bool)
    known, present = torch.ones(1, 1, 2, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool)
    loss = mask_loss(logits, none, known, present)
    dice = mask_loss(logits, none, known, present, MaskLossWeights(bce=0, dice=1, l2=0))
    assert dice.total_B.item() == 0
    assert loss.total_B.item() == pytest.approx(-math.log(1 - sigmoid(1.5)))
    (gradient,) = torch.autograd.grad(loss.total_B.sum(), logits)
    assert torch.all(gradient > 0)


def test_a_batch_equals_its_samples() -> None:
    tensors = case(11, batch=4)
    whole = mask_loss(*tensors).total_B.mean()
    parts = [mask_loss(*(x[i : i + 2] for x in tensors)).total_B.mean() for i in (0, 2)]
    torch.testing.assert_close(whole, (parts[0] + parts[1]) / 2)


def test_more_padding_changes_nothing() -> None:
    logits, target, known, present = case(12)
    wider = [torch.cat([x, torch.ones_like(x[:, :1])], dim=1) for x in (logits, target, known)]
    padded = torch.cat([present, torch.zeros_like(present[:, :1])], dim=1)
    torch.testing.assert_close(
        mask_loss(wider[0], wider[1], wider[2], padded).total_B,
        mask_loss(logits, target, known, present).total_B,
    )


def test_gradient() -> None:
    logits, target, known, present = case(5, batch=1, maps=2, frames=2)
    present[:], known[0, 0, 0] = True, True
    weights = MaskLossWeights(1.0, 0.7, 0.3)
    assert torch.autograd.gradcheck(
        lambda z: mask_loss(z, target, known, present, weights).total_B, logits.requires_grad_()
    )


def test_extreme_logits_stay_finite() -> None:
    logits, target, known, present = case(6)
    loss = mask_loss(logits.float() * 1e4, target, known, present)
    assert torch.isfinite(loss.total_B).all()


def test_shapes_must_agree() -> None:
    logits, target, known, present = case(7)
    with pytest.raises(ValueError, match=r"logits .* but target"):
        mask_loss(logits[..., :2], target, known, present)


def test_weights_of_maps_within_a_sample() -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 3, 4, 3, 3, generator=generator, dtype=torch.float64)
    target = torch.rand(2, 3, 4, 3, 3, generator=generator) < 0.4
    known = torch.ones(2, 3, 4, dtype=torch.bool)
    present = torch.tensor([[True, True, True], [True, True, False]])
    weight = torch.tensor([[1.0, 0.0, 3.0], [0.0, 0.0, 2.0]])
    alone = [
        mask_loss(logits[:, r : r + 1], target[:, r : r + 1], known[:, r : r + 1],
                  present[:, r : r + 1]).total_B for r in range(3)
    ]  # fmt: skip
    found = mask_loss(logits, target, known, present, weight_BR=weight)
    assert found.total_B[0].item() == pytest.approx((alone[0][0] + 3 * alone[2][0]).item() / 4)
    assert found.total_B[1].item() == 0  # all that is there weighs nothing
    assert found.maps_B.tolist() == [2, 0]
    even = mask_loss(logits, target, known, present, weight_BR=torch.full((2, 3), 0.5))
    torch.testing.assert_close(even.total_B, mask_loss(logits, target, known, present).total_B)
