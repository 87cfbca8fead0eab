"""Train the tiny pipeline's VAE from scratch.

Shapes: B clips, T frames, H W pixels, 3 colour channels. Pixels are in [-1, 1] for the model.
Loss (our choice): mean absolute plus mean squared error, and a KL term that only keeps the latents
bounded. No adversarial or perceptual term: the world is flat colour.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from numpy.typing import NDArray
from torch import Tensor

from matrix_video.backbones.precision import autocast
from matrix_video.training.tiny_model import new_vae


@dataclass(frozen=True)
class VaeConfig:
    """Settings of one VAE training."""

    steps: int = 2400
    batch_size: int = 4
    short_frames: int = 9
    """Window of three steps in four: frames of a clip are much alike, so a window of half the
    length teaches as much in half the time. It must give an odd number of latent frames."""
    learning_rate: float = 2e-3
    warmup: int = 50
    kl_weight: float = 1e-6
    ema: float = 0.995
    seed: int = 0
    checkpoint_every: int = 200
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
        with autocast("cpu", "auto"):
            latents = vae.encode(to_model(clips_BTHWC)).latent_dist.mode()
            decoded_BCTHW = vae.decode(latents).sample
        pixels = ((decoded_BCTHW.float() + 1) * 127.5).round().clamp(0, 255)
        truth = torch.from_numpy(clips_BTHWC).permute(0, 4, 1, 2, 3).float()
        mse_B = (pixels - truth).pow(2).flatten(1).mean(1)
        values += (10 * torch.log10(255.0**2 / mse_B)).tolist()
    return sum(values) / len(values)


def rate(step: int, config: VaeConfig) -> float:
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
) -> AutoencoderKLCogVideoX:
    """Train, checkpointing to ``out/vae/checkpoint.safetensors``; resumes from there.

    Returns the averaged model, its ``scaling_factor`` set so that latents have unit variance.
    """
    from matrix_video.training.pretrain_state import PretrainState

    torch.manual_seed(config.seed)
    # Any: diffusers' outputs are annotated as tuples.
    vae: Any = new_vae()
    state = PretrainState(out / "vae", {"vae": vae}, config.learning_rate, config.ema)
    state.resume(asdict(config))
    while state.step < config.steps:
        rng = np.random.default_rng((config.seed, state.step))
        rows = rng.choice(len(frames_NTHWC), config.batch_size, replace=False)
        clips_BTHWC = frames_NTHWC[np.sort(rows)]
        if state.step % 4:
            start = int(rng.integers(clips_BTHWC.shape[1] - config.short_frames + 1))
            clips_BTHWC = clips_BTHWC[:, start : start + config.short_frames]
        video_BCTHW = to_model(clips_BTHWC)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
        with autocast("cpu", "auto"):
            posterior = vae.encode(video_BCTHW).latent_dist
            decoded_BCTHW = vae.decode(posterior.sample(generator)).sample
        error = decoded_BCTHW.float() - video_BCTHW
        kl = posterior.kl().mean() / video_BCTHW[0].numel()
        loss = error.abs().mean() + error.pow(2).mean() + config.kl_weight * kl
        state.update(loss, rate(state.step, config))
        if state.step % config.log_every == 0:
            mse = float(error.detach().pow(2).mean()) / 4
            state.log(loss=float(loss.detach()), train_psnr=-10 * math.log10(mse))
        if state.step % config.checkpoint_every == 0 or state.step == config.steps:
            state.save(asdict(config))
            with state.averaged():
                state.log(heldout_psnr=psnr(vae.eval(), heldout_NTHWC[:16]))
            vae.train()
    state.load_average()
    vae.eval().requires_grad_(False)
    vae.register_to_config(scaling_factor=_unit_scale(vae, frames_NTHWC[:64]))
    return vae


@torch.no_grad()
def _unit_scale(vae: Any, frames_NTHWC: NDArray[np.uint8]) -> float:
    """One over the standard deviation of the latents of some training clips."""
    latents = [
        vae.encode(to_model(frames_NTHWC[i : i + 4])).latent_dist.mode()
        for i in range(0, len(frames_NTHWC), 4)
    ]
    return 1.0 / float(torch.cat(latents).std())
