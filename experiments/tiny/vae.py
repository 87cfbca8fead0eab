"""Train the tiny pipeline's VAE from scratch, and then its decoder alone.

Shapes: N clips, B batch, T frames, H W pixels, 3 colour channels. Pixels are in [-1, 1] for the
model. Loss (our choice): mean absolute plus mean squared error, and a KL term that only keeps the
latents bounded. No adversarial or perceptual term: the world is flat colour.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray
from torch import Tensor

from tiny.model import new_vae
from tiny.state import PretrainState


@dataclass(frozen=True)
class VaeConfig:
    """Settings of one VAE training."""

    steps: int = 900
    batch_size: int = 4
    short_frames: int = 5
    """Window of a step; every ``whole_every``-th takes a single clip, whole."""
    whole_every: int = 2
    learning_rate: float = 2e-3
    muon_rate: float = 5e-3
    """Rate of Muon, which moves the kernels; after 60 steps its loss is 0.26, AdamW's 0.35."""
    warmup: int = 20
    kl_weight: float = 1e-6
    ema: float = 0.995
    seed: int = 0
    checkpoint_every: int = 100
    log_every: int = 20


def to_model(frames_BTHWC: NDArray[np.uint8]) -> Tensor:
    """uint8 [B,T,H,W,3] → float [B,3,T,H,W] in [-1, 1]."""
    return torch.from_numpy(frames_BTHWC).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


@torch.no_grad()
def psnr(vae: Any, frames_NTHWC: NDArray[np.uint8], batch: int = 4) -> float:
    """Peak signal-to-noise ratio in dB of the rounded reconstruction, mean over clips."""
    values: list[float] = []
    for start in range(0, len(frames_NTHWC), batch):
        clips_BTHWC = frames_NTHWC[start : start + batch]
        decoded_BCTHW = vae.decode(vae.encode(to_model(clips_BTHWC)).latent_dist.mode()).sample
        pixels = ((decoded_BCTHW + 1) * 127.5).round().clamp(0, 255)
        truth = torch.from_numpy(clips_BTHWC).permute(0, 4, 1, 2, 3).float()
        mse_B = (pixels - truth).pow(2).flatten(1).mean(1)
        values += (10 * torch.log10(255.0**2 / mse_B)).tolist()
    return sum(values) / len(values)


def rate(step: int, config: VaeConfig | DecoderConfig) -> float:
    """Linear warm-up, then cosine to a fiftieth."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def train_vae(
    frames_NTHWC: NDArray[np.uint8],
    heldout_NTHWC: NDArray[np.uint8],
    out: Path,
    config: VaeConfig,
) -> AutoencoderKLWan:
    """Train, checkpointing to ``out/vae/checkpoint.safetensors``; resumes from there.

    Returns the averaged model, its ``latents_mean`` and ``latents_std`` those of training clips.
    """
    torch.manual_seed(config.seed)
    # Any: diffusers' outputs are annotated as tuples.
    vae: Any = new_vae()
    state = PretrainState(
        out / "vae",
        {"vae": vae},
        config.learning_rate,
        config.ema,
        muon=(".weight",),
        muon_rate=config.muon_rate,
    )
    state.resume(asdict(config), may_change=("steps", "whole_every"))
    while state.step < config.steps:
        rng = np.random.default_rng((config.seed, state.step))
        whole = state.step % config.whole_every == 0
        count = 1 if whole else config.batch_size
        clips_BTHWC = frames_NTHWC[np.sort(rng.choice(len(frames_NTHWC), count, replace=False))]
        if not whole:
            start = int(rng.integers(clips_BTHWC.shape[1] - config.short_frames + 1))
            clips_BTHWC = clips_BTHWC[:, start : start + config.short_frames]
        video_BCTHW = to_model(clips_BTHWC)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
        posterior = vae.encode(video_BCTHW).latent_dist
        decoded_BCTHW = vae.decode(posterior.sample(generator)).sample
        error = decoded_BCTHW - video_BCTHW
        kl = posterior.kl().mean() / video_BCTHW[0].numel()
        loss = error.abs().mean() + error.pow(2).mean() + config.kl_weight * kl
        state.update(loss, rate(state.step, config))
        _record(state, config, vae, loss, error, heldout_NTHWC)
    state.load_average()
    vae.eval().requires_grad_(False)
    mean_C, std_C = _latent_moments(vae, frames_NTHWC[:64])
    vae.register_to_config(latents_mean=mean_C.tolist(), latents_std=std_C.tolist())
    return vae


@dataclass(frozen=True)
class DecoderConfig:
    """Settings of the decoder's further training, on latents that stay as they are."""

    steps: int = 1500
    batch_size: int = 2
    learning_rate: float = 1e-3
    muon_rate: float = 2e-3
    warmup: int = 20
    ema: float = 0.99
    seed: int = 0
    checkpoint_every: int = 100
    log_every: int = 20


def tune_decoder(
    vae: Any,
    latents_NFChw: Tensor,
    frames_NTHWC: NDArray[np.uint8],
    heldout_NTHWC: NDArray[np.uint8],
    out: Path,
    config: DecoderConfig,
) -> None:
    """Train the decoder of ``vae`` alone, in place; resumes from ``out/decoder``.

    ``latents_NFChw`` are normalised, as the pipeline has them. Whatever was trained on them stays
    valid.
    """
    parts = {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    vae.requires_grad_(False)
    for part in parts.values():
        part.requires_grad_(True)
    state = PretrainState(
        out / "decoder",
        parts,
        config.learning_rate,
        config.ema,
        muon=(".weight",),
        muon_rate=config.muon_rate,
    )
    state.resume(asdict(config), may_change=("steps",))
    mean_C, std_C = (
        torch.tensor(values)[:, None, None, None]
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    while state.step < config.steps:
        rng = np.random.default_rng((config.seed, 1, state.step))
        rows = np.sort(rng.choice(len(frames_NTHWC), config.batch_size, replace=False))
        latents_BCFhw = latents_NFChw[torch.from_numpy(rows)].float().transpose(1, 2)
        error = vae.decode(latents_BCFhw * std_C + mean_C).sample - to_model(frames_NTHWC[rows])
        loss = error.abs().mean() + error.pow(2).mean()
        state.update(loss, rate(state.step, config))
        _record(state, config, vae, loss, error, heldout_NTHWC)
    state.load_average()
    vae.requires_grad_(False)


def _record(
    state: PretrainState,
    config: VaeConfig | DecoderConfig,
    vae: Any,
    loss: Tensor,
    error: Tensor,
    heldout_NTHWC: NDArray[np.uint8],
) -> None:
    """Log and save after a step, where it is time. The VAE has no dropout to switch off."""
    if state.step % config.log_every == 0:
        mse = float(error.detach().pow(2).mean()) / 4
        state.log(loss=float(loss.detach()), train_psnr=-10 * math.log10(mse))
    if state.step % config.checkpoint_every == 0 or state.step == config.steps:
        state.save(asdict(config))
        with state.averaged():
            state.log(heldout_psnr=psnr(vae, heldout_NTHWC[:16]))


@torch.no_grad()
def _latent_moments(vae: Any, frames_NTHWC: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each latent channel over some training clips."""
    latents = torch.cat(
        [
            vae.encode(to_model(frames_NTHWC[i : i + 4])).latent_dist.mode()
            for i in range(0, len(frames_NTHWC), 4)
        ]
    )
    return latents.mean(dim=(0, 2, 3, 4)), latents.std(dim=(0, 2, 3, 4))
