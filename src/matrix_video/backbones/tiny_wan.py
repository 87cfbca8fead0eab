"""Wan pipelines small enough for tests: every part the real class, with random weights."""

from __future__ import annotations

from typing import Any, Final, TypedDict

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    UMT5Config,
    UMT5EncoderModel,
)

from matrix_video.backbones.tiny import tiny_tokenizer

_TEXT_DIM = 32
_CLIP_DIM = 4


class Shape(TypedDict, total=False):
    """What tells the checkpoints apart; arguments of `tiny_wan`."""

    i2v: bool
    clip: bool
    boundary: float | None
    small: bool


VARIANTS: Final[dict[str, Shape]] = {
    "t2v": {},
    "i2v": {"i2v": True, "clip": True},
    "t2v-2.2": {"boundary": 0.875},
    "i2v-2.2": {"i2v": True, "boundary": 0.9},
    "ti2v-5b": {"i2v": True, "small": True},
    "t2v-5b": {"small": True},
}
"""Wan 2.1 (the first two) and 2.2, whose 5B model has a text-to-video pipeline of its own."""


def tiny_wan(
    seed: int = 0,
    *,
    i2v: bool = False,
    clip: bool = False,
    boundary: float | None = None,
    small: bool = False,
    layers: int = 3,
) -> WanPipeline | WanImageToVideoPipeline:
    """A complete stock pipeline, random by ``seed``; the global generator is left as it was.

    ``clip``: image tokens in the cross-attention (2.1 image-to-video), with captions of 512 tokens
    as the published ones; else captions have 32. ``boundary``: two experts. ``small``: the shape of
    the 5B model, a VAE of 4 x 16 x 16 and timesteps per token; else 4 x 8 x 8. Tokens are 2 x 2
    latents.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer(text_length=512 if clip else 32)
        vae = _vae(small)
        channels: int = vae.config.z_dim
        given = 2 * channels + 4 if i2v and not small else channels
        parts: dict[str, Any] = {
            "tokenizer": tokenizer,
            "text_encoder": _text_encoder(len(tokenizer)).eval(),
            "vae": vae.eval(),
            "transformer": _transformer(given, channels, clip, layers).eval(),
        }
        if boundary is not None:
            parts["transformer_2"] = _transformer(given, channels, clip, layers).eval()
        if clip:
            parts["image_encoder"] = _image_encoder().eval()
            parts["image_processor"] = CLIPImageProcessor(crop_size=32, size=32)
    parts["scheduler"] = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    pipeline = WanImageToVideoPipeline if i2v else WanPipeline
    pipe: Any = pipeline(**parts, boundary_ratio=boundary, expand_timesteps=small)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _vae(small: bool) -> Any:
    if not small:
        return AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    channels = 8
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.1 * c for c in range(channels)],
        latents_std=[0.5 + 0.1 * c for c in range(channels)],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )


def _transformer(given: int, channels: int, clip: bool, layers: int) -> Any:
    heads, head_dim = 2, 12
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        in_channels=given,
        out_channels=channels,
        text_dim=_TEXT_DIM,
        freq_dim=32,
        ffn_dim=32,
        num_layers=layers,
        image_dim=_CLIP_DIM if clip else None,
        added_kv_proj_dim=heads * head_dim if clip else None,
        rope_max_seq_len=64,
    )


def _text_encoder(vocab: int) -> Any:
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocab,
            d_model=_TEXT_DIM,
            d_kv=8,
            d_ff=2 * _TEXT_DIM,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )


def _image_encoder() -> Any:
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=_CLIP_DIM,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
        )
    )
