"""What Wan's transformers are given, as the stock pipelines make it.

Shapes as in `backbones.base`; F h w token frames, rows and columns, N = F·h·w.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from matrix_video.services.errors import MatrixError

GIVEN_CHANNELS: Final = 4
"""Channels that say, for each pixel frame of a latent frame, whether the model is given it."""


def check_given(pipe: Any, config: Any, *, image: bool, replaced: bool) -> None:
    """Refuse a transformer (of ``config``) that needs more or less than its pipeline gives.

    ``image``: the pipeline is image-to-video; ``replaced``: an image replaces the first latents.
    """
    if config.pos_embed_seq_len is not None:
        raise MatrixError(
            "this checkpoint is conditioned on a first and a last frame",
            remedy="use one that is conditioned on a first frame alone",
            field="transformer.pos_embed_seq_len",
        )
    expected = int(pipe.vae.config.z_dim)
    if image and not replaced:
        expected = 2 * expected + GIVEN_CHANNELS
    if config.in_channels != expected:
        other = "WanPipeline" if image else "WanImageToVideoPipeline"
        raise MatrixError(
            f"{type(pipe).__name__} gives the transformer {expected} channels, this one takes "
            f"{config.in_channels}",
            remedy=f"load the checkpoint as {other}, or with its own VAE",
            field="transformer.in_channels",
        )


def join_channels(noisy_BCFHW: Tensor, image_BCFHW: Tensor) -> Tensor:
    """Input channels of image-to-video: noisy latents ‖ what is given ‖ image latents."""
    batch, _, *size = noisy_BCFHW.shape
    given = noisy_BCFHW.new_zeros(batch, GIVEN_CHANNELS, *size)
    given[:, :, 0] = 1
    return torch.cat([noisy_BCFHW, given, image_BCFHW], dim=1)


def replace_first(noisy_BCFHW: Tensor, image_BCFHW: Tensor) -> Tensor:
    """Noisy latents whose first frame is the image's."""
    return torch.cat([image_BCFHW[:, :, :1], noisy_BCFHW[:, :, 1:]], dim=2)


def token_times(times_B: Tensor, grid: tuple[int, int, int], *, clean_first: bool) -> Tensor:
    """Timesteps float32 [B,N] on a grid of F x h x w tokens; those of a clean frame are zero."""
    frames, rows, columns = grid
    times_BF = times_B.float()[:, None].repeat(1, frames)
    if clean_first:
        times_BF[:, 0] = 0
    return times_BF.repeat_interleave(rows * columns, dim=1)


def normalised(vae: Any, latents_BCFHW: Tensor) -> Tensor:
    """Each channel of the VAE's latents with mean 0 and deviation 1, by the VAE's own numbers."""
    mean, inverse = _statistics(vae, latents_BCFHW)
    return (latents_BCFHW - mean) * inverse


def denormalised(vae: Any, latents_BCFHW: Tensor) -> Tensor:
    """Inverse of `normalised`."""
    mean, inverse = _statistics(vae, latents_BCFHW)
    return latents_BCFHW / inverse + mean


def _statistics(vae: Any, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and inverse deviation, rounded in the latents' dtype as the stock pipelines do."""
    mean, deviation = (
        torch.tensor(values).view(1, -1, 1, 1, 1).to(latents.device, latents.dtype)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, 1.0 / deviation
