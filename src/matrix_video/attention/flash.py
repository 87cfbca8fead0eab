"""The layer's own flash attention, run once, with its log-sum-exp kept and differentiable.

Shapes: B batch, A heads, g heads of a group, N queries or keys, D head size.

The fused kernel computes lse_n = log Σ_m exp(s_nm) of the logits s = q·k·scale for itself and
throws it away; here it is kept, since every entry of P follows from it alone (`attention.pool`).
Under a loss on such entries, besides one on the output O = P·V, the logits' gradient is

    dS = P ∘ (dP - D) + dS_pools + P·dlse,      dP = dO·Vᵀ,  D = rowsum(dO ∘ O),

for ∂lse_n/∂s_nm = P_nm. The third term is the only new one that reaches all N × N entries, and it
has the form of the first: it shifts D by -dlse. The kernel uses the saved O for D and for nothing
else. So its backward is handed O' = O + a·dO instead, with a = -dlse / rowsum(dO²) in each row,
whence rowsum(dO ∘ O') = D - dlse: no second pass over N × N is needed. Where dO vanishes in a row
and dlse does not, rows dO' = (ε, 0, …) and O' = (-dlse/ε, 0, …) give the same shift; their own
share in the gradients is ε. Our derivation; FlashAttention's backward is that of arXiv 2307.08691.

Gradients of a pool with respect to q and k would be two more tensors of the size of q. So a pool's
backward only leaves its cotangent with the attention it belongs to (`Ledger`), whose backward comes
after it by the order of the graph, and adds the pool's share to its own dq and dk, some heads at a
time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend

from matrix_video.attention.pool import (
    Pool,
    PoolGradients,
    add_pool_gradients,
    pool_gradients,
    pooled,
)

_EPSILON: Final = 2.0**-80
"""ε relative to dlse; its square does not occur, and both ε and 1/ε are ordinary numbers in float32
and bfloat16."""
_LEAST: Final = 2.0**-126
"""Least ε: the smallest normal number of both. Below, dlse/ε would be infinite."""


@dataclass(frozen=True, eq=False)
class Claim:
    """A pool and the cotangent of its map, on part of the batch."""

    pool: Pool
    grad: Tensor
    keep: slice


@dataclass(eq=False)
class Ledger:
    """What the backward of pools leaves for that of the attention they belong to."""

    claims: list[Claim] = field(default_factory=list[Claim])


@dataclass(frozen=True, eq=False)
class Flash:
    """What is known of an attention call that ran here."""

    q_BAND: Tensor
    k_BAND: Tensor
    """As many heads as in q."""
    lse_BAN: Tensor
    ledger: Ledger
    keep: slice
    """The part of the call's batch that these are of."""


def attend(
    q_BAND: Tensor,
    k_BAND: Tensor,
    v_BAND: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
) -> tuple[Tensor, Flash] | None:
    """Output of the attention call, bit for bit that of PyTorch, and its log-sum-exp.

    None where PyTorch would not take its flash kernel, where that kernel is not the CPU's, or in
    float16, whose range is too narrow. As many heads in ``k`` and ``v`` as in ``q``.
    """
    if q_BAND.device.type != "cpu" or q_BAND.dtype == torch.float16:
        return None
    if mask is not None and mask.requires_grad:
        return None
    choice = torch._fused_sdp_choice(  # pyright: ignore[reportPrivateUsage]
        q_BAND, k_BAND, v_BAND, mask, 0.0, is_causal, scale=scale
    )
    if choice != SDPBackend.FLASH_ATTENTION.value:
        return None
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q_BAND.dtype).masked_fill_(~mask, -torch.inf)
    ledger = Ledger()
    run = cast("Any", _Attend.apply)
    out_BAND, lse_BAN = run(q_BAND, k_BAND, v_BAND, mask, is_causal, scale, ledger)
    return out_BAND, Flash(q_BAND, k_BAND, lse_BAN, ledger, slice(None))


def pool_map(pool: Pool, flash: Flash) -> Tensor:
    """The map of `attention.pool.pooled`, differentiable in the q, k that `attend` was given."""
    return cast("Any", _PoolMap.apply)(flash.lse_BAN, pool, flash)


