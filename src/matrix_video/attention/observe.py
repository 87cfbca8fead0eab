"""Seeing calls of PyTorch's attention function in the code that runs inside a context.

Shapes as in `attention.site`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from matrix_video.attention.flash import attend
from matrix_video.attention.site import Call
from matrix_video.services.errors import MatrixError

Engine = Literal["auto", "fast", "portable"]
"""How tapped calls run: through `attention.flash` where possible, always (or an error), never."""

_DEPTH: Final = ContextVar("observers that are open", default=0)
_NOT_FAST: Final = (
    "this attention call does not run through the flash kernel that the fast engine reads"
)
_PORTABLE: Final = (
    "tap with engine='auto' or 'portable', or use float32, float64 or bfloat16 on a CPU, without "
    "dropout, with queries, keys and values of one head size"
)


class Observer(TorchFunctionMode):
    """Counts attention calls, keeps the wanted ones, and runs these so that maps are cheap."""

    def __init__(
        self, name: str, wanted: set[int] | None, keep_output: bool, engine: Engine
    ) -> None:
        """``wanted``: indices of calls to keep; None: all."""
        super().__init__()
        self.name, self.wanted, self.keep_output, self.engine = name, wanted, keep_output, engine
        self.outermost = True
        self.count = 0
        self.found: dict[int, Call] = {}

    def __enter__(self) -> Observer:
        self._token = _DEPTH.set(_DEPTH.get() + 1)
        self.outermost = _DEPTH.get() == 1
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        _DEPTH.reset(self._token)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        index, self.count = self.count, self.count + 1
        if self.wanted is not None and index not in self.wanted:
            return func(*args, **kwargs)
        call, value, dropout = _bind(*args, **kwargs)
        out = None
        # An observer outside this one (taps may nest) must see the call as it is.
        if self.engine != "portable" and not dropout and self.outermost:
            call, out = _run(call, value)
        if out is None:
            if self.engine == "fast":
                raise MatrixError(_NOT_FAST, remedy=_PORTABLE, field=self.name)
            out = func(*args, **kwargs)
        self.found[index] = replace(call, v=value, out=out) if self.keep_output else call
        return out


def _run(call: Call, value: Tensor) -> tuple[Call, Tensor | None]:
    """The call through `attention.flash`, where that is possible."""
    heads = call.q.shape[1]
    k, v = expand_heads(call.k, heads), expand_heads(_cast(value), heads)
    with torch.autocast(call.q.device.type, enabled=False):
        found = attend(call.q, k, v, call.mask, call.is_causal, call.scale)
    if found is None:
        return call, None
    return replace(call, flash=found[1]), found[0]


def _bind(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Call, Tensor, float]:
    """The call with its defaults in the dtype of its kernel, the values, and the dropout, which is
    not part of a map."""
    mask = attn_mask if attn_mask is None or attn_mask.dtype == torch.bool else _cast(attn_mask)
    call = Call(_cast(query), _cast(key), mask, is_causal, scale, enable_gqa)
    return call, value, dropout_p


def _cast(x: Tensor) -> Tensor:
    """What autocast does to an argument of attention, below Python (float64 is left alone)."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


def expand_heads(k: Tensor, heads: int) -> Tensor:
    """Grouped-query attention: each key head serves ``heads / own`` query heads."""
    return k if k.shape[1] == heads else k.repeat_interleave(heads // k.shape[1], dim=1)


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
        flash=None
        if call.flash is None
        else replace(
            call.flash,
            q_BAND=call.flash.q_BAND[keep],
            k_BAND=call.flash.k_BAND[keep],
            lse_BAN=call.flash.lse_BAN[keep],
            keep=keep,
        ),
    )
