"""An LTX-Video pipeline small enough for tests: every part the real class, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from diffusers.pipelines.ltx.pipeline_ltx import LTXPipeline
from diffusers.pipelines.ltx.pipeline_ltx_image2video import LTXImageToVideoPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from transformers import T5Config, T5EncoderModel

from matrix_video.backbones.tiny import tiny_tokenizer

_CHANNELS, _WIDTH, _HEADS, _TEXT_DIM, _TEXT_LENGTH = 8, 32, 4, 16, 32


def tiny_ltx(
    seed: int = 0, *, i2v: bool = False, layers: int = 3, timestep_conditioning: bool = False
) -> LTXPipeline | LTXImageToVideoPipeline:
    """A complete stock pipeline, random by ``seed``; the global generator is left as it was.

    The VAE has the real ratios, 8 in time and 32 in space, and statistics that are not 0 and 1;
    ``timestep_conditioning`` gives it the decoder of newer checkpoints.
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
        vae: Any = AutoencoderKLLTXVideo(
            latent_channels=_CHANNELS,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
            timestep_conditioning=timestep_conditioning,
        )
        vae.latents_mean.copy_(torch.randn(_CHANNELS) / 2)
        vae.latents_std.copy_(torch.rand(_CHANNELS) + 0.5)
        transformer: Any = LTXVideoTransformer3DModel(
            in_channels=_CHANNELS,
            out_channels=_CHANNELS,
            num_attention_heads=_HEADS,
            attention_head_dim=_WIDTH // _HEADS,
            cross_attention_dim=_WIDTH,
            num_layers=layers,
            caption_channels=_TEXT_DIM,
        )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        base_shift=0.95,
        max_shift=2.05,
        shift_terminal=0.1,
    )
    pipeline = LTXImageToVideoPipeline if i2v else LTXPipeline
    pipe: Any = pipeline(
        scheduler=scheduler,
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,  # pyright: ignore
        transformer=transformer.eval(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
