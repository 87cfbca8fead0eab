"""How well an attention map follows a mask: five numbers, each a pure function.

Shapes: ``...`` any leading axes (heads, noise levels), F token frames, h w token rows and columns,
K counted tokens. Maps are non-negative; masks are bool on the token grid; ``visible_F`` says which
frames count (see `counted_frames`). All arithmetic is in float64.

Source: paper section 4 names the attention alignment score (AAS); its normalisation and the four
other measures are our choice, with the reason at each function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matrix_video.attention.scores import LIMIT, aas, frame_share
from matrix_video.data.tracks import State


def counted_frames(states: Sequence[State], *, after: int = -1) -> Tensor:
    """Bool [F]: the frames that are scored, which are those where the target is visible.

    Absent frames are left out, since a target that vanished would otherwise lower the score of the
    very video whose failure is to be explained. Only frames later than ``after`` count: for V2V
    maps that is the frame of the region, where it looks at itself.
    """
    return torch.tensor(
        [state is State.VISIBLE and k > after for k, state in enumerate(states)], dtype=torch.bool
    )


def area_share(mask_Fhw: Tensor, visible_F: Tensor) -> float:
    """Mean share of a counted frame that the mask covers, in [0, 1]; NaN without such a frame."""
    area_F = mask_Fhw.double().mean(dim=(-2, -1))
    return float(area_F[visible_F].mean()) if bool(visible_F.any()) else math.nan


def lift(aas_: Tensor, area: float) -> Tensor:
    """Log-lift ``log(AAS ÷ area share)``: 0 is chance, whatever the mask's size.

    Share and area are pooled over the counted frames before the logarithm, because the logarithm
    of a single frame's share is ruled by the frames that get next to nothing. Clipped from below at
    -`LIMIT`, so that no attention at all stays a number. NaN where either is NaN.
    """
    floor = area * math.exp(-LIMIT)
    return torch.log(aas_.double().clamp_min(floor) / area)


def mean_in_mask(maps_Fhw: Tensor, mask_Fhw: Tensor, visible_F: Tensor) -> Tensor:
    """Mean map value over the mask's tokens in the counted frames, result [...].

    The authors' released code measures this one (``tp_mean``). It is not free of the map's mass.
    """
    weight_Fhw = (mask_Fhw & visible_F[:, None, None]).double()
    total = (maps_Fhw.double() * weight_Fhw).sum(dim=(-3, -2, -1))
    return total / weight_Fhw.sum()


def average_precision(maps_Fhw: Tensor, mask_Fhw: Tensor, visible_F: Tensor) -> Tensor:
    """Average precision of the map as a detector of the mask's tokens, result [...].

    Sum over thresholds of (gain in recall) x precision, one threshold for each distinct map value,
    over the tokens of the counted frames. NaN where the mask covers none of them. Free of any
    monotone rescaling of the map.
    """
    scores_K = maps_Fhw.double()[..., visible_F, :, :].flatten(-3)
    labels_K = mask_Fhw[visible_F].flatten()
    count = scores_K.shape[-1]
    if count == 0 or not bool(labels_K.any()):
        return scores_K.new_full(scores_K.shape[:-1], math.nan)
    sorted_K, order_K = scores_K.sort(dim=-1, descending=True)
    hit_K = labels_K[order_K].double()
    rank_K = torch.arange(1, count + 1, dtype=torch.float64, device=scores_K.device)
    precision_K = hit_K.cumsum(-1) / rank_K
    # A tie is one threshold: all its tokens take the precision at its last one.
    last_K = torch.ones_like(sorted_K, dtype=torch.bool)
    last_K[..., :-1] = sorted_K[..., :-1] != sorted_K[..., 1:]
    position_K = torch.where(last_K, (rank_K - 1).expand_as(sorted_K), math.inf)
    end_K = position_K.flip(-1).cummin(dim=-1).values.flip(-1).long()
    return (hit_K * precision_K.gather(-1, end_K)).sum(-1) / hit_K.sum(-1)


@dataclass(frozen=True)
class Scores:
    """Scores of one target's maps; tensors have the maps' leading axes, float64."""

    aas: Tensor
    log_lift: Tensor
    mean_in_mask: Tensor
    average_precision: Tensor
    binding: Tensor
    area: float


def binding_contrast(
    maps_Fhw: Tensor,
    mask_Fhw: Tensor,
    visible_F: Tensor,
    rivals: Sequence[tuple[Tensor, Tensor]],
) -> Tensor:
    """AAS on the own mask less AAS on the mask of the rival that gets most of it, result [...].

    ``rivals`` holds (mask [F,h,w], visible [F]) of the other participants and of the instances of
    the same class. Each is compared over the frames in which both are visible, so that a rival that
    leaves the frame early is not compared with other frames. Positive: the map binds to its own
    target. NaN where no rival shares a frame with the target.
    """
    own_F, contrasts = frame_share(maps_Fhw.double(), mask_Fhw), []
    for rival_Fhw, seen_F in rivals:
        both_F = visible_F & seen_F
        if bool(both_F.any()):
            other_F = frame_share(maps_Fhw.double(), rival_Fhw)
            contrasts.append((own_F - other_F)[..., both_F].mean(dim=-1))
    if not contrasts:
        return own_F.new_full(own_F.shape[:-1], math.nan)
    return torch.stack(contrasts).amin(dim=0)


def score(
    maps_Fhw: Tensor,
    mask_Fhw: Tensor,
    visible_F: Tensor,
    rivals: Sequence[tuple[Tensor, Tensor]] = (),
) -> Scores:
    """All five measures of maps [..., F, h, w] against one target."""
    if maps_Fhw.shape[-3:] != mask_Fhw.shape or visible_F.shape != mask_Fhw.shape[:1]:
        raise ValueError(
            f"maps {tuple(maps_Fhw.shape)}, mask {tuple(mask_Fhw.shape)} and "
            f"{tuple(visible_F.shape)} frames do not belong together"
        )
    area = area_share(mask_Fhw, visible_F)
    share = aas(maps_Fhw.double(), mask_Fhw, visible_F)
    return Scores(
        aas=share,
        log_lift=lift(share, area),
        mean_in_mask=mean_in_mask(maps_Fhw, mask_Fhw, visible_F),
        average_precision=average_precision(maps_Fhw, mask_Fhw, visible_F),
        binding=binding_contrast(maps_Fhw, mask_Fhw, visible_F, rivals),
        area=area,
    )
