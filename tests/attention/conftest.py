"""Shared by the tests of attention: a small attention model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from matrix_video.attention.site import Site


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
