"""Pure functions on attention maps that ranking (analysis) and training (alignment) share.

Shapes: ``...`` any leading axes (batch, regions, heads), F token frames, h w token rows and
columns, N = F·h·w video tokens.

One definition for both rooms: what is ranked is what is trained (paper sections 4 and 5).
"""

from __future__ import annotations

import torch
from torch import Tensor

LIMIT = 6.0
"""Log-lifts are clipped to ±LIMIT: e^6 is 400 times chance, beyond which more is no better."""


def frame_share(maps_Fhw: Tensor, mask_Fhw: Tensor) -> Tensor:
    """Share of each frame's map mass that lies inside the mask, in [0, 1].

    ``maps_Fhw`` non-negative [..., F, h, w], ``mask_Fhw`` bool of the same (or a broadcastable)
    shape; result [..., F]. A frame without mass has share 0.
    """
    maps_Fhw = maps_Fhw if maps_Fhw.dtype == torch.float64 else maps_Fhw.float()
    mass_F = maps_Fhw.sum(dim=(-2, -1))
    inside_F = (maps_Fhw * mask_Fhw).sum(dim=(-2, -1))
    return inside_F / mass_F.clamp_min(torch.finfo(maps_Fhw.dtype).tiny)


def aas(maps_Fhw: Tensor, mask_Fhw: Tensor, visible_F: Tensor) -> Tensor:
    """Attention alignment score: mean of `frame_share` over the frames where the target is visible.

    ``visible_F`` bool [..., F]; result [...], NaN where no frame counts. For a V2V map the caller
    clears ``visible_F`` in frame 0, where the region looks at itself.
    Paper section 4 names the score without a normalisation; per frame is our choice, because a
    pooled sum is ruled by the frames near the query.
    """
    share_F = frame_share(maps_Fhw, mask_Fhw)
    counted_F = visible_F.to(share_F.dtype)
    return (share_F * counted_F).sum(dim=-1) / counted_F.sum(dim=-1)
