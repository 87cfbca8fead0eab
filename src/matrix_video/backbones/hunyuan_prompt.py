"""The template that HunyuanVideo puts around a caption, and where the caption's tokens end up.

The text encoder (Llama, or Llava where it also sees the first frame) reads a long instruction with
the caption in it; the transformer is given only what comes after the instruction. With an image,
its tokens are taken out of the instruction, thinned and put first, and the four tokens that open
the assistant's turn are left out. All this happens inside the stock pipeline; here it is followed
with offsets.

Shapes: B captions, L text tokens of a site: [image tokens, caption, end of turn, padding].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import torch
from PIL import Image
from torch import Tensor

from matrix_video.backbones.frames import pictures
from matrix_video.backbones.text import Text
from matrix_video.services.errors import MatrixError

MASK: Final = "encoder_attention_mask"
POOLED: Final = "pooled_projections"
"""Of `Text.extra`, by the transformer's own names: [B,L], and CLIP's embedding [B,E]."""

Template = Mapping[str, str | int]
"""The ``prompt_template`` argument of the stock pipelines' calls."""

_TEXT_LENGTH: Final = 256  # the stock calls' max_sequence_length
_HEADER_END: Final = "<|end_header_id|>"
_STOCK_INTERLEAVE: Final = 2  # of `encode_prompt`
_OPENING: Final = 4
"""End of turn, start of header, "assistant", end of header: cut out of what Llava gives."""
_OUTSIDE: Final = (0, 0)


class CaptionTokenizer:
    """A `data.spans.FastTokenizer` of captions, whose tokens are the text tokens of a site.

    Offsets are characters of the caption; tokens that are not the caption's have offsets (0, 0).
    ``interleave`` is every how many image tokens one is kept; None: the encoder sees no image.
    """

    def __init__(self, tokenizer: Any, template: Template, interleave: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._template, self._crop = _checked(template, with_image=interleave is not None)
        self._start = len(self._template.partition("{}")[0].format())
        self._image = interleave is not None
        self.image_tokens = 0
        """Image tokens among the text tokens, at their beginning."""
        if interleave is not None:
            start, end = int(template["image_emb_start"]), int(template["image_emb_end"])
            self.image_tokens = len(range(start, end, interleave))

    def num_tokens(self, max_sequence_length: int) -> int:
        """L of a stock call with this ``max_sequence_length``."""
        return max_sequence_length + self.image_tokens - _OPENING * self._image

    def __call__(
        self,
        text: str,
        *,
        padding: Literal[False, "max_length"],
        truncation: bool,
        max_length: int | None,
        return_offsets_mapping: bool,
        verbose: bool,
    ) -> Mapping[str, Any]:
        """``offset_mapping`` and ``attention_mask`` of one caption; ``max_length`` is L."""
        length = None
        if max_length is not None:
            length = max_length - self.num_tokens(0) + self._crop
        encoded = self._tokenizer(
            self._template.format(text),
            padding=padding,
            truncation=truncation,
            max_length=length,
            return_offsets_mapping=return_offsets_mapping,
            verbose=verbose,
        )
        kept = self._kept(encoded["input_ids"])
        offsets, attended = encoded["offset_mapping"], encoded["attention_mask"]
        return {
            "offset_mapping": [_OUTSIDE] * self.image_tokens
            + [self._inside(offsets[i], len(text)) for i in kept],
            "attention_mask": [1] * self.image_tokens + [attended[i] for i in kept],
        }

    def _kept(self, tokens: Sequence[int]) -> list[int]:
        """Positions, in the encoder's sequence, of the text tokens after the image's."""
        if not self._image:
            return list(range(self._crop, len(tokens)))
        end = self._tokenizer.convert_tokens_to_ids(_HEADER_END)
        headers = [i for i, token in enumerate(tokens) if token == end]
        # System, user, assistant. Where a long caption pushed the last one out, the stock pipeline
        # cuts the sequence's last tokens instead, which are then the caption's.
        after = (headers[-1] if len(headers) != 2 else len(tokens) - 1) + 1
        return [*range(self._crop, after - _OPENING), *range(after, len(tokens))]

    def _inside(self, offset: tuple[int, int], length: int) -> tuple[int, int]:
        """The part of a token's characters that is in the caption of this length."""
        start = max(offset[0] - self._start, 0)
        end = min(offset[1] - self._start, length)
        return (start, end) if start < end else _OUTSIDE


class Prompts:
    """Captions, with their first frames where there are any, through a stock pipeline's encoders.

    ``interleave`` as in `CaptionTokenizer`.
    """

    def __init__(self, pipe: Any, template: Template, interleave: int | None) -> None:
        self._pipe = pipe
        self.template, self._interleave = template, interleave
        self.tokenizer = CaptionTokenizer(pipe.tokenizer, template, interleave)

    @property
    def max_sequence_length(self) -> int:
        """Of the stock call: tokens after the crop."""
        return min(int(self._pipe.tokenizer.model_max_length), _TEXT_LENGTH)

    @property
    def num_tokens(self) -> int:
        """L."""
        return self.tokenizer.num_tokens(self.max_sequence_length)

    @property
    def negative_tokens(self) -> int:
        """L of a negative prompt that the stock call encodes."""
        stock = CaptionTokenizer(self._pipe.tokenizer, self.template, _STOCK_INTERLEAVE)
        return stock.num_tokens(self.max_sequence_length)

    def encode(self, captions: Sequence[str], images_BHWC: Tensor | None) -> Text:
        """As `Backbone.encode_text`."""
        if self._interleave is None:
            return self._encode(prompt=list(captions))
        black = Image.new("RGB", (8, 8))
        given = [black] * len(captions) if images_BHWC is None else pictures(images_BHWC)
        # One by one: of a batch with a truncated caption the stock pipeline cuts the wrong tokens.
        return Text.cat(
            [
                self._encode(prompt=[caption], image=image, image_embed_interleave=self._interleave)
                for caption, image in zip(captions, given, strict=True)
            ]
        )

    @torch.no_grad()
    def _encode(self, **arguments: Any) -> Text:
        embeds, pooled, mask = self._pipe.encode_prompt(
            prompt_template=self.template,
            max_sequence_length=self.max_sequence_length,
            **arguments,
        )
        return Text(embeds, {MASK: mask, POOLED: pooled})


def _checked(template: Template, *, with_image: bool) -> tuple[str, int]:
    """Text and crop of a template. `MatrixError` for one that we cannot follow."""
    text, crop = template.get("template"), template.get("crop_start")
    if not isinstance(text, str) or text.count("{}") != 1 or not isinstance(crop, int):
        raise MatrixError(
            "a prompt template needs a text with one {} for the caption, and crop_start, the first "
            f"token that the transformer is given; this one has text {text!r}, crop_start {crop!r}",
            remedy="give both, as in the stock pipeline's default template",
            field="template",
        )
    if with_image and (crop < 1 or "image_emb_start" not in template):
        raise MatrixError(
            "a prompt template with an image needs crop_start of at least 1, image_emb_start, "
            "image_emb_end and image_emb_len: without a crop the stock pipeline leaves image and "
            "mask in disorder",
            remedy="start from the stock image-to-video pipeline's default template",
            field="template",
        )
    return text, crop
