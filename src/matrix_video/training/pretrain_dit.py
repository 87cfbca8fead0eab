"""Train the tiny pipeline's text encoder and transformer from scratch on encoded clips.

Shapes: N clips, B batch, T pixel frames, F latent frames, C latent channels, h w latent pixels,
L text tokens.
Objective: the model's own, mean squared error on v (Salimans and Ho 2022), captions dropped with
probability 0.1 for guidance. Noise levels are logit-normal (Esser et al. 2024): mid levels decide
who moves where. Full-size models freeze a text encoder that has read a library; ours has read
nothing, so it learns together with the transformer and is frozen from then on (our choice).
Latents, noise, target and prediction are the backbone's: fine-tuning goes on just where this ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import CogVideoXImageToVideoPipeline
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from matrix_video.backbones.cogvideox import CogVideoXBackbone
from matrix_video.backbones.precision import autocast
from matrix_video.backbones.text import Text
from matrix_video.training.pretrain_state import PretrainState


@dataclass(frozen=True)
class DitConfig:
    """Settings of one transformer training."""

    steps: int = 14_000
    batch_size: int = 8
    learning_rate: float = 1e-3
    warmup: int = 200
    decay_share: float = 0.2
    ema: float = 0.999
    caption_dropout: float = 0.1
    seed: int = 0
    checkpoint_every: int = 250
    log_every: int = 50


@dataclass(frozen=True)
class EncodedClips:
    """Latents [N,F,C,h,w] and first-frame latents [N,1,C,h,w], float16; token ids [N,L]."""

    latents_NFChw: Tensor
    images_N1Chw: Tensor
    tokens_NL: Tensor


def encode_clips(
    backbone: CogVideoXBackbone, frames_NTHWC: NDArray[np.uint8], batch: int = 8
) -> tuple[Tensor, Tensor]:
    """Latents of the clips and, encoded apart, of their first frames; float16."""
    latents: list[Tensor] = []
    images: list[Tensor] = []
    for start in range(0, len(frames_NTHWC), batch):
        clips_BTHWC = torch.from_numpy(frames_NTHWC[start : start + batch])
        with autocast("cpu", "auto"):
            latents.append(backbone.encode_video(clips_BTHWC).half())
            # The rest of an image condition is zeros, which need no room.
            images.append(backbone.encode_image(clips_BTHWC[:, 0], 1).half())
    return torch.cat(latents), torch.cat(images)


def rate(step: int, config: DitConfig) -> float:
    """Warm-up, plateau, linear decay: a longer run can resume from the plateau."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    begin = config.steps * (1 - config.decay_share)
    if step < begin:
        return 1.0
    return max(0.01, (config.steps - step) / (config.steps - begin))


class DitTrainer:
    """A pipeline whose text encoder and transformer learn."""

    def __init__(self, pipe: CogVideoXImageToVideoPipeline, config: DitConfig) -> None:
        self.config = config
        self.backbone = CogVideoXBackbone(pipe)
        self.pipe: Any = pipe  # diffusers' components are untyped
        self.empty_L = self.tokens([""])[0]

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Token ids [N,L], padded to the model's length."""
        return self.pipe.tokenizer(
            list(captions), padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids

    def loss(self, clips: EncodedClips, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error on v for the clips ``rows``; everything random from ``generator``."""
        latents = clips.latents_NFChw[rows].float()
        images = clips.images_N1Chw[rows].float()
        tokens_BL = clips.tokens_NL[rows].clone()
        batch, frames = latents.shape[:2]
        dropped_B = torch.rand(batch, generator=generator) < self.config.caption_dropout
        tokens_BL[dropped_B] = self.empty_L
        level_B = torch.sigmoid(torch.randn(batch, generator=generator))
        steps_B = (level_B * 1000).long().clamp(0, 999)
        noise = torch.randn(latents.shape, generator=generator)
        noisy = self.backbone.add_noise(latents, noise, steps_B)
        condition = F.pad(images, (0, 0, 0, 0, 0, 0, 0, frames - 1))
        with autocast("cpu", "auto"):
            text = self.pipe.text_encoder(tokens_BL).last_hidden_state
            predicted = self.backbone.predict(noisy, steps_B, Text(text), condition)
        target = self.backbone.target(latents, noise, steps_B)
        return (predicted.float() - target).pow(2).mean()

    def train(self, clips: EncodedClips, heldout: EncodedClips, out: Path) -> None:
        """Train to ``config.steps``, resuming from ``out/dit``; ends with the averaged weights."""
        config = self.config
        modules = {"transformer": self.pipe.transformer, "text_encoder": self.pipe.text_encoder}
        state = PretrainState(out / "dit", modules, config.learning_rate, config.ema)
        state.resume(asdict(config), may_change=("steps", "checkpoint_every", "log_every"))
        total, seen = 0.0, 0
        while state.step < config.steps:
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
            rows = torch.randint(len(clips.tokens_NL), (config.batch_size,), generator=generator)
            loss = self.loss(clips, rows, generator)
            state.update(loss, rate(state.step, config))
            total, seen = total + float(loss.detach()), seen + 1
            if state.step % config.log_every == 0:
                state.log(loss=total / seen)
                total, seen = 0.0, 0
            if state.step % config.checkpoint_every == 0 or state.step == config.steps:
                state.save(asdict(config))
                with state.averaged():
                    state.log(heldout_loss=self.heldout_loss(heldout))
        state.load_average()

    @torch.no_grad()
    def heldout_loss(self, heldout: EncodedClips) -> float:
        """Loss on held-out clips with fixed noise: falls smoothly, so curves compare."""
        generator = torch.Generator().manual_seed(12345)
        losses = [
            float(self.loss(heldout, rows, generator))
            for rows in torch.arange(len(heldout.tokens_NL)).split(16)
        ]
        return sum(losses) / len(losses)