class _PoolMap(torch.autograd.Function):
    """Forward: the map. Backward: a claim on the attention's backward, which must come after."""

    @staticmethod
    def forward(ctx: Any, lse_BAN: Tensor, pool: Pool, flash: Flash) -> Tensor:
        ctx.pool, ctx.ledger, ctx.keep, ctx.shape = pool, flash.ledger, flash.keep, lse_BAN.shape
        return pooled(pool, flash.q_BAND, flash.k_BAND, lse_BAN)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.ledger.claims.append(Claim(ctx.pool, grad, ctx.keep))
        # Zeros and not None: this edge is what makes the attention's backward run afterwards.
        return grad.new_zeros(ctx.shape), None, None


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_BAND: Tensor,
        k_BAND: Tensor,
        v_BAND: Tensor,
        mask: Tensor | None,
        is_causal: bool,
        scale: float | None,
        ledger: Ledger,
    ) -> tuple[Tensor, Tensor]:
        out_BAND, lse_BAN = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q_BAND, k_BAND, v_BAND, 0.0, is_causal, attn_mask=mask, scale=scale
        )
        # In the order of PyTorch's own node: when checkpointing runs the layer again, perhaps after
        # the tap has ended, it must save the same tensors (and says so where it does not).
        masks = () if mask is None else (mask,)
        ctx.save_for_backward(*masks, k_BAND, q_BAND, v_BAND, lse_BAN, out_BAND)
        ctx.is_causal, ctx.scale, ctx.ledger = is_causal, scale, ledger
        ctx.set_materialize_grads(False)
        return out_BAND, lse_BAN

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dout: Tensor | None, dlse: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        *masks, k, q, v, lse, out = cast("tuple[Tensor, ...]", ctx.saved_tensors)
        mask = masks[0] if masks else None
        claims, ctx.ledger.claims = ctx.ledger.claims, []
        none = (None,) * 4
        if dout is None and dlse is None:
            return None, None, None, *none
        unused = dout is None
        dout = torch.zeros_like(out) if dout is None else dout

        def kernel(part: slice, dout: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            own = mask if mask is None or mask.ndim < 4 or mask.shape[1] == 1 else mask[:, part]
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                dout, q[:, part], k[:, part], v[:, part], out, lse[:, part], 0.0, ctx.is_causal,
                attn_mask=own, scale=ctx.scale,
            )  # fmt: skip

        if dlse is None:
            return *kernel(slice(None), dout, out), *none
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        heads = q.shape[1]
        # The kernel works on heads side by side: no more at a time than keep the machine busy,
        # since the gradients of a group are in memory twice.
        step = -(-torch.get_num_threads() // q.shape[0])
        for first in range(0, heads, step):
            part = slice(first, min(first + step, heads))
            shift = dlse[:, part].clone()
            found: list[PoolGradients] = []
            for claim in claims:
                keep = claim.keep
                gradients = pool_gradients(
                    claim.pool, claim.grad, q[keep, part], k[keep, part], lse[keep, part],
                    first, heads,
                )  # fmt: skip
                shift[keep] += gradients.lse_BgN.to(shift.dtype)
                found.append(gradients)
            shifted = _shifted(dout[:, part], out[:, part], shift)
            dq[:, part], dk[:, part], dv[:, part] = kernel(part, *shifted)
            for claim, gradients in zip(claims, found, strict=True):
                add_pool_gradients(
                    claim.pool, gradients, dq[claim.keep, part], dk[claim.keep, part]
                )
        return dq, dk, None if unused else dv, *none


def _shifted(dout: Tensor, out: Tensor, dlse: Tensor) -> tuple[Tensor, Tensor]:
    """(dO', O') for which the backward kernel's rowsum(dO' ∘ O') is rowsum(dO ∘ O) - dlse."""
    wide = torch.promote_types(out.dtype, torch.float32)
    dlse_BgN1 = dlse.to(wide)[..., None]
    top = dout.abs().amax(dim=-1, keepdim=True).to(wide)
    least = (dlse_BgN1.abs() * _EPSILON).clamp_min(_LEAST)
    empty = (top <= least) & (dlse_BgN1 != 0)
    # Divided by the row's largest entry first: squares of small gradients would vanish.
    safe = torch.where(top > 0, top, 1.0)
    scaled = dout.to(wide) / safe
    factor = -dlse_BgN1 / (safe * scaled.square().sum(dim=-1, keepdim=True).clamp_min(1))
    moved = torch.addcmul(out.to(wide), scaled, factor).to(out.dtype)
    if bool(empty.any()):
        unit = torch.zeros(out.shape[-1], dtype=wide)
        unit[0] = 1
        dout = torch.where(empty, (unit * least).to(dout.dtype), dout)
        moved = torch.where(empty, (unit * (-dlse_BgN1 / least)).to(out.dtype), moved)
    return dout, moved
