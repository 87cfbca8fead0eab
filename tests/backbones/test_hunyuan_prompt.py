"""Where the caption's tokens are behind HunyuanVideo's templates.

What the text encoder gives says so itself: it is causal, so that of two captions that differ in one
word the embeddings are equal before that word's token and differ from it on.

Shapes: L text tokens.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from matrix_video.backbones.hunyuan import HunyuanVideoBackbone
from matrix_video.backbones.hunyuan_prompt import Template
from matrix_video.backbones.text import TokenKind
from matrix_video.data.sample import Span
from matrix_video.services.errors import MatrixError

CAPTION = "a small red ball pushes the 2 boxes."
LONG = "the red cat follows " * 9 + "a dog"  # 38 tokens, of which a site of 32 has room for fewer
BARE: Template = {"template": "{}", "crop_start": 0}
SHORT: Template = {"template": "the man and 7 cups:\n\n{}<|eot_id|>", "crop_start": 9}
LOOSE: Template = {"template": "the man and 7 cups:\n\n{} on<|eot_id|>", "crop_start": 4}
"""Keeps some of the template in front of the caption."""
CASES: dict[str, tuple[str, Template | None]] = {
    "t2v": ("t2v", None),
    "i2v-concat": ("i2v-concat", None),
    "i2v-replace": ("i2v-replace", None),
    "bare": ("t2v", BARE),
    "short": ("t2v", SHORT),
    "loose": ("t2v", LOOSE),
}


@pytest.fixture(scope="module", params=CASES)
def backbone(request: pytest.FixtureRequest) -> HunyuanVideoBackbone:
    variant, template = CASES[request.param]
    return HunyuanVideoBackbone(HunyuanVideoBackbone.tiny(variant), template=template)


def tokens(
    backbone: HunyuanVideoBackbone, caption: str, word: str, start: int = 0
) -> tuple[int, ...]:
    at = caption.index(word, start)
    spans = [Span(start=at, end=at + len(word))]
    (found,) = backbone.phrase_tokens(caption, [spans])
    return found


def first_difference(backbone: HunyuanVideoBackbone, one: str, other: str) -> int:
    pair: list[Tensor] = [backbone.encode_text([caption]).embeds_BLE[0] for caption in (one, other)]
    changed_L = (pair[0] - pair[1]).abs().amax(dim=-1) > 1e-6
    return int(changed_L.nonzero()[0])


@pytest.mark.parametrize("word", ["a", "red", "ball", "boxes", "."])
def test_a_word_is_where_its_embedding_changes(backbone: HunyuanVideoBackbone, word: str) -> None:
    start = CAPTION.index(word)
    changed = CAPTION[:start] + "woman" + CAPTION[start + len(word) :]
    assert tokens(backbone, CAPTION, word) == (first_difference(backbone, CAPTION, changed),)


def test_kinds(backbone: HunyuanVideoBackbone) -> None:
    for caption in (CAPTION, "", LONG):
        kinds = backbone.token_kinds(caption)
        assert len(kinds) == backbone.num_text_tokens
        mask_L = backbone.encode_text([caption]).extra["encoder_attention_mask"][0]
        assert [kind is not TokenKind.PADDING for kind in kinds] == mask_L.bool().tolist()
        images = kinds.count(TokenKind.IMAGE)
        assert kinds[:images] == (TokenKind.IMAGE,) * images
        assert bool(images) == backbone.takes_image
    kinds = backbone.token_kinds(CAPTION)
    words = [i for i, kind in enumerate(kinds) if kind is TokenKind.WORD]
    # a small red ball pushes the, a space of its own, 2 boxes .
    assert len(words) == 10
    assert words == list(range(words[0], words[0] + 10))
    assert (words[0],) == tokens(backbone, CAPTION, "a")


def test_a_long_caption_is_read_up_to_where_the_stock_pipeline_cuts_it(
    backbone: HunyuanVideoBackbone,
) -> None:
    kinds = backbone.token_kinds(LONG)
    last = max(i for i, kind in enumerate(kinds) if kind is TokenKind.WORD)
    assert last == backbone.num_text_tokens - 1
    kept = last - kinds.index(TokenKind.WORD)  # words before the last
    places = [i for i in range(len(LONG)) if i == 0 or LONG[i - 1] == " "]
    at = places[kept]
    word = LONG[at:].split(" ")[0]
    changed = LONG[:at] + "woman" + LONG[at + len(word) :]
    assert (
        tokens(backbone, LONG, word, at) == (first_difference(backbone, LONG, changed),) == (last,)
    )
    with pytest.raises(MatrixError, match=r"the phrase 'dog' .*is cut off|'dog' is cut off"):
        tokens(backbone, LONG, "dog")


def test_the_tiny_tokenizer_has_llama_s_tokens_of_the_templates() -> None:
    """The stock pipelines' crops are right for it as they are for the real one."""
    for variant in HunyuanVideoBackbone.variants:
        backbone = HunyuanVideoBackbone(HunyuanVideoBackbone.tiny(variant))
        images = backbone.tokenizer.image_tokens
        assert tokens(backbone, CAPTION, "a") == (images,)


def test_templates_change_the_key_of_caches() -> None:
    pipe = HunyuanVideoBackbone.tiny("t2v")
    keys = [
        HunyuanVideoBackbone(pipe, template=template).encoders_key()
        for template in (None, BARE, SHORT, None)
    ]
    assert keys[0] == keys[3]
    assert len(set(keys)) == 3


def test_templates_that_cannot_be_followed() -> None:
    pipe: Any = HunyuanVideoBackbone.tiny("t2v")
    for wrong in ({"template": "a {} b {}", "crop_start": 0}, {"template": "{}"}):
        with pytest.raises(MatrixError, match=r"needs a text with one \{\} for the caption, and"):
            HunyuanVideoBackbone(pipe, template=wrong)
    pipe = HunyuanVideoBackbone.tiny("i2v-replace")
    for wrong in (BARE, SHORT):
        with pytest.raises(MatrixError, match=r"with an image needs crop_start of at least 1"):
            HunyuanVideoBackbone(pipe, template=wrong)


@pytest.mark.parametrize("template", [None, BARE, SHORT, LOOSE])
def test_a_stock_call_is_given_the_template(template: Template | None) -> None:
    pipe: Any = HunyuanVideoBackbone.tiny("t2v")
    backbone = HunyuanVideoBackbone(pipe, template=template)
    arguments = backbone.call_arguments(torch.zeros(1, 3, 4, 4, 6), (9, 32, 48), None)
    given = {name: arguments[name] for name in ("prompt_template", "max_sequence_length")}
    with torch.no_grad():
        embeds, *_ = pipe.encode_prompt(prompt=[CAPTION], **given)
    assert torch.equal(embeds, backbone.encode_text([CAPTION]).embeds_BLE)
