"""The parts of the tiny pipeline, untrained, and their assembly into a stock folder.

Every part is the class a full-size CogVideoX uses, with small numbers. Source of the numbers: our
choice, for 64 x 64 clips of 17 frames (5 latent frames; this VAE's decoder mishandles even
counts) and 320 video tokens of 8 x 8 pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXTransformer3DModel,
)
from torch import nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer

TEXT_LENGTH: Final = 32
TEXT_WIDTH: Final = 128
LATENT_CHANNELS: Final = 16
FRAME_SIZE: Final = 64
NUM_FRAMES: Final = 17
_TEMPORAL: Final = 4
_SPATIAL: Final = 4


def new_vae() -> AutoencoderKLCogVideoX:
    """Causal 3-D VAE, 4x in time and 4x in space, 0.68 M parameters."""
    # diffusers annotates its variable-length tuples as one-element ones.
    build: Any = AutoencoderKLCogVideoX
    return build(
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        block_out_channels=(16, 32, 32),
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=8,
        temporal_compression_ratio=_TEMPORAL,
        sample_height=FRAME_SIZE,
        sample_width=FRAME_SIZE,
        scaling_factor=1.0,
    )


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


def new_text_encoder(vocab_size: int) -> T5EncoderModel:
    """Two-layer T5 encoder; without it the transformer, whose text has no positions, would not
    see word order."""
    return T5EncoderModel(
        T5Config(
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


def new_transformer(num_layers: int = 8, heads: int = 5) -> CogVideoXTransformer3DModel:
    """Joint-attention DiT, image-to-video: noisy and first-frame latents side by side."""
    latent = FRAME_SIZE // _SPATIAL
    model = CogVideoXTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=32,
        in_channels=2 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        time_embed_dim=64,
        text_embed_dim=TEXT_WIDTH,
        num_layers=num_layers,
        sample_width=latent,
        sample_height=latent,
        sample_frames=NUM_FRAMES,
        patch_size=2,
        temporal_compression_ratio=_TEMPORAL,
        max_text_seq_length=TEXT_LENGTH,
        use_rotary_positional_embeddings=True,
    )
    _init_small_modulation(model)
    return model


def _init_small_modulation(model: CogVideoXTransformer3DModel) -> None:
    """Zero the adaptive-norm modulation and the output layer (adaLN-zero, Peebles and Xie 2023):
    blocks start as identities, which trains steadily at a high rate."""
    for name, module in model.named_modules():
        zero = name.endswith((".norm1.linear", ".norm2.linear", "norm_out.linear")) or (
            name == "proj_out"
        )
        if zero and isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)


def new_scheduler() -> CogVideoXDDIMScheduler:
    """The 5B checkpoints' settings: v-prediction, zero terminal SNR, shift 1."""
    return CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        num_train_timesteps=1000,
        clip_sample=False,
        set_alpha_to_one=True,
    )


def new_pipeline(
    vae: AutoencoderKLCogVideoX, words: tuple[str, ...], num_layers: int = 8, heads: int = 5
) -> CogVideoXImageToVideoPipeline:
    """A stock pipeline around a trained VAE; text encoder and transformer are untrained."""
    tokenizer = new_tokenizer(words)
    return CogVideoXImageToVideoPipeline(
        tokenizer=tokenizer,
        text_encoder=new_text_encoder(len(tokenizer)),
        vae=vae,
        transformer=new_transformer(num_layers, heads),
        scheduler=new_scheduler(),
    )


def export(
    folder: Path, pipe: CogVideoXImageToVideoPipeline, dtype: torch.dtype = torch.float16
) -> None:
    """Write the stock pipeline's folder, large weights rounded to ``dtype`` (in ``pipe`` too).

    The text encoder stays in float32: loaded without a dtype, transformers keeps what it finds
    while diffusers turns the rest to float32, and the two would not meet.
    """
    for module in (pipe.vae, pipe.transformer):
        nn.Module.to(module, dtype)
    pipe.text_encoder.float()
    pipe.save_pretrained(folder, safe_serialization=True)
