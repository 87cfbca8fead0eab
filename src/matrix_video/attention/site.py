"""Where one layer's attention lives, and what was observed there.

Shapes: B batch, A attention heads, Nq queries, Nk keys, D head size, N video tokens, L text tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from matrix_video.attention.flash import Flash

Kind = Literal["v2t", "v2v"]


def _whole_batch() -> slice:
    return slice(None)


@dataclass(frozen=True)
class Site:
    """Which call of ``F.scaled_dot_product_attention`` to read, and which tokens are which.

    A backbone declares it. The video tokens are contiguous and frame-major: queries (and, where
    ``video_keys``, keys) ``video_start ... video_start + num_video``. The text tokens are the keys
    ``text_start ... text_start + num_text``; ``num_text`` 0 means that no text is attended to here.
    ``num_queries`` and ``num_keys`` are the full lengths, checked on every capture, so that a
    prefix or suffix that the backbone did not know of is an error and not a shifted map.
    """

    module: str
    """Dotted name of the attention module in the transformer."""
    num_queries: int
    num_keys: int
    video_start: int
    num_video: int
    text_start: int = 0
    num_text: int = 0
    video_keys: bool = True
    """False in cross-attention, whose keys are text alone."""
    calls: int = 1
    """Calls expected in one forward of the module."""
    call: int = 0
    """Index of the call to read."""
    keep: slice = field(default_factory=_whole_batch, hash=False)
    """Part of the batch to capture, e.g. the conditional half of [unconditional, conditional]."""
    per_sample: bool = False
    """The module attends once for each sample, over its video and its own valid text alone, which
    stands last; ``num_queries``, ``num_keys`` and ``num_text`` are then the longest possible, and
    ``calls`` and ``call`` say nothing."""
    others_keys: int | None = None
    """Number of keys by which a forward is known that is not this site's, such as that of a
    negative prompt of another length: nothing is captured there."""

    def __post_init__(self) -> None:
        if not 0 <= self.call < self.calls:
            raise ValueError(f"{self.module}: call {self.call} of {self.calls}")
        video_end = self.video_start + self.num_video
        if self.num_video < 1 or self.video_start < 0 or video_end > self.num_queries:
            raise ValueError(f"{self.module}: video tokens end at {video_end}, {self}")
        if self.video_keys and video_end > self.num_keys:
            raise ValueError(f"{self.module}: video keys end at {video_end}, {self}")
        if self.text_start < 0 or self.text_start + self.num_text > self.num_keys:
            raise ValueError(f"{self.module}: text keys end past {self.num_keys}, {self}")
        if self.per_sample and self.text_start + self.num_text != self.num_keys:
            raise ValueError(f"{self.module}: text that varies in length must stand last, {self}")

    @property
    def video(self) -> slice:
        """Video tokens among the queries (and among the keys where there are any)."""
        return slice(self.video_start, self.video_start + self.num_video)

    @property
    def text(self) -> slice:
        """Text tokens among the keys."""
        return slice(self.text_start, self.text_start + self.num_text)

    def shortened(self, num_keys: int) -> Site:
        """The site of one sample's call, of this many keys, where ``per_sample``."""
        less = self.num_keys - num_keys
        return replace(
            self,
            num_queries=self.num_queries - less,
            num_keys=num_keys,
            num_text=self.num_text - less,
            per_sample=False,
        )


@dataclass(frozen=True, eq=False)
class Call:
    """Arguments of one observed attention call, as they reach the softmax.

    ``q`` [B,A,Nq,D] and ``k`` [B,A,Nk,D] (fewer heads in ``k`` with ``enable_gqa``) are after
    normalisation and rotary embedding and carry their graph; under autocast they are in the dtype
    that the kernel computed in. ``mask`` is what the model passed: bool (true: attend) or additive,
    broadcastable to [B,A,Nq,Nk]. ``scale`` None means 1/sqrt(D). ``v`` and ``out`` [B,A,Nq,D] are
    there only when the tap was asked to keep them. ``flash`` is there when the call ran through
    `attention.flash`: maps then cost little more than the entries of P that they sum.
    """

    q: Tensor
    k: Tensor
    mask: Tensor | None = None
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False
    v: Tensor | None = None
    out: Tensor | None = None
    flash: Flash | None = None


Captured = Call | tuple[Call, ...]
"""What a tap keeps of a site: one call, or one for each sample where ``site.per_sample``."""


def parts(captured: Captured, site: Site) -> tuple[tuple[Call, Site], ...]:
    """The calls of a site, each with a site of its own lengths: one, or one for each sample."""
    if isinstance(captured, Call):
        return ((captured, site),)
    return tuple((call, site.shortened(call.k.shape[-2])) for call in captured)
