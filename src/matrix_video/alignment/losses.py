"""Mask loss: binary cross-entropy, soft Dice and L2 of decoded maps against mask tracks.

Shapes: B batch, R maps of a sample (padded), T output frames, H W output rows and columns.

Means are taken per map, then per sample, then (by the caller) over the whole batch, so that the
split of a batch over processes changes nothing. Paper section 5 names the terms; the weights and
the order of the means are our choice (the authors' Wan script keeps cross-entropy alone).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_POSITIVE_WEIGHT = 10.0


@dataclass(frozen=True)
class MaskLossWeights:
    """Weights of the three terms."""

    bce: float = 1.0
    dice: float = 1.0
    l2: float = 0.0


DEFAULT_WEIGHTS = MaskLossWeights()


@dataclass(frozen=True)
class MaskLoss:
    """Per sample [B]: the weighted sum of the terms, and how many maps counted."""

    total_B: Tensor
    maps_B: Tensor


def _mean(values: Tensor, counted: Tensor, dim: tuple[int, ...]) -> Tensor:
    """Mean over the counted entries; 0 where there are none."""
    weight = counted.to(values.dtype)
    return (values * weight).sum(dim) / weight.sum(dim).clamp_min(1)


def mask_loss(
    logits_BRTHW: Tensor,
    target_BRTHW: Tensor,
    known_BRT: Tensor,
    present_BR: Tensor,
    weights: MaskLossWeights = DEFAULT_WEIGHTS,
    weight_BR: Tensor | None = None,
) -> MaskLoss:
    """Loss of each sample's maps against their masks.

    ``target`` bool; ``known`` bool, false where the frame is not annotated: left out of every
    mean; an absent instance is a known frame with an all-zero target. ``present`` bool, false for
    padding rows. A map with no known frame does not count; a sample with no map has loss 0.
    ``weight`` (>= 0) is how much each map counts in its sample's mean, alike where None.

    - bce: mean over known pixels, positives weighted by neg/pos of the map, at most 10.
    - dice: 1 - (2Σpσ + 1) / (Σp + Σσ + 1) per frame, mean over the known frames whose target is
      not empty (per frame, so that a large near frame does not rule; our choice).
    - l2: mean of (σ - p)² over known pixels.
    """
    if logits_BRTHW.shape != target_BRTHW.shape:
        raise ValueError(f"logits {logits_BRTHW.shape} but target {target_BRTHW.shape}")
    probability = logits_BRTHW.sigmoid()
    target = target_BRTHW.to(logits_BRTHW.dtype)
    pixels_BRT = target.sum(dim=(3, 4))
    known = known_BRT.to(target.dtype)

    positive_BR = (pixels_BRT * known).sum(dim=2)
    area = target.shape[3] * target.shape[4]
    negative_BR = known.sum(dim=2) * area - positive_BR
    positive_weight_BR = (negative_BR / positive_BR.clamp_min(1)).clamp(max=MAX_POSITIVE_WEIGHT)
    bce_BRTHW = F.binary_cross_entropy_with_logits(
        logits_BRTHW,
        target,
        pos_weight=positive_weight_BR[:, :, None, None, None],
        reduction="none",
    )
    bce_BR = _mean(bce_BRTHW.mean(dim=(3, 4)), known_BRT, (2,))

    overlap_BRT = (probability * target).sum(dim=(3, 4))
    sizes_BRT = probability.sum(dim=(3, 4)) + pixels_BRT
    dice_BRT = 1 - (2 * overlap_BRT + 1) / (sizes_BRT + 1)
    dice_BR = _mean(dice_BRT, known_BRT & (pixels_BRT > 0), (2,))

    l2_BR = _mean((probability - target).square().mean(dim=(3, 4)), known_BRT, (2,))

    counted_BR = present_BR & known_BRT.any(dim=2)
    total_BR = torch.zeros_like(bce_BR)
    for weight, term_BR in ((weights.bce, bce_BR), (weights.dice, dice_BR), (weights.l2, l2_BR)):
        if weight:  # 0 · inf is nan
            total_BR = total_BR + weight * term_BR
    if weight_BR is None:
        return MaskLoss(_mean(total_BR, counted_BR, (1,)), counted_BR.sum(dim=1))
    weight_BR = weight_BR.to(total_BR.dtype) * counted_BR
    tiny = torch.finfo(total_BR.dtype).tiny
    total_B = (total_BR * weight_BR).sum(dim=1) / weight_BR.sum(dim=1).clamp_min(tiny)
    return MaskLoss(total_B, (weight_BR > 0).sum(dim=1))
