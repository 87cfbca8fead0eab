"""Exact attention maps from captured queries and keys, never as an N x N tensor.

Shapes: B batch, R rows of weights (phrases or regions of a sample, padded), A attention heads,
Nq queries, Nk keys, N video tokens, L text tokens, S selected query rows, D head size.

P = softmax(q kᵀ · scale), over all keys and with the mask that the layer itself uses. Maps are
the ones of paper section 4: V2T is P's text columns, averaged over a phrase's tokens; V2V is P's
rows of a region, averaged over the region's tokens; both averaged over heads.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from matrix_video.attention.flash import pool_map
from matrix_video.attention.observe import expand_heads
from matrix_video.attention.pool import Pool
from matrix_video.attention.site import Call, Captured, Site, parts

MapMode = Literal["probabilities", "logits"]
"""What a map is made of: P, or q·k·scale without softmax and mask."""


def v2t_maps(
    captured: Captured,
    site: Site,
    weights_BRL: Tensor,
    *,
    per_head: bool = False,
    mode: MapMode = "probabilities",
) -> Tensor:
    """How much each video token attends to each phrase: [B,R,N], or [B,A,R,N] with ``per_head``.

    ``weights_BRL`` weighs text tokens; each row sums to 1 over its phrase's tokens, a row of zeros
    (padding) gives a map of zeros. The result is float32 (float64 for float64 queries) and
    differentiable in q and k. Exact: the weights stand in as the values of an ordinary attention
    call in that dtype, P·M, so memory is O(N·D). ``mode="logits"`` averages q·k·scale instead,
    without softmax and mask (what the authors' code for Wan trains on).
    """
    _check(captured, site, weights_BRL, site.num_text, "text")
    if not isinstance(captured, Call):
        return torch.cat(
            [
                _sample_v2t(call, own, weights_1RL, per_head, mode)
                for (call, own), weights_1RL in zip(
                    parts(captured, site), weights_BRL.split(1), strict=True
                )
            ]
        )
    call = captured
    with _no_autocast(call.q):
        if mode == "logits":
            return _v2t_logits(call, site, weights_BRL, per_head)
        if call.flash is not None:
            return _pool(call, weights_BRL, site.text, site.video, per_head, chosen="keys")
        return _columns(call, site, weights_BRL, per_head)


def v2v_maps(
    captured: Captured,
    site: Site,
    weights_BRN: Tensor,
    *,
    per_head: bool = False,
    mode: MapMode = "probabilities",
    chunk: int = 1024,
) -> Tensor:
    """Where each region's tokens look in the video: [B,R,N], or [B,A,R,N] with ``per_head``.

    ``weights_BRN`` weighs query tokens; each row sums to 1 over its region's tokens, a row of zeros
    gives a map of zeros. Exact: only the rows of P with a weight are computed, ``chunk`` of them
    (tokens times heads, for each batch element) at a time in float32 (float64 for float64 queries),
    and again in backward, so memory is O(chunk·Nk). ``mode`` as in `v2t_maps`.
    """
    if not site.video_keys:
        raise ValueError(f"{site.module} is cross-attention: its keys are no video tokens")
    _check(captured, site, weights_BRN, site.num_video, "video")
    if not isinstance(captured, Call):
        return torch.cat(
            [
                v2v_maps(call, own, weights_1RN, per_head=per_head, mode=mode, chunk=chunk)
                for (call, own), weights_1RN in zip(
                    parts(captured, site), weights_BRN.split(1), strict=True
                )
            ]
        )
    call = captured
    with _no_autocast(call.q):
        if mode == "logits":
            return _v2v_logits(call, site, weights_BRN, per_head)
        if call.flash is not None:
            return _pool(call, weights_BRN, site.video, site.video, per_head, chosen="queries")
        index_BS, weights_BRS = _selected_rows(weights_BRN)
        index_BS = index_BS.to(call.q.device) + site.video_start
        weights_BRS = weights_BRS.to(call.q.device, _work_dtype(call.q))
        return _rows(call, site, index_BS, weights_BRS, per_head, chunk)


def _sample_v2t(
    call: Call, site: Site, weights_1RL: Tensor, per_head: bool, mode: MapMode
) -> Tensor:
    """`v2t_maps` of one sample with text of its own length, weighted as the longest."""
    valid_1RL = _valid(weights_1RL, site)
    if site.num_text == 0:  # an empty caption may have no valid token at all
        heads = (call.q.shape[1],) if per_head else ()
        size = (1, *heads, valid_1RL.shape[1], site.num_video)
        return call.q.new_zeros(size, dtype=_work_dtype(call.q))
    return v2t_maps(call, site, valid_1RL, per_head=per_head, mode=mode)


def _pool(
    call: Call,
    weights: Tensor,
    among: slice,
    over: slice,
    per_head: bool,
    *,
    chosen: Literal["queries", "keys"],
) -> Tensor:
    """The fast engine: entries of P from the call's own log-sum-exp."""
    assert call.flash is not None
    index_BS, weights_BRS = _selected_rows(weights)
    pool = Pool(
        queries_chosen=chosen == "queries",
        index_BS=index_BS.to(call.q.device) + among.start,
        weights_BRS=weights_BRS.to(call.q.device, _work_dtype(call.q)),
        over=over,
        per_head=per_head,
        scale=call.q.shape[-1] ** -0.5 if call.scale is None else call.scale,
        mask=_four_axes(call.mask),
        is_causal=call.is_causal,
    )
    return pool_map(pool, call.flash)


def _columns(call: Call, site: Site, weights_BRL: Tensor, per_head: bool) -> Tensor:
    """P·M by attention itself, with the columns of M in place of the values.

    In float32 also for half-precision queries: their kernels round P, and the sum once more.
    """
    batch, heads, _, size = call.q.shape
    dtype = _work_dtype(call.q)
    k_BAND = expand_heads(call.k.to(dtype), heads)
    mask = call.mask
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(dtype)
    if call.is_causal:  # rows cannot be cut out: their position decides what they see
        q_BAND, rows = call.q.to(dtype), site.video
    else:
        q_BAND, rows = call.q[:, :, site.video].to(dtype), slice(None)
        if mask is not None and mask.ndim >= 2 and mask.shape[-2] > 1:
            mask = mask[..., site.video, :]
    maps: list[Tensor] = []
    # Values as wide as the heads: narrower ones make some kernels fall back to a dense P, for
    # which padding is a small price.
    for columns_BrL in weights_BRL.to(q_BAND).split(size, dim=1):
        width = columns_BrL.shape[1]
        m_BNkD = q_BAND.new_zeros(batch, k_BAND.shape[-2], size)
        m_BNkD[:, site.text, :width] = columns_BrL.transpose(1, 2)
        out_BAND = F.scaled_dot_product_attention(
            q_BAND,
            k_BAND,
            m_BNkD[:, None].expand(-1, heads, -1, -1),
            attn_mask=mask,
            is_causal=call.is_causal,
            scale=call.scale,
        )
        found_BANr = out_BAND[:, :, rows, :width]
        maps.append(found_BANr if per_head else found_BANr.mean(dim=1))
    return torch.cat(maps, dim=-1).transpose(-1, -2)


def _rows(
    call: Call, site: Site, index_BS: Tensor, weights_BRS: Tensor, per_head: bool, chunk: int
) -> Tensor:
    """Weighted rows of P, by groups of heads and of rows, recomputed in backward."""
    heads = call.q.shape[1]
    size = call.q.shape[-1]
    scale = size**-0.5 if call.scale is None else call.scale
    q_BASD = call.q.take_along_dim(index_BS[:, None, :, None], dim=2)
    k_BAND = expand_heads(call.k, heads)
    mask = _four_axes(call.mask)
    group = max(1, chunk // index_BS.shape[1])
    recompute = torch.is_grad_enabled() and (q_BASD.requires_grad or k_BAND.requires_grad)
    maps: list[Tensor] = []
    start = 0
    # Split and not sliced: the gradient of a split is one concatenation, that of every slice a
    # full tensor of zeros.
    for q_BgSD, k_BgND in zip(q_BASD.split(group, dim=1), k_BAND.split(group, dim=1), strict=True):
        per_group = slice(start, start + q_BgSD.shape[1])
        start += q_BgSD.shape[1]
        head_mask = mask if mask is None or mask.shape[1] == 1 else mask[:, per_group]
        total: Tensor | None = None
        for q_BgsD, index_Bs, weights_BRs in zip(
            q_BgSD.split(chunk, dim=2),
            index_BS.split(chunk, dim=1),
            weights_BRS.split(chunk, dim=2),
            strict=True,
        ):
            arguments = (
                q_BgsD, k_BgND, head_mask, index_Bs, weights_BRs, scale, call.is_causal, per_head
            )  # fmt: skip
            part = (
                checkpoint(_chunk, *arguments, use_reentrant=False, preserve_rng_state=False)
                if recompute
                else _chunk(*arguments)
            )
            assert isinstance(part, Tensor)
            total = part if total is None else total + part
        assert total is not None
        maps.append(total)
    found = torch.cat(maps, dim=1) if per_head else torch.stack(maps).sum(dim=0) / heads
    return found[..., site.video]


def _chunk(
    q_BgsD: Tensor,
    k_BgND: Tensor,
    mask: Tensor | None,
    index_Bs: Tensor,
    weights_BRs: Tensor,
    scale: float,
    is_causal: bool,
    per_head: bool,
) -> Tensor:
    """Weighted sum of softmax rows over all keys: [B,g,R,Nk], or [B,R,Nk] summed over heads."""
    dtype = weights_BRs.dtype
    logits = (q_BgsD.to(dtype) * scale) @ k_BgND.to(dtype).transpose(-1, -2)
    if is_causal:
        seen_N = torch.arange(logits.shape[-1], device=logits.device)
        seen = seen_N <= index_Bs[:, None, :, None]
        logits = logits.masked_fill(~seen, -torch.inf)
    if mask is not None:
        if mask.shape[2] > 1:
            mask = mask.expand(logits.shape[0], -1, -1, -1)
            mask = mask.take_along_dim(index_Bs[:, None, :, None], dim=2)
        if mask.dtype == torch.bool:
            logits = logits.masked_fill(~mask, -torch.inf)
        else:
            logits = logits + mask.to(dtype)
        # A row that may see nothing gives zeros, as in the attention call itself.
        blind = (logits == -torch.inf).all(dim=-1, keepdim=True)
        p = logits.masked_fill(blind, 0).softmax(dim=-1).masked_fill(blind, 0)
    else:
        p = logits.softmax(dim=-1)
    if per_head:
        return weights_BRs[:, None] @ p
    heads = p.shape[1]
    return weights_BRs.repeat(1, 1, heads) @ p.flatten(1, 2)


def _v2t_logits(call: Call, site: Site, weights_BRL: Tensor, per_head: bool) -> Tensor:
    dtype = _work_dtype(call.q)
    k_BALD = expand_heads(call.k, call.q.shape[1])[:, :, site.text].to(dtype)
    k_BARD = weights_BRL.to(k_BALD)[:, None] @ k_BALD
    return _dots(k_BARD, call.q[:, :, site.video].to(dtype), call, per_head)


def _v2v_logits(call: Call, site: Site, weights_BRN: Tensor, per_head: bool) -> Tensor:
    dtype = _work_dtype(call.q)
    q_BAND = call.q[:, :, site.video].to(dtype)
    q_BARD = weights_BRN.to(q_BAND)[:, None] @ q_BAND
    k_BAND = expand_heads(call.k, call.q.shape[1])[:, :, site.video].to(dtype)
    return _dots(q_BARD, k_BAND, call, per_head)


def _dots(rows_BARD: Tensor, tokens_BAND: Tensor, call: Call, per_head: bool) -> Tensor:
    scale = call.q.shape[-1] ** -0.5 if call.scale is None else call.scale
    if per_head:
        return rows_BARD @ tokens_BAND.transpose(-1, -2) * scale
    return torch.einsum("bard,band->brn", rows_BARD, tokens_BAND) * (scale / call.q.shape[1])


def _selected_rows(weights_BRN: Tensor) -> tuple[Tensor, Tensor]:
    """Indices [B,S] of tokens with a weight in any row, and the weights [B,R,S] there.

    Elements with fewer such tokens are padded with token 0 at weight 0.
    """
    used_BN = weights_BRN.ne(0).any(dim=1)
    most = max(1, int(used_BN.sum(dim=1).max()))
    # Stable sort by "unused" brings the used tokens, in order, to the front.
    index_BS = (~used_BN).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    padded_BS = ~used_BN.gather(1, index_BS)
    index_BS = index_BS.masked_fill(padded_BS, 0)
    weights_BRS = weights_BRN.take_along_dim(index_BS[:, None], dim=2)
    return index_BS, weights_BRS.masked_fill(padded_BS[:, None], 0)


def _four_axes(mask: Tensor | None) -> Tensor | None:
    while mask is not None and mask.ndim < 4:
        mask = mask[None]
    return mask


def _work_dtype(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def _no_autocast(q: Tensor) -> torch.autocast:
    # The tap has already cast q and k as autocast would; here it could only coarsen the logits.
    return torch.autocast(q.device.type, enabled=False)


def _valid(weights_1RL: Tensor, site: Site) -> Tensor:
    """The weights on the text that a sample of its own length has."""
    if bool(weights_1RL[..., site.num_text :].any()):
        raise ValueError(
            f"{site.module}: a weight on text beyond the sample's {site.num_text} valid tokens"
        )
    return weights_1RL[..., : site.num_text]


def _check(captured: Captured, site: Site, weights: Tensor, tokens: int, what: str) -> None:
    if tokens == 0:
        raise ValueError(f"{site.module} has no {what} keys")
    batch = captured.q.shape[0] if isinstance(captured, Call) else len(captured)
    if weights.ndim != 3 or weights.shape[-1] != tokens or weights.shape[0] != batch:
        raise ValueError(
            f"{site.module}: weights {tuple(weights.shape)}, expected [{batch}, R, {tokens}]"
        )
    if not isinstance(captured, Call):
        return  # each part is checked by itself
    call = captured
    for found, expected in ((call.q, site.num_queries), (call.k, site.num_keys)):
        if found.shape[-2] != expected:
            raise ValueError(f"{site.module}: {found.shape[-2]} tokens, expected {expected}")
