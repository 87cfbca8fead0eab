"""Train the tiny pipeline's text encoder and transformer from scratch on encoded clips.

Shapes: N clips, B batch, T pixel frames, F latent frames, C latent channels, h w latent pixels,
L text tokens, E text channels.
Objective: flow matching as in the Wan report (arXiv 2503.20314), captions dropped with probability
0.1 for guidance. Ours: the first frame is dropped as well in a share of clips, so that a caption's
nouns have something to say; the text encoder learns along, and its layers are skipped in a share of
batches, so that a word's content stays in its own token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline
from torch import Tensor

from matrix_video.backbones.wan import WanBackbone
from matrix_video.services.errors import MatrixError
from tiny.state import PretrainState


@dataclass(frozen=True)
class DitConfig:
    """Settings of one transformer training."""

    steps: int = 12_000
    batch_size: int = 8
    learning_rate: float = 1e-3
    muon_rate: float = 2e-3
    """Rate of Muon, which moves the blocks' matrices; 0: AdamW moves everything."""
    warmup: int = 200
    decay_share: float = 0.2
    ema: float = 0.999
    caption_dropout: float = 0.1
    image_dropout: float = 0.25
    lexical: float = 0.3
    """Share of batches in which the text encoder's layers are skipped."""
    seed: int = 0
    checkpoint_every: int = 250
    log_every: int = 50


_MAY_CHANGE = ("steps", "checkpoint_every", "log_every", "image_dropout", "caption_dropout")
"""Settings that a training may go on with in another value; docs/log.md says when they did."""


@dataclass(frozen=True)
class EncodedClips:
    """Latents and image conditions [N,F,C,h,w], float16; token ids and attention mask [N,L]."""

    latents_NFChw: Tensor
    images_NFChw: Tensor
    tokens_NL: Tensor
    mask_NL: Tensor


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

    def __init__(self, pipe: WanImageToVideoPipeline, config: DitConfig) -> None:
        self.config = config
        self.backbone = WanBackbone(pipe)
        self.pipe: Any = pipe  # diffusers' components are untyped
        self.empty = self.tokens([""])

    def tokens(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask [N,L], padded to the model's length."""
        found = self.pipe.tokenizer(
            list(captions), padding="max_length", truncation=True, return_tensors="pt"
        )
        return found.input_ids, found.attention_mask

    def text(self, tokens_BL: Tensor, mask_BL: Tensor, *, lexical: bool) -> Tensor:
        """Embeddings [B,L,E], zeros behind the last token as the stock pipeline puts them."""
        encoder = self.pipe.text_encoder
        if lexical:
            embeds = encoder.encoder.final_layer_norm(encoder.shared(tokens_BL))
        else:
            embeds = encoder(tokens_BL, mask_BL).last_hidden_state
        return embeds * mask_BL[..., None]

    def loss(self, clips: EncodedClips, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error on the velocity; everything random from ``generator``."""
        config = self.config
        latents = clips.latents_NFChw[rows].float()
        images = clips.images_NFChw[rows].float()
        tokens_BL, mask_BL = clips.tokens_NL[rows].clone(), clips.mask_NL[rows].clone()
        batch, frames = latents.shape[:2]
        dropped_B = torch.rand(batch, generator=generator) < config.caption_dropout
        tokens_BL[dropped_B], mask_BL[dropped_B] = self.empty[0], self.empty[1]
        given_B = (torch.rand(batch, generator=generator) >= config.image_dropout).float()
        lexical = bool(torch.rand((), generator=generator) < config.lexical)
        times_B = self.backbone.sample_timesteps(batch, generator)
        noise = torch.randn(latents.shape, generator=generator)
        noisy = self.backbone.add_noise(latents, noise, times_B)
        given = torch.zeros(batch, frames, 4, *latents.shape[3:])
        given[:, 0] = 1
        joined = torch.cat([noisy, torch.cat([given, images], 2) * _wide(given_B)], 2)
        (predicted,) = self.pipe.transformer(
            hidden_states=joined.transpose(1, 2).contiguous(),
            timestep=times_B,
            encoder_hidden_states=self.text(tokens_BL, mask_BL, lexical=lexical),
            return_dict=False,
        )
        target = self.backbone.target(latents, noise, times_B)
        return (predicted.transpose(1, 2) - target).pow(2).mean()

    def state(self, out: Path) -> PretrainState:
        """Everything that changes, as the newest checkpoint in ``out`` has it."""
        config = self.config
        modules = {"transformer": self.pipe.transformer, "text_encoder": self.pipe.text_encoder}
        state = PretrainState(
            out,
            modules,
            config.learning_rate,
            config.ema,
            muon=("transformer.blocks.",) if config.muon_rate else (),
            muon_rate=config.muon_rate,
        )
        state.resume(asdict(config), may_change=_MAY_CHANGE)
        return state

    def trained(self, out: Path) -> PretrainState:
        """The same with averaged weights in place; `MatrixError` where nothing was trained."""
        state = self.state(out)
        if not state.step:
            raise MatrixError(
                "no checkpoint and no kept weights are here",
                remedy="train first (--stage dit), or copy kept weights here",
                file=out,
            )
        state.load_average()
        return state

    def train(self, clips: EncodedClips, heldout: EncodedClips, out: Path) -> None:
        """Train to ``config.steps``, resuming from ``out``; ends with the averaged weights."""
        config, state = self.config, self.state(out)
        self.pipe.transformer.train()
        total, norms, seen = 0.0, 0.0, 0
        while state.step < config.steps:
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
            rows = torch.randint(len(clips.tokens_NL), (config.batch_size,), generator=generator)
            loss = self.loss(clips, rows, generator)
            norms += state.update(loss, rate(state.step, config))
            total, seen = total + float(loss.detach()), seen + 1
            if state.step % config.log_every == 0:
                state.log(loss=total / seen, grad_norm=norms / seen)
                total, norms, seen = 0.0, 0.0, 0
            if state.step % config.checkpoint_every == 0 or state.step == config.steps:
                state.save(asdict(config))
                with state.averaged():
                    state.log(heldout_loss=self.heldout_loss(heldout))
        state.load_average()
        self.pipe.transformer.eval()

    @torch.no_grad()
    def heldout_loss(self, heldout: EncodedClips) -> float:
        """Loss on held-out clips with fixed noise: falls smoothly, so curves compare."""
        generator = torch.Generator().manual_seed(12345)
        losses = [
            float(self.loss(heldout, rows, generator))
            for rows in torch.arange(len(heldout.tokens_NL)).split(16)
        ]
        return sum(losses) / len(losses)


def _wide(values_B: Tensor) -> Tensor:
    return values_B[:, None, None, None, None]
