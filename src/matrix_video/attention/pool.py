"""Weighted sums over rows or columns of P, streamed: no block of rows × tokens is ever kept.

Shapes: B batch, A heads, g heads of a group, R rows of weights, S chosen tokens, M tokens of the
map, m of them at a time, D head size.

With the log-sum-exp of each query known, any entry of P is ``exp(q·k·scale - lse)`` by itself. A
pool chooses S tokens on one side (text keys for V2T, region queries for V2V) and gives

    out[r, m] = Σ_s w[r, s] · P[s, m]          (meaned over heads)

Its gradient with respect to the logits is ``dS[s, m] = P[s, m] · dP[s, m]`` with
``dP[s, m] = Σ_r w[r, s] · G[r, m]``, the same for all heads, and with respect to a query's lse the
negative sum of dS over that query's entries. Nothing of size S × M is saved: P is computed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_BLOCK = 1 << 19
"""Entries of P at a time: two megabytes in float32, about a core's own cache."""
_LEAST = 128
"""Tokens of the map at a time: with fewer, products of matrices are slow."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Which entries of P are summed, and how."""

    queries_chosen: bool
    """The chosen tokens are queries and the map runs over keys (V2V), or the reverse (V2T)."""
    index_BS: Tensor
    """The chosen tokens, among all queries or keys."""
    weights_BRS: Tensor
    """float32, or float64 for float64 queries."""
    over: slice
    """The map's tokens, among all keys or queries."""
    per_head: bool
    scale: float
    mask: Tensor | None
    """Of the attention call, four axes, bool (true: attend) or additive."""
    is_causal: bool


@dataclass(frozen=True, eq=False)
class Chunk:
    """Part of a pool: some heads, some tokens of the map."""

    heads: slice
    tokens: slice
    """Among the map's."""
    chosen_BgSD: Tensor
    many_BgmD: Tensor
    p_BgSm: Tensor


