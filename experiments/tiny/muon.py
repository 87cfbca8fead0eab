"""Muon (Jordan et al. 2024): momentum whose update is made orthogonal, for weight matrices.

torch.optim.Muon does the same in bfloat16, one matrix at a time: 27 times slower on a CPU without
bfloat16 arithmetic (docs/log.md). Here matrices of one shape go through together, in float32.
Shapes: M matrices of one shape, R rows, C columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor, nn

_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
_STEPS: Final = 5


def orthogonal(grads_MRC: Tensor) -> Tensor:
    """Each matrix with singular values near 1: five Newton-Schulz steps, as published."""
    a, b, c = _COEFFICIENTS
    tall = grads_MRC.shape[-2] > grads_MRC.shape[-1]
    x = grads_MRC.mT if tall else grads_MRC
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum 0.95, decoupled weight decay; a step has the size of one of AdamW at the
    same rate (``match_rms_adamw`` of torch's)."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.01
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        del closure
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                alike[parameter.shape].append(parameter)
            for shape, parameters in alike.items():
                updates: list[Tensor] = []
                for parameter in parameters:
                    assert parameter.grad is not None
                    state = self.state[parameter]
                    if "momentum_buffer" not in state:
                        state["momentum_buffer"] = torch.zeros_like(parameter)
                    buffer = state["momentum_buffer"]
                    buffer.lerp_(parameter.grad, 1 - group["momentum"])
                    # A convolution's kernel is a matrix of its output channels (Jordan et al.).
                    updates.append(parameter.grad.lerp(buffer, group["momentum"]).flatten(1))
                scale = 0.2 * max(shape[0], shape[1:].numel()) ** 0.5
                for parameter, update in zip(
                    parameters, orthogonal(torch.stack(updates)), strict=True
                ):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.view(shape), alpha=-group["lr"] * scale)
