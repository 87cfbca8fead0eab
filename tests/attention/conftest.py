"""Shared by the tests of attention: a dense float64 reference and a small attention model.

Shapes: B batch, A heads, Nq queries, Nk keys, N video tokens, R rows of weights, D head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from matrix_video.attention.site import Call, Site


def dense_p(call: Call) -> Tensor:
    """P [B,A,Nq,Nk] in float64, by the definition."""
    q, k = call.q.double(), call.k.double()
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scale = 1 / math.sqrt(q.shape[-1]) if call.scale is None else call.scale
    logits = torch.einsum("band,bamd->banm", q, k) * scale
    if call.is_causal:
        rows, columns = logits.shape[-2:]
        later = torch.arange(columns)[None] > torch.arange(rows)[:, None]
        logits = logits.masked_fill(later, -math.inf)
    if call.mask is not None:
        if call.mask.dtype == torch.bool:
            logits = logits.masked_fill(~call.mask, -math.inf)
        else:
            logits = logits + call.mask.double()
    top = logits.amax(-1, keepdim=True).clamp_min(-1e300)
    exp = (logits - top).exp()
    return exp / exp.sum(-1, keepdim=True).clamp_min(1e-300)


def dense_v2t(call: Call, site: Site, weights_BRL: Tensor) -> Tensor:
    p_BANL = dense_p(call)[:, :, site.video, site.text]
    return torch.einsum("brl,banl->barn", weights_BRL.double(), p_BANL)


def dense_v2v(call: Call, site: Site, weights_BRN: Tensor) -> Tensor:
    p_BAMN = dense_p(call)[:, :, site.video, site.video]
    return torch.einsum("brm,bamn->barn", weights_BRN.double(), p_BAMN)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """max|Δ| / max|expected|; the plain maximum where nothing is expected."""
    assert found.shape == expected.shape
    found, expected = found.detach(), expected.detach()
    top = float(expected.abs().max())
    return float((found.double() - expected.double()).abs().max()) / (top or 1.0)


@dataclass(frozen=True)
class Dense:
    p: Callable[[Call], Tensor]
    v2t: Callable[[Call, Site, Tensor], Tensor]
    v2v: Callable[[Call, Site, Tensor], Tensor]
    error: Callable[[Tensor, Tensor], float]


@pytest.fixture(scope="session")
def dense() -> Dense:
    return Dense(dense_p, dense_v2t, dense_v2v, relative_error)


class Attention(nn.Module):
    """Self-attention over [text, video] tokens with ``calls`` attention calls (the last counts)."""

    def __init__(self, width: int, heads: int, calls: int = 1) -> None:
        super().__init__()
        self.to_q, self.to_k = nn.Linear(width, width), nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.heads, self.calls = heads, calls

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for f in (self.to_q, self.to_k, self.to_v)
        )
        out = v
        for _ in range(self.calls):
            out = F.scaled_dot_product_attention(q, k, value=out)
        return out.transpose(1, 2).flatten(2)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, calls: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads, calls)
        self.ff = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ff(torch.tanh(x + self.attn(x)))


class Model(nn.Module):
    """Blocks in a row; ``skip``: blocks left out; ``reentrant``: checkpoints, None for none."""

    def __init__(self, layers: int = 2, width: int = 16, heads: int = 2, calls: int = 1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, calls) for _ in range(layers))
        self.skip: set[int] = set()
        self.reentrant: bool | None = None
        self.fail = False

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.blocks):
            if index in self.skip:
                continue
            if self.reentrant is None:
                x = block(x)
            else:
                x = checkpoint(block, x, use_reentrant=self.reentrant)
        if self.fail:
            raise ArithmeticError("planted")
        return x


@pytest.fixture
def make_model() -> Callable[..., Model]:
    def make(**settings: int) -> Model:
        torch.manual_seed(0)
        return Model(**settings)

    return make


@pytest.fixture
def make_site() -> Callable[..., Site]:
    def make(layer: int = 0, *, text: int = 3, video: int = 8, **more: object) -> Site:
        return Site(
            module=f"blocks.{layer}.attn",
            num_queries=text + video,
            num_keys=text + video,
            video_start=text,
            num_video=video,
            text_start=0,
            num_text=text,
            **more,  # type: ignore[arg-type]
        )

    return make