def chunks(pool: Pool, q_BAND: Tensor, k_BAND: Tensor, lse_BAN: Tensor) -> Iterator[Chunk]:
    """P of a pool, block by block; a block is overwritten at the reader's pleasure."""
    dtype = pool.weights_BRS.dtype
    chosen, many = (q_BAND, k_BAND) if pool.queries_chosen else (k_BAND, q_BAND)
    many = many[:, :, pool.over]
    batch, heads, length, _ = many.shape
    at = pool.index_BS[:, None, :, None]
    rows = max(1, batch * pool.index_BS.shape[1])
    group = max(1, min(heads, _BLOCK // (rows * min(length, _LEAST))))
    step = max(min(length, _LEAST), _BLOCK // (rows * group))
    for first in range(0, heads, group):
        part = slice(first, min(first + group, heads))
        chosen_BgSD = chosen[:, part].take_along_dim(at, dim=2).to(dtype)
        # exp(x - inf) = 0: a query that may see nothing gives zeros, as in the attention call.
        lse = lse_BAN[:, part].to(dtype)
        lse = torch.where(lse.isfinite(), lse, torch.inf)
        if pool.queries_chosen:
            lse_Bgnm = lse.take_along_dim(pool.index_BS[:, None], dim=2)[..., None]
        else:
            lse_Bgnm = lse[:, :, None, pool.over]
        for start in range(0, length, step):
            tokens = slice(start, min(start + step, length))
            many_BgmD = many[:, part, tokens].to(dtype)
            p = (chosen_BgSD * pool.scale) @ many_BgmD.transpose(-1, -2)
            _hide(p, pool, part, tokens)
            p -= lse_Bgnm if pool.queries_chosen else lse_Bgnm[..., tokens]
            yield Chunk(part, tokens, chosen_BgSD, many_BgmD, p.exp_())


def pooled(pool: Pool, q_BAND: Tensor, k_BAND: Tensor, lse_BAN: Tensor) -> Tensor:
    """The map [B,R,M], or [B,A,R,M] per head. Without gradient."""
    batch, regions, _ = pool.weights_BRS.shape
    heads = q_BAND.shape[1]
    length = range((k_BAND if pool.queries_chosen else q_BAND).shape[2])[pool.over]
    shape = (batch, heads, regions, len(length)) if pool.per_head else (batch, regions, len(length))
    out = pool.weights_BRS.new_zeros(shape)
    for chunk in chunks(pool, q_BAND, k_BAND, lse_BAN):
        if pool.per_head:
            out[:, chunk.heads, :, chunk.tokens] = pool.weights_BRS[:, None] @ chunk.p_BgSm
        else:
            group = chunk.p_BgSm.shape[1]
            weights = pool.weights_BRS.repeat(1, 1, group) / heads
            out[:, :, chunk.tokens] += weights @ chunk.p_BgSm.flatten(1, 2)
    return out


@dataclass(frozen=True, eq=False)
class PoolGradients:
    """Gradients of some heads: of the chosen tokens, of the map's, and of the log-sum-exp."""

    chosen_BgSD: Tensor
    many_BgMD: Tensor
    lse_BgN: Tensor


def pool_gradients(
    pool: Pool,
    grad: Tensor,
    q_BgND: Tensor,
    k_BgND: Tensor,
    lse_BgN: Tensor,
    first: int,
    heads: int,
) -> PoolGradients:
    """Gradients, under ``grad`` of the map, of a group of heads ``first ...`` out of ``heads``."""
    dtype = pool.weights_BRS.dtype
    many = (k_BgND if pool.queries_chosen else q_BgND)[:, :, pool.over]
    size = (*pool.index_BS.shape, q_BgND.shape[-1])
    chosen_BgSD = many.new_zeros((size[0], many.shape[1], *size[1:]), dtype=dtype)
    many_BgMD = torch.zeros_like(many, dtype=dtype)
    lse_out = torch.zeros_like(lse_BgN, dtype=dtype)
    weights_BSR = pool.weights_BRS.transpose(1, 2)
    group = replace(pool, mask=_heads_of(pool.mask, first, q_BgND.shape[1]))
    for chunk in chunks(group, q_BgND, k_BgND, lse_BgN):
        if pool.per_head:
            mine = slice(first + chunk.heads.start, first + chunk.heads.stop)
            dp = weights_BSR[:, None] @ grad[:, mine, :, chunk.tokens].to(dtype)
        else:
            dp = (weights_BSR @ grad[:, :, chunk.tokens].to(dtype) / heads)[:, None]
        ds = chunk.p_BgSm.mul_(dp)
        if pool.queries_chosen:
            index = pool.index_BS[:, None].expand(-1, ds.shape[1], -1)
            lse_out[:, chunk.heads].scatter_add_(2, index, -ds.sum(dim=3))
        else:
            lse_out[:, chunk.heads, pool.over][..., chunk.tokens] -= ds.sum(dim=2)
        ds *= pool.scale
        chosen_BgSD[:, chunk.heads] += ds @ chunk.many_BgmD
        many_BgMD[:, chunk.heads, chunk.tokens] = ds.transpose(-1, -2) @ chunk.chosen_BgSD
    return PoolGradients(chosen_BgSD, many_BgMD, lse_out)


def add_pool_gradients(pool: Pool, found: PoolGradients, dq_BgND: Tensor, dk_BgND: Tensor) -> None:
    """Add to the gradients of a group's queries and keys, in place."""
    chosen, many = (dq_BgND, dk_BgND) if pool.queries_chosen else (dk_BgND, dq_BgND)
    many[:, :, pool.over] += found.many_BgMD.to(many.dtype)
    index = pool.index_BS[:, None, :, None].expand_as(found.chosen_BgSD)
    chosen.scatter_add_(2, index, found.chosen_BgSD.to(chosen.dtype))


def _hide(logits_BgSm: Tensor, pool: Pool, heads: slice, tokens: slice) -> None:
    """Apply the call's mask to a block of logits, in place."""
    if pool.is_causal:
        start = pool.over.start + tokens.start
        many_m = torch.arange(start, start + logits_BgSm.shape[-1], device=logits_BgSm.device)
        chosen = pool.index_BS[:, None, :, None]
        unseen = many_m > chosen if pool.queries_chosen else chosen > many_m
        logits_BgSm.masked_fill_(unseen, -torch.inf)
    if pool.mask is None:
        return
    mask = pool.mask if pool.mask.shape[1] == 1 else pool.mask[:, heads]
    if not pool.queries_chosen:  # now [., ., chosen, map] for both
        mask = mask.transpose(2, 3)
    if mask.shape[2] > 1:
        mask = mask.expand(pool.index_BS.shape[0], -1, -1, -1)
        mask = mask.take_along_dim(pool.index_BS[:, None, :, None], dim=2)
    if mask.shape[3] > 1:
        mask = mask[..., pool.over][..., tokens]
    if mask.dtype == torch.bool:
        logits_BgSm.masked_fill_(~mask, -torch.inf)
    else:
        logits_BgSm += mask.to(logits_BgSm.dtype)


def _heads_of(mask: Tensor | None, first: int, count: int) -> Tensor | None:
    return mask if mask is None or mask.shape[1] == 1 else mask[:, first : first + count]
