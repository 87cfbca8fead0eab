"""A Mochi pipeline small enough for tests: every part the real class, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_mochi import AutoencoderKLMochi
from diffusers.models.transformers.transformer_mochi import MochiTransformer3DModel
from diffusers.pipelines.mochi.pipeline_mochi import MochiPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from transformers import T5Config, T5EncoderModel

from matrix_video.backbones.tiny import tiny_tokenizer

_TEXT_DIM, _TEXT_LENGTH = 32, 32
_CHANNELS = 12  # the stock call knows no other number


def tiny_mochi(seed: int = 0, *, layers: int = 3, force_zeros: bool = True) -> MochiPipeline:
    """A complete stock pipeline, random by ``seed``; the global generator is left as it was.

    Rotary frequencies, which the class starts at 0, are random too. ``force_zeros`` leaves no valid
    token in an empty caption, as in the checkpoint.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer(text_length=_TEXT_LENGTH)
        text_encoder = T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=_TEXT_DIM,
                d_kv=8,
                d_ff=2 * _TEXT_DIM,
                num_layers=2,
                num_heads=2,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
            )
        )
        vae: Any = AutoencoderKLMochi(
            latent_channels=_CHANNELS,
            encoder_block_out_channels=(32, 32, 32, 32),  # pyright: ignore
            decoder_block_out_channels=(32, 32, 32, 32),  # pyright: ignore
            layers_per_block=(1, 1, 1, 1, 1),
        )
        transformer: Any = MochiTransformer3DModel(
            patch_size=2,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=layers,
            pooled_projection_dim=16,
            in_channels=_CHANNELS,
            text_embed_dim=_TEXT_DIM,
            time_embed_dim=4,
            max_sequence_length=_TEXT_LENGTH,
        )
        torch.nn.init.normal_(transformer.pos_frequencies)
    pipe: Any = MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,  # pyright: ignore
        transformer=transformer.eval(),
        force_zeros_for_empty_prompt=force_zeros,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
