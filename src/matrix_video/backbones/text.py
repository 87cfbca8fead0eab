"""Captions as a transformer takes them.

Shapes: B captions, L text tokens, E width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import torch
from torch import Tensor

from matrix_video.backbones.frames import finite


class TokenKind(IntEnum):
    """What a text token of a site stands for; all but words are candidates for attention sinks."""

    WORD = 0
    SPECIAL = 1
    """An end or start token, or one of a template around the caption."""
    PADDING = 2
    IMAGE = 3


@dataclass(frozen=True, eq=False)
class Text:
    """Encoded captions; the first axis of every tensor is the batch."""

    embeds_BLE: Tensor
    """What the text tokens of a site (see `attention.site`) are made from."""
    extra: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """What else the family's transformer needs (masks, pooled embeddings), by its own names."""

    def __post_init__(self) -> None:
        """`MatrixError` for an embedding that is NaN or infinite."""
        for value in (self.embeds_BLE, *self.extra.values()):
            finite(value, "the caption's embeddings")

    def __len__(self) -> int:
        return len(self.embeds_BLE)

    def to(self, device: torch.device | str) -> Text:
        extra = {name: value.to(device) for name, value in self.extra.items()}
        return Text(self.embeds_BLE.to(device), extra)

    def given(self, extra: Mapping[str, Tensor]) -> Text:
        """The captions with further tensors of the same batch, e.g. `Backbone.image_extra`'s."""
        return Text(self.embeds_BLE, {**self.extra, **extra})

    def expand(self, size: int) -> Text:
        """One caption for a whole batch, without copies."""
        extra = {name: value.expand(size, *value.shape[1:]) for name, value in self.extra.items()}
        return Text(self.embeds_BLE.expand(size, -1, -1), extra)

    @staticmethod
    def cat(texts: Sequence[Text]) -> Text:
        """The captions of all of them, in order."""
        extra = {name: torch.cat([text.extra[name] for text in texts]) for name in texts[0].extra}
        return Text(torch.cat([text.embeds_BLE for text in texts]), extra)
