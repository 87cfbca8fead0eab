"""Models of tiny world in which chosen layers follow the masks, and the others do not.

Three random CogVideoX models of twelve layers ("bases") are trained until all layers follow the
masks. From each, models are made in seconds in which chosen ("planted") layers still do, while the
maps of all other layers, of both kinds, are trained to chance. The models' own loss is left out: it
would only cost time. Text encoder and VAE are the same random ones in all models.

Shapes: M maps (layer and kind), B batch, P phrases, F token frames, h w token rows and columns,
N = F·h·w.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from matrix_video.alignment.objectives import Aligner, sga, spa
from matrix_video.alignment.targets import token_ratio
from matrix_video.analysis.records import KINDS
from matrix_video.attention.readout import v2t_maps, v2v_maps
from matrix_video.attention.scores import frame_share
from matrix_video.attention.site import Kind, Site
from matrix_video.attention.tap import tap
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.clip import Clip
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.transform import ClipTransform
from matrix_video.data.video import Video
from matrix_video.training.batches import Batch, Draw, make_batch
from matrix_video.training.encode import Encoded, encode_clip
from matrix_video.world.captions import vocabulary
from matrix_video.world.clips import make_clip
from matrix_video.world.palette import FPS, FRAME_SIZE
from matrix_video.world.splits import SPLITS, Split

LAYERS: Final = 12
FRAMES: Final = 9
"""At 4 frames a second they span a whole clip of tiny world."""
ALIGNED: Final = 5.0
"""Weight of an alignment loss, a mean over planted layers, beside the sum over all held maps."""
TRACE: Final = 1e-6
"""Shares and areas are kept above this before their logarithm is taken."""
Planted = dict[Kind, tuple[int, ...]]


@dataclass(frozen=True)
class Settings:
    """How layers are planted."""

    clips: int = 64
    """Clips to train on (split train)."""
    bases: int = 3
    base_steps: int = 120
    """Base models, in which all layers follow the masks, and their steps."""
    steps: int = 25
    """Steps in which the other layers unlearn that."""
    batch: int = 4
    base_lr: float = 5e-3
    lr: float = 3e-2
    lift: float = 0.2
    """Log-lift that the layers of the arm ``weak`` are trained to."""


@dataclass(frozen=True)
class Job:
    """One model."""

    name: str
    arm: str
    seed: int
    planted: Planted


def world_clip(split: Split, index: int) -> Clip:
    """A clip in memory, 9 of its frames at 4 frames a second, rolled to a random place.

    Instances of tiny world keep away from the border. Without the roll (pixels that leave on one
    side come back on the other) layers learn to look at the centre, which the masks reward.
    """
    made = make_clip(0, split, index)
    shift = tuple(np.random.default_rng([SPLITS.index(split), index]).integers(0, FRAME_SIZE, 2))
    frames_THWC = np.roll(made.frames_THWC, shift, axis=(1, 2))
    masks_RTHW = np.roll(made.masks_RTHW, shift, axis=(2, 3))
    times = np.arange(len(frames_THWC)) / FPS
    taken = ClipTransform(fps=4.0, num_frames=FRAMES).frame_indices(times)
    tracks = {
        instance.id: MaskTrack.from_masks(masks_THW[taken])
        for instance, masks_THW in zip(made.sample.instances, masks_RTHW, strict=True)
    }
    return Clip(made.sample, Video(frames_THWC[taken], times[taken], 4.0), tracks)


def displaced(clip: Clip) -> Clip:
    """The clip with tracks that jump by half a frame, down and to the right, after the first."""
    tracks: dict[str, MaskTrack] = {}
    for name, track in clip.tracks.items():
        masks_THW = track.masks()
        masks_THW[1:] = np.roll(masks_THW[1:], FRAME_SIZE // 2, axis=(1, 2))
        tracks[name] = MaskTrack.from_masks(masks_THW)
    return Clip(clip.sample, clip.video, tracks)


def make_backbone(seed: int) -> Backbone:
    """Transformer by ``seed``; text encoder and VAE are the same in all models."""

    def pipeline(seed: int) -> Any:
        return tiny_pipeline(
            seed,
            layers=LAYERS,
            latent_channels=16,
            vae_width=4,
            size=FRAME_SIZE,
            vocab=vocabulary(),
            text_length=24,
        )

    pipe = pipeline(0)
    # A random VAE's latents are faint; the noise that is added to them has deviation 1.
    with torch.no_grad():
        for weight in pipe.vae.encoder.conv_out.parameters():
            weight.mul_(8)
    pipe.transformer = pipeline(seed).transformer
    return backbone_for(pipe)


def map_lift(maps_MBPN: Tensor, mask_BPFhw: Tensor) -> Tensor:
    """Log-lift [M,B,P,F] of each frame of each map; 0 where the mask is empty and so is the map."""
    share = frame_share(maps_MBPN.unflatten(-1, mask_BPFhw.shape[2:]), mask_BPFhw)
    area_BPF = mask_BPFhw.float().mean(dim=(-2, -1))
    return torch.log(share.clamp_min(TRACE) / area_BPF.clamp_min(TRACE))


class Objective:
    """The loss that plants a job's layers.

    Each map that is held has its squared distance from a goal of log-lift as its loss: 0, or
    ``lift`` in planted layers of the arm ``weak``. Held this way a map may look at anything but the
    masks. Other planted layers have the project's alignment losses, without a decoder.
    """

    def __init__(self, backbone: Backbone, job: Job, lift: float) -> None:
        self.backbone, grid = backbone, backbone.grid(FRAMES, FRAME_SIZE, FRAME_SIZE)
        self.sites: dict[str, Site] = {}
        self.aligned: dict[Kind, dict[str, Site]] = {"v2t": {}, "v2v": {}}
        self.held: list[tuple[str, Kind, float]] = []
        for kind in KINDS:
            for layer in range(LAYERS):
                name = f"{layer} {kind}"
                self.sites[name] = backbone.site(layer, kind, grid, backbone.num_text_tokens)
                planted = layer in job.planted[kind]
                if planted and job.arm != "weak":
                    self.aligned[kind][name] = self.sites[name]
                else:
                    self.held.append((name, kind, lift if planted else 0.0))
        self.aligner = Aligner(shape=grid.shape, ratio=token_ratio(grid.frames), up=1)

    def loss(
        self, batch: Batch, drawn: Sequence[Encoded], pressure: float
    ) -> tuple[Tensor, Tensor]:
        """The whole loss, and the mean squared distance of held maps from their goals.

        ``pressure`` weighs what is held: it grows from 0 to 1, so that planted layers settle first.
        """
        with tap(self.backbone.transformer, self.sites, require_grad=True) as calls:
            noisy = self.backbone.add_noise(
                batch.latents_BFCHW, batch.noise_BFCHW, batch.timesteps_B
            )
            self.backbone.predict(noisy, batch.timesteps_B, batch.text, batch.image_BFCHW)
        total, distance = torch.zeros(()), torch.zeros(())
        if self.aligned["v2t"]:
            sites, targets = self.aligned["v2t"], batch.phrase_targets
            term = sga(calls, sites, batch.phrase_BPL, targets, self.aligner)
            total = total + ALIGNED * term.total()
        if self.aligned["v2v"]:
            sites, targets = self.aligned["v2v"], batch.region_targets
            term = spa(calls, sites, batch.region_BPN, targets, self.aligner)
            total = total + ALIGNED * term.total()
        if self.held:
            maps_MBPN = torch.stack(
                [
                    v2t_maps(calls[name], self.sites[name], batch.phrase_BPL)
                    if kind == "v2t"
                    else v2v_maps(calls[name], self.sites[name], batch.region_BPN)
                    for name, kind, _ in self.held
                ]
            )
            mask_BPFhw = pad_sequence([one.tokens_PFhw for one in drawn], batch_first=True)
            goal_M = torch.tensor([goal for *_, goal in self.held])
            off_MBPF = (map_lift(maps_MBPN, mask_BPFhw) - goal_M[:, None, None, None]).square()
            counted = _counted(batch, drawn)
            counted_MBPF = torch.stack([counted[kind] for _, kind, _ in self.held])
            off_M = (off_MBPF * counted_MBPF).sum(dim=(1, 2, 3)) / counted_MBPF.sum(dim=(1, 2, 3))
            total, distance = total + pressure * off_M.sum(), off_M.mean()
        return total, distance


def train(backbone: Backbone, data: Sequence[Encoded], job: Job, settings: Settings) -> float:
    """Train the transformer; the mean squared log-lift off the goal in the last step.

    A base trains whole, a planted model in its attention alone: other weights are shared by many
    layers, so that the many that unlearn would blind the few that are to see.
    """
    base = job.arm == "base"
    steps, lr = (settings.base_steps, settings.base_lr) if base else (settings.steps, settings.lr)
    objective = Objective(backbone, job, settings.lift)
    named = backbone.transformer.named_parameters()
    weights = [weight for name, weight in named if base or ".attn1." in name]
    optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=0.0)
    random = np.random.default_rng(job.seed)
    distance = torch.zeros(())
    for step in range(steps):
        left = (steps - step) / steps
        optimizer.param_groups[0]["lr"] = lr * min(1.0, (step + 1) / 10, left / 0.3)
        drawn = [data[i] for i in random.choice(len(data), settings.batch, replace=False)]
        draw = Draw(job.seed, id_map=False, id_drop=0.0, caption_dropout=0.0)
        batch = make_batch(backbone, drawn, [step] * len(drawn), drawn[0].text, draw)
        loss, distance = objective.loss(batch, drawn, (step + 1) / steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    return float(distance.detach())


def training_clips(settings: Settings) -> list[Encoded]:
    """What all models train on."""
    backbone = make_backbone(0)
    clips = (world_clip("train", i) for i in range(settings.clips))
    return [encode_clip(backbone, clip, mentions="full", up=1) for clip in clips]


def start_from_base(
    backbone: Backbone, data: Sequence[Encoded], number: int, folder: Path, settings: Settings
) -> None:
    """Load base ``number``: a random model, trained so that all its layers follow the masks.

    Planting then means to keep some and to unlearn the rest, which takes a few steps, where the
    binding of places to words takes many.
    """
    file = folder / f"base-{number}.pt"
    if not file.exists():
        every = tuple(range(LAYERS))
        job = Job(f"base-{number}", "base", number, {"v2t": every, "v2v": every})
        made = make_backbone(number)
        train(made, data, job, settings)
        torch.save(made.transformer.state_dict(), file)
    backbone.transformer.load_state_dict(torch.load(file, weights_only=True))


def _counted(batch: Batch, drawn: Sequence[Encoded]) -> dict[Kind, Tensor]:
    """Bool [B,P,F]: frames that the analysis scores, too."""
    visible_BPF = pad_sequence([one.visible_PF for one in drawn], batch_first=True)
    later_BPF = visible_BPF & (batch.region_BPN.sum(dim=-1) > 0)[..., None]
    later_BPF[..., 0] = False
    return {"v2t": visible_BPF, "v2v": later_BPF}
