"""From an attention map to logits: how far each token lies above chance.

Shapes: ``...`` any leading axes (batch, regions, heads), N video tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matrix_video.attention.readout import MapMode
from matrix_video.attention.scores import LIMIT


def log_lift(maps_N: Tensor, *, mode: MapMode = "probabilities") -> Tensor:
    """How far each token's attention lies above chance: ``log(A·N / ΣA)``, clipped to ±`LIMIT`.

    ``maps_N`` is [..., N]; the result has its shape, in float32 (float64 stays). 0 is chance. With
    ``mode="logits"`` the map holds log-attention up to a constant, so the sum becomes a log-sum-exp
    and the result means the same. A map without any mass (padding) is -`LIMIT` throughout.
    Our choice: the paper does not say how its decoder's input is scaled; this one is free of the
    map's mass and its start is a usable logit.
    """
    maps_N = maps_N if maps_N.dtype == torch.float64 else maps_N.float()
    tokens = maps_N.shape[-1]
    if mode == "logits":
        centred_N = maps_N - maps_N.logsumexp(dim=-1, keepdim=True)
        lift_N = centred_N + torch.log(maps_N.new_tensor(float(tokens)))
        return lift_N.clamp(-LIMIT, LIMIT)
    tiny = torch.finfo(maps_N.dtype).tiny
    lift_N = maps_N * tokens / maps_N.sum(dim=-1, keepdim=True).clamp_min(tiny)
    bound = torch.exp(maps_N.new_tensor(LIMIT))
    return torch.log(torch.minimum(torch.maximum(lift_N, 1 / bound), bound))
