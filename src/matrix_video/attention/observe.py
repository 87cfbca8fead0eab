"""Seeing calls of PyTorch's attention function in the code that runs inside a context.

Shapes as in `attention.site`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from matrix_video.attention.site import Call


class Observer(TorchFunctionMode):
    """Counts attention calls and keeps the wanted ones. Computes nothing of its own."""

    def __init__(self, wanted: set[int], keep_output: bool) -> None:
        super().__init__()
        self.wanted, self.keep_output = wanted, keep_output
        self.count = 0
        self.found: dict[int, Call] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            if self.count in self.wanted:
                call = _bind(*args, **kwargs)
                if self.keep_output:
                    call = replace(call, v=args[2] if len(args) > 2 else kwargs["value"], out=out)
                self.found[self.count] = call
            self.count += 1
        return out


def _bind(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Call:
    """The call with its defaults, in the dtype of its kernel. Dropout is not part of a map."""
    del value, dropout_p
    mask = attn_mask if attn_mask is None or attn_mask.dtype == torch.bool else _cast(attn_mask)
    return Call(_cast(query), _cast(key), mask, is_causal, scale, enable_gqa)


def _cast(x: Tensor) -> Tensor:
    """What autocast does to an argument of attention, below Python (float64 is left alone)."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


def part_of(call: Call, keep: slice) -> Call:
    """The call of part of its batch."""
    batch = call.q.shape[0]
    if range(batch)[keep] == range(batch):
        return call

    def part(x: Tensor | None) -> Tensor | None:
        return x[keep] if x is not None and x.ndim == 4 and x.shape[0] == batch else x

    return replace(
        call,
        q=call.q[keep],
        k=call.k[keep],
        mask=part(call.mask),
        v=part(call.v),
        out=part(call.out),
    )
