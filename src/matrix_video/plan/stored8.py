"""Linear layers stored in 8 bit, to plan for ``matrix train --quantize int8`` without its package.

The operations are those of torchao's integer weights, whose own tensors do not go where planning
runs (`plan.phantom`). Shapes: O rows and I columns of a weight.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Stored8(nn.Linear):
    """A linear layer of integers and a scale for each row; products in the dtype of the input.

    Where the input needs a gradient, the product keeps the weight in that dtype until its backward.
    """

    def __init__(self, plain: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        like = plain.weight
        whole = torch.empty(like.shape, dtype=torch.int8, device=like.device)
        self.weight = nn.Parameter(whole, requires_grad=False)
        self.bias = plain.bias
        scale_O1 = torch.empty(len(like), 1, dtype=torch.float32, device=like.device)
        self.register_buffer("scale", scale_O1)
        self.register_buffer("zero_point", torch.empty_like(scale_O1, dtype=torch.int8))

    def forward(self, input: Tensor) -> Tensor:
        # Fakes are all on the CPU; autocast as `quantize.follow_autocast` does.
        cast = torch.is_autocast_enabled("cpu")
        given = input.to(torch.get_autocast_dtype("cpu")) if cast else input
        weight_IO = self.weight.t().to(given.dtype)
        found = given.reshape(-1, self.in_features) @ weight_IO
        scale_O1: Any = self.scale
        found = (found * scale_O1.to(found.dtype).flatten()).reshape(
            *given.shape[:-1], self.out_features
        )
        bias: Any = self.bias  # None for a layer without, whatever its type says
        if bias is not None:
            found += bias
        return found.to(given.dtype)


def store8(model: nn.Module) -> None:
    """Store the model's linear layers so, but those that diffusers keeps in float32."""
    told: Any = type(model)
    kept = getattr(told, "_keep_in_fp32_modules", None) or ()
    for name, module in list(model.named_modules()):
        if not isinstance(module, nn.Linear) or any(f"{part}." in f"{name}." for part in kept):
            continue
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, Stored8(module))
