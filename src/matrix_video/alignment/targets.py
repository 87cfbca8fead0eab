"""What the decoded maps of a batch are compared with.

Shapes: B batch, R maps of a sample (padded), F token frames, T = 1 + r(F-1) output frames,
H W output rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """Masks on the decoder's grid.

    ``mask`` bool [B,R,T,H,W]; ``known`` bool [B,R,T], false in frames that are not annotated;
    ``present`` bool [B,R], false in padding rows; ``weight`` [B,R], how much each map counts in its
    sample's mean (None: alike).
    """

    mask_BRTHW: Tensor
    known_BRT: Tensor
    present_BR: Tensor
    weight_BR: Tensor | None = None


def token_ratio(token_frames: Sequence[Sequence[int]]) -> int:
    """Pixel frames per token frame (r): the largest group, since the first is cut short."""
    return max((len(group) for group in token_frames), default=1) or 1


def output_frames(token_frames: Sequence[Sequence[int]], ratio: int) -> tuple[int | None, ...]:
    """The pixel frame of each of the decoder's 1 + r(F-1) output frames.

    ``token_frames[k]`` lists the pixel frames of token frame k (see `data.grid.TokenGrid`). Groups
    are right-aligned, so a shorter one starts with None: unknown, and so never supervised. Raises
    ``ValueError`` where a group is larger than ``ratio``, or the first than one frame.
    """
    frames: list[int | None] = []
    for index, group in enumerate(token_frames):
        room = ratio if index else 1
        if len(group) > room:
            raise ValueError(
                f"token frame {index} holds {len(group)} pixel frames, room for {room}"
            )
        frames += [None] * (room - len(group)) + list(group)
    return tuple(frames)
