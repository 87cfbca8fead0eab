"""HunyuanVideo pipelines small enough for tests: every part the real class, with random weights."""

from __future__ import annotations

from typing import Any, Final, Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import AutoencoderKLHunyuanVideo
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import HunyuanVideoPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_image2video import (
    HunyuanVideoImageToVideoPipeline,
)
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from matrix_video.backbones.tiny import WORDS

Condition = Literal["latent_concat", "token_replace"]

CONDITIONS: Final[dict[str, Condition | None]] = {
    "t2v": None,
    "i2v-concat": "latent_concat",
    "i2v-replace": "token_replace",
}
"""How the variants take a first frame."""

_BOS, _IMAGE = "<|begin_of_text|>", "<image>"
_SPECIAL = (_BOS, "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", _IMAGE)
_TEXT_DIM, _POOLED_DIM, _CHANNELS = 16, 8, 4
_SIDE = 24
"""Patches along an image's side: the default template has room for 24 x 24."""


def tiny_hunyuan(
    seed: int = 0,
    *,
    condition: Condition | None = None,
    layers: int = 2,
    single_layers: int = 2,
    text_length: int = 32,
) -> HunyuanVideoPipeline | HunyuanVideoImageToVideoPipeline:
    """A complete stock pipeline, random by ``seed``; the global generator is left as it was.

    A call gives captions ``max_sequence_length=text_length`` and any template, the default too.
    Tokens are 2 x 2 latents, latents 4 x 8 x 8 pixels.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = _llama_tokenizer(text_length)
        clip_tokenizer = _clip_tokenizer()
        parts: dict[str, Any] = {
            "tokenizer": tokenizer,
            "text_encoder": _text_encoder(tokenizer, with_image=condition is not None).eval(),
            "tokenizer_2": clip_tokenizer,
            "text_encoder_2": _clip_encoder(clip_tokenizer).eval(),
            "vae": _vae().eval(),
            "transformer": _transformer(condition, layers, single_layers).eval(),
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
        }
    pipeline = HunyuanVideoPipeline
    if condition is not None:
        pipeline = HunyuanVideoImageToVideoPipeline
        side = 2 * _SIDE
        parts["image_processor"] = CLIPImageProcessor(crop_size=side, size=side)
    pipe: Any = pipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _llama_tokenizer(text_length: int) -> PreTrainedTokenizerFast:
    """Word-level, but with Llama's tokens of the templates: as many, at the same places.

    That takes its special tokens, runs of newlines, and a space of its own before a number.
    """
    words = ("<pad>", "<unk>", *_SPECIAL, *WORDS)
    model = WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    tokenizer: Any = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" +(?!\d)"), "removed"),
            pre_tokenizers.Split(Regex(r"\n+|\w+|[^\w\s]| "), "isolated"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BOS} $A", special_tokens=[(_BOS, words.index(_BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token=_BOS,
        additional_special_tokens=list(_SPECIAL[1:]),
        model_max_length=text_length,
        padding_side="right",
    )


def _clip_tokenizer() -> CLIPTokenizer:
    """The real one's class, with bytes alone for its vocabulary."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = (*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>")
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def _text_encoder(tokenizer: Any, *, with_image: bool) -> Any:
    llama = LlamaConfig(
        hidden_size=_TEXT_DIM,
        intermediate_size=2 * _TEXT_DIM,
        num_attention_heads=2,
        num_hidden_layers=3,  # the pipelines take the third to last states
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    if not with_image:
        return LlamaModel(llama)
    vision = CLIPVisionConfig(
        hidden_size=_TEXT_DIM,
        intermediate_size=_TEXT_DIM,
        num_attention_heads=2,
        num_hidden_layers=2,
        image_size=2 * _SIDE,
        patch_size=2,
    )
    config: Any = LlavaConfig(
        vision_config=vision,
        text_config=llama,
        image_token_index=tokenizer.convert_tokens_to_ids(_IMAGE),
    )
    config.pad_token_id = tokenizer.pad_token_id
    return LlavaForConditionalGeneration(config)


def _clip_encoder(tokenizer: Any) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=_POOLED_DIM,
            intermediate_size=2 * _POOLED_DIM,
            num_attention_heads=2,
            num_hidden_layers=2,
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _vae() -> Any:
    return AutoencoderKLHunyuanVideo(
        latent_channels=_CHANNELS,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8,) * 4,  # pyright: ignore
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=0.7,
    )


def _transformer(condition: Condition | None, layers: int, single_layers: int) -> Any:
    return HunyuanVideoTransformer3DModel(
        in_channels=2 * _CHANNELS + 1 if condition == "latent_concat" else _CHANNELS,
        out_channels=_CHANNELS,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=layers,
        num_single_layers=single_layers,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        patch_size=2,
        patch_size_t=1,
        guidance_embeds=condition != "latent_concat",  # as the published checkpoints have it
        text_embed_dim=_TEXT_DIM,
        pooled_projection_dim=_POOLED_DIM,
        rope_axes_dim=(4, 6, 6),
        image_condition_type=condition,
    )
