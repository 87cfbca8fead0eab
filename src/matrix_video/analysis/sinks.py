"""Attention sinks: how much of a layer's attention goes to tokens that say nothing.

Shapes: B noise levels of one clip, K kinds of tokens, L text tokens, N video tokens.

A transformer parks attention that it has no use for on tokens without meaning: end tokens, padding
(CogVideoX and Wan attend to theirs), templates. AAS does not see this, since it is a share of the
phrase's own map. So the share of each kind of token is measured beside it (our choice; the paper
does not speak of sinks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from matrix_video.attention.readout import v2t_maps
from matrix_video.attention.site import Captured, Site, parts
from matrix_video.backbones.text import TokenKind

Tokens = Literal["word", "special", "padding", "image", "video", "other"]
"""Kinds of keys: words of the caption; start, end and template tokens; padding; image tokens among
the text; video tokens (joint attention alone); keys that are none of these, where there are any."""
TEXT: Final[tuple[tuple[TokenKind, Tokens], ...]] = (
    (TokenKind.WORD, "word"),
    (TokenKind.SPECIAL, "special"),
    (TokenKind.PADDING, "padding"),
    (TokenKind.IMAGE, "image"),
)
TOKENS: Final[tuple[Tokens, ...]] = (*(name for _, name in TEXT), "video", "other")


@dataclass(frozen=True, eq=False)
class Share:
    """Part of the video tokens' attention that one kind of token gets."""

    tokens: Tokens
    count: int
    """How many keys are of this kind; at least one."""
    share_B: Tensor
    """In [0, 1], mean over heads and video tokens, float64 on the CPU; all kinds sum to 1."""


def attention_shares(
    captured: Captured, site: Site, kinds: Sequence[TokenKind]
) -> tuple[Share, ...]:
    """Shares of all kinds of keys at a V2T site, those without a key left out.

    ``kinds`` are those of the L text tokens (`Backbone.token_kinds`), of one caption for the whole
    batch; where samples attend to their own valid text alone, what lies beyond it is no key. Exact:
    a kind's map is n times the readout of weights 1/n on its n tokens, and what is left of a row
    of P is the other keys'. Raises ``ValueError`` when ``kinds`` are of another length.
    """
    if len(kinds) != site.num_text:
        raise ValueError(f"{site.module}: {len(kinds)} kinds of {site.num_text} text tokens")
    calls = parts(captured, site)
    own = calls[0][1]  # one caption, so all parts are of the same lengths
    kinds_L = torch.tensor([int(kind) for kind in kinds])
    kinds_L[own.num_text :] = -1
    present: list[tuple[Tokens, Tensor]] = [
        (name, kinds_L == int(kind)) for kind, name in TEXT if int(kind) in kinds_L
    ]
    counts = [int(of_kind_L.sum()) for _, of_kind_L in present]
    weights_KL = torch.stack([of_kind_L / of_kind_L.sum() for _, of_kind_L in present])
    call, batch = calls[0][0], sum(len(call.q) for call, _ in calls)
    maps_BKN = v2t_maps(captured, site, weights_KL.to(call.q.device).expand(batch, -1, -1))
    shares_KB = maps_BKN.double().mean(dim=-1).cpu().T * torch.tensor(counts)[:, None]
    found = [
        Share(name, n, share_B)
        for (name, _), n, share_B in zip(present, counts, shares_KB, strict=True)
    ]
    rest = own.num_keys - own.num_text
    if rest:
        # Rounding may leave a little less than nothing.
        left_B = (1 - shares_KB.sum(dim=0)).clamp_min(0)
        video = own.video_keys and rest == own.num_video
        found.append(Share("video" if video else "other", rest, left_B))
    return tuple(found)
