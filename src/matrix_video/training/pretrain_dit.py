"""Train the tiny pipeline's text encoder and transformer from scratch on encoded clips.

Shapes: N clips, B batch, F latent frames, C latent channels, h w latent pixels, L text tokens.
Objective: the model's own, mean squared error on v (Salimans and Ho 2022), captions dropped with
probability 0.1 for guidance. Noise levels are logit-normal (Esser et al. 2024): mid levels decide
who moves where. Full-size models freeze a text encoder that has read a library; ours has read
nothing, so it learns together with the transformer and is frozen from then on (our choice).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import T5EncoderModel

from matrix_video.training.pretrain_state import PretrainState
from matrix_video.training.pretrain_vae import to_model
from matrix_video.training.tiny_model import new_scheduler, new_text_encoder, new_transformer


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
    num_layers: int = 8
    heads: int = 5
    seed: int = 0
    checkpoint_every: int = 250
    log_every: int = 50


@dataclass(frozen=True)
class EncodedClips:
    """Scaled latents [N,F,C,h,w], first-frame latents [N,1,C,h,w], token ids [N,L]."""

    latents_NFChw: Tensor
    images_NFChw: Tensor
    tokens_NL: Tensor


@torch.no_grad()
def encode_clips(
    vae: Any, frames_NTHWC: NDArray[np.uint8], batch: int = 8
) -> tuple[Tensor, Tensor]:
    """Scaled posterior modes of the clips and, apart, of their first frames; float16.

    The first frame is encoded alone, as the pipeline does it: in a clip, the encoder's group norm
    would let later frames leak into it.
    """
    scale = float(vae.config["scaling_factor"])
    latents: list[Tensor] = []
    images: list[Tensor] = []
    for start in range(0, len(frames_NTHWC), batch):
        video_BCTHW = to_model(frames_NTHWC[start : start + batch])
        with torch.autocast("cpu", torch.bfloat16):
            clip = vae.encode(video_BCTHW).latent_dist.mode()
            image = vae.encode(video_BCTHW[:, :, :1]).latent_dist.mode()
        latents.append((clip.float() * scale).transpose(1, 2).half())
        images.append((image.float() * scale).transpose(1, 2).half())
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
    """Models, noise and loss of one transformer training."""

    def __init__(
        self, clips: EncodedClips, vocab_size: int, empty_L: Tensor, config: DitConfig
    ) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.clips = clips
        self.empty_L = empty_L
        self.transformer: CogVideoXTransformer3DModel = new_transformer(
            config.num_layers, config.heads
        )
        self.text_encoder: T5EncoderModel = new_text_encoder(vocab_size)
        self.scheduler: Any = new_scheduler()  # Any: annotated for integer tensor types alone
        frames, rows = clips.latents_NFChw.shape[1], clips.latents_NFChw.shape[-1] // 2
        self.rope = get_3d_rotary_pos_embed(
            self.transformer.config["attention_head_dim"],
            ((0, 0), (rows, rows)),
            (rows, rows),
            frames,
        )

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"transformer": self.transformer, "text_encoder": self.text_encoder}

    def loss(self, clips: EncodedClips, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error on v for the clips ``rows``; everything random from ``generator``."""
        latents = clips.latents_NFChw[rows].float()
        images = clips.images_NFChw[rows].float()
        tokens_BL = clips.tokens_NL[rows].clone()
        batch, frames = latents.shape[:2]
        dropped_B = torch.rand(batch, generator=generator) < self.config.caption_dropout
        tokens_BL[dropped_B] = self.empty_L
        level_B = torch.sigmoid(torch.randn(batch, generator=generator))
        steps_B = (level_B * 1000).long().clamp(0, 999)
        noise = torch.randn(latents.shape, generator=generator)
        noisy = self.scheduler.add_noise(latents, noise, steps_B)
        target = self.scheduler.get_velocity(latents, noise, steps_B)
        padding = images.new_zeros(batch, frames - 1, *images.shape[2:])
        condition = torch.cat([images, padding], dim=1)
        with torch.autocast("cpu", torch.bfloat16):
            text = self.text_encoder(tokens_BL).last_hidden_state
            predicted = self.transformer(
                torch.cat([noisy, condition], dim=2),
                text,
                steps_B,
                image_rotary_emb=self.rope,
                return_dict=False,
            )[0]
        return (predicted.float() - target).pow(2).mean()

    def train(self, out: Path, heldout: EncodedClips) -> None:
        """Train to ``config.steps``, resuming from ``out/dit``; ends with the averaged weights."""
        config = self.config
        state = PretrainState(out / "dit", self.modules, config.learning_rate, config.ema)
        state.resume(asdict(config), may_change=("steps", "checkpoint_every", "log_every"))
        total, seen = 0.0, 0
        while state.step < config.steps:
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
            rows = torch.randint(
                len(self.clips.tokens_NL), (config.batch_size,), generator=generator
            )
            loss = self.loss(self.clips, rows, generator)
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
