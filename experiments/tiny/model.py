"""The parts of the tiny Wan pipeline, untrained, and their assembly into a stock folder.

Every part is the class that a full-size Wan 2.2 image-to-video model uses, with small numbers (our
choice): 64 x 64 clips of 17 frames, 5 latent frames of 16 x 16, 320 video tokens of 8 x 8 pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
)
from torch import nn
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

TEXT_LENGTH: Final = 32
TEXT_WIDTH: Final = 128
LATENT_CHANNELS: Final = 16
MASK_CHANNELS: Final = 4
HEAD_DIM: Final = 32
SHIFT: Final = 3.0
"""Shift of the noise schedule; Wan's own for small frames (the model card of Wan 2.1 at 480p)."""


def new_vae() -> AutoencoderKLWan:
    """Causal 3-D VAE, 4x in time and 4x in space, 0.62 M parameters.

    Eight channels at full resolution, where most of its time goes; 32 below. Latents start with a
    deviation of 0.05: at 1, as random weights have it, noise hides them from the decoder for long.
    """
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        scale_factor_spatial=4,
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
    )
    assert vae.quant_conv.bias is not None
    with torch.no_grad():
        vae.quant_conv.weight[LATENT_CHANNELS:] = 0
        vae.quant_conv.bias[LATENT_CHANNELS:] = -6
    return vae


def new_tokenizer(words: tuple[str, ...]) -> T5Tokenizer:
    """Unigram T5 tokenizer: the given words, and single characters so that nothing is unknown."""
    pieces: list[tuple[str, float]] = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -100.0)]
    known: set[str] = set()
    for word in words:
        piece = word if not word[0].isalnum() else f"▁{word}"
        pieces.append((piece, -2.0))
        known.add(piece)
    for character in ("▁", *"abcdefghijklmnopqrstuvwxyz0123456789,.'-"):
        if character not in known:
            pieces.append((character, -12.0))
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=TEXT_LENGTH)


def new_text_encoder(vocab_size: int) -> UMT5EncoderModel:
    """Two-layer encoder whose layers begin as identities: a token starts as its word alone.

    The Wan pipeline puts zeros behind the last token, so content cannot move into padding.
    """
    encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocab_size,
            d_model=TEXT_WIDTH,
            d_kv=32,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
        )
    )
    for name, module in encoder.named_modules():
        if name.endswith((".o", ".wo")) and isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
    return encoder


def new_transformer(num_layers: int = 8, heads: int = 5) -> WanTransformer3DModel:
    """Self-attention over video, cross-attention to text; noisy latents, a mask of the frames that
    are given, and the latents of the first frame side by side (Wan 2.2 image-to-video)."""
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=heads,
        attention_head_dim=HEAD_DIM,
        in_channels=2 * LATENT_CHANNELS + MASK_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=64,
        ffn_dim=4 * heads * HEAD_DIM,
        num_layers=num_layers,
        cross_attn_norm=True,
        rope_max_seq_len=32,
    )
    nn.init.zeros_(model.proj_out.weight)
    nn.init.zeros_(model.proj_out.bias)
    return model


def new_pipeline(
    vae: AutoencoderKLWan, words: tuple[str, ...], num_layers: int = 8, heads: int = 5
) -> WanImageToVideoPipeline:
    """A stock pipeline around a trained VAE; text encoder and transformer are untrained."""
    tokenizer = new_tokenizer(words)
    build: Any = WanImageToVideoPipeline  # annotated with transformers' Auto classes
    pipe = build(
        tokenizer=tokenizer,
        text_encoder=new_text_encoder(len(tokenizer)),
        vae=vae,
        transformer=new_transformer(num_layers, heads),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def export(folder: Path, pipe: WanImageToVideoPipeline, dtype: torch.dtype = torch.float16) -> None:
    """Write the stock pipeline's folder, large weights rounded to ``dtype`` (in ``pipe`` too).

    The text encoder stays in float32: loaded without a dtype, transformers keeps what it finds
    while diffusers turns the rest to float32, and the two would not meet.
    """
    for module in (pipe.vae, pipe.transformer):
        nn.Module.to(module, dtype)
    pipe.text_encoder.float()
    pipe.save_pretrained(folder, safe_serialization=True)
