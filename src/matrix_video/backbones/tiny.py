"""A CogVideoX pipeline small enough for tests: every part the real class, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video import (
    CogVideoXImageToVideoPipeline,
)
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

_WORDS = (
    "a the small large red green blue yellow ball box cat dog man woman cup that is in on to with "
    "and pushes pulls hits carries chases circles hands over lifts follows while another then ,"
    " ."
)
WORDS: Final = tuple(_WORDS.split())
"""Default vocabulary: enough for captions of a few interactions."""


def tiny_tokenizer(vocab: Sequence[str] = WORDS, text_length: int = 32) -> PreTrainedTokenizerFast:
    """Word-level fast tokenizer: lower case, split at spaces and punctuation, ``</s>`` at the end.

    ``vocab`` are the words known; others become ``<unk>``.
    """
    words = ("<pad>", "</s>", "<unk>", *dict.fromkeys(word.lower() for word in vocab))
    model = WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    tokenizer: Any = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=text_length,
    )


def tiny_pipeline(
    seed: int = 0,
    *,
    i2v: bool = True,
    layers: int = 2,
    heads: int = 2,
    head_dim: int = 16,
    latent_channels: int = 4,
    vae_width: int = 8,
    vae_blocks: int = 3,
    size: int = 32,
    num_frames: int = 9,
    vocab: Sequence[str] = WORDS,
    text_length: int = 32,
    text_dim: int = 32,
    patch_size_t: int | None = None,
    ofs_dim: int | None = None,
    invert_scale: bool = False,
    rotary: bool = True,
    learned_positions: bool = False,
) -> CogVideoXImageToVideoPipeline | CogVideoXPipeline:
    """A complete stock pipeline, random by ``seed``; the global generator is left as it was.

    ``size`` (pixels, square) and ``num_frames`` are what a call without sizes gives. The VAE halves
    rows and columns ``vae_blocks - 1`` times and takes 4 frames a latent; tokens are 2 x 2 latents,
    so the default is 4 x 4 tokens a frame, 3 token frames. ``patch_size_t=2`` with ``ofs_dim`` and
    ``invert_scale`` is the shape of CogVideoX 1.5. ``head_dim`` must be a multiple of 16.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        latent = size // 2 ** (vae_blocks - 1)
        tokenizer = tiny_tokenizer(vocab, text_length)
        text_encoder = T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=text_dim,
                d_kv=8,
                d_ff=2 * text_dim,
                num_layers=2,
                num_heads=4,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
            )
        )
        vae: Any = AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * vae_blocks,  # pyright: ignore
            up_block_types=("CogVideoXUpBlock3D",) * vae_blocks,  # pyright: ignore
            block_out_channels=(vae_width,) * vae_blocks,  # pyright: ignore
            latent_channels=latent_channels,
            layers_per_block=1,
            norm_num_groups=2,
            temporal_compression_ratio=4,
            sample_height=size,
            sample_width=size,
            scaling_factor=0.7,
            invert_scale_latents=invert_scale,
        )
        transformer: Any = CogVideoXTransformer3DModel(
            num_attention_heads=heads,
            attention_head_dim=head_dim,
            in_channels=2 * latent_channels if i2v else latent_channels,
            out_channels=latent_channels,
            time_embed_dim=8,
            ofs_embed_dim=ofs_dim,
            text_embed_dim=text_dim,
            num_layers=layers,
            sample_width=latent,
            sample_height=latent,
            sample_frames=num_frames,
            patch_size=2,
            patch_size_t=patch_size_t,
            temporal_compression_ratio=4,
            max_text_seq_length=text_length,
            use_rotary_positional_embeddings=rotary,
            use_learned_positional_embeddings=learned_positions,
        )
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    pipeline = CogVideoXImageToVideoPipeline if i2v else CogVideoXPipeline
    pipe: Any = pipeline(
        tokenizer=tokenizer,  # pyright: ignore
        text_encoder=text_encoder.eval(),
        vae=vae.eval(),
        transformer=transformer.eval(),
        scheduler=scheduler,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
