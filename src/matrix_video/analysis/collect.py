"""Measuring a clip: noise its latents to fixed levels, one forward pass each, score the maps.

Shapes: R phrases of the clip, P noise levels, A attention heads, L text tokens, N = F·h·w video
tokens, F token frames, h w token rows and columns, C latent channels, H W latent rows and columns.

The same pass serves real videos and videos that the model generated: only the clip and its tracks
differ. Paper section 4 analyses maps along the denoising of a generated video; noising the finished
latent instead (our choice) needs no sampling and treats both kinds alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matrix_video.analysis.records import KINDS, Row
from matrix_video.analysis.scores import Scores, counted_frames, score
from matrix_video.analysis.targets import (
    GridTarget,
    Target,
    clip_targets,
    region_weights,
    text_weights,
)
from matrix_video.attention.readout import v2t_maps, v2v_maps
from matrix_video.attention.site import Kind, Site
from matrix_video.attention.tap import tap
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.precision import Precision, autocast
from matrix_video.backbones.seeds import keyed_generator
from matrix_video.data.clip import Clip
from matrix_video.data.grid import TokenGrid
from matrix_video.data.spans import Mentions
from matrix_video.services.errors import MatrixError


@dataclass(frozen=True)
class Probe:
    """What is measured, and how."""

    levels: int = 5
    """Noise levels, evenly spaced in the model's schedule (our choice)."""
    seed: int = 0
    batch: int = 5
    """Noise levels in one forward pass."""
    layers_at_once: int | None = None
    """Layers read in one forward pass, whose queries and keys are all kept; None: all."""
    per_head: bool = False
    mentions: Mentions = "full"
    precision: Precision = "no"


@dataclass(frozen=True)
class LevelMaps:
    """Maps of one clip in some layers, at some noise levels."""

    levels: tuple[int, ...]
    timesteps: tuple[float, ...]
    maps: Mapping[tuple[int, Kind], Tensor]
    """By layer and kind: [P,R,F,h,w], with heads [P,R,A,F,h,w]. A phrase without a first-frame
    region has a v2v map of zeros."""


def measure_clip(backbone: Backbone, clip: Clip, probe: Probe) -> list[Row]:
    """All rows of one clip: every layer, level, phrase and kind.

    Raises `MatrixError` naming the sample where it has no phrase to look for, and for whatever
    `clip_targets` and `Backbone.clip_grid` refuse.
    """
    grid = backbone.clip_grid(clip)
    targets = clip_targets(backbone, clip, grid, probe.mentions)
    if not targets:
        raise MatrixError(
            f"sample {clip.sample.id} has no phrase of an interaction to look for in attention",
            remedy="Give it an interaction and its participants' mentions in metadata.jsonl, or "
            "leave the sample out",
            field="interactions",
        )
    rows: list[Row] = []
    for found in level_maps(backbone, clip, targets, probe, range(backbone.num_layers)):
        for (layer, kind), maps in found.maps.items():
            for r, target in enumerate(targets):
                rows += _rows(clip.sample.id, found, layer, kind, maps[:, r], target, grid)
    return rows


@torch.no_grad()
def level_maps(
    backbone: Backbone,
    clip: Clip,
    targets: Sequence[Target],
    probe: Probe,
    layers: Sequence[int],
) -> Iterator[LevelMaps]:
    """Maps of ``layers`` at every noise level, some levels and layers at a time (see `Probe`).

    The noise of a level depends on (seed, sample id, level) alone, so that neither the batch nor
    the order of the clips changes a number beyond rounding. The model is conditioned as in
    training: on the caption, and, where it takes one, on the clip's first frame.
    """
    grid = backbone.clip_grid(clip)
    device = next(backbone.transformer.parameters()).device
    frames = torch.from_numpy(clip.video.frames_THWC)
    latents = backbone.encode_video(frames[None])
    image = backbone.encode_image(frames[:1], len(frames)) if backbone.takes_image else None
    text = backbone.encode_text([clip.sample.caption])
    timesteps = backbone.noise_levels(probe.levels).to(device)
    weights: dict[Kind, Tensor] = {
        "v2t": text_weights(targets, backbone.num_text_tokens).to(device),
        "v2v": region_weights(targets, grid.num_tokens).to(device),
    }
    at_once = probe.layers_at_once or len(layers)
    for start in range(0, probe.levels, probe.batch):
        chosen = range(start, min(start + probe.batch, probe.levels))
        size = len(chosen)
        noise = torch.cat([_noise(latents, probe.seed, clip.sample.id, p) for p in chosen])
        t = timesteps[start : start + size]
        noisy = backbone.add_noise(latents.expand(size, *latents.shape[1:]), noise.to(latents), t)
        for first in range(0, len(layers), at_once):
            sites: dict[tuple[int, Kind], Site] = {
                (i, kind): backbone.site(i, kind, grid, backbone.num_text_tokens)
                for i in layers[first : first + at_once]
                for kind in KINDS
            }
            tapped = {f"{i} {kind}": site for (i, kind), site in sites.items()}
            with tap(backbone.transformer, tapped) as calls, autocast(device, probe.precision):
                backbone.predict(
                    noisy,
                    t,
                    text.expand(size),
                    None if image is None else image.expand(size, *image.shape[1:]),
                )
            maps: dict[tuple[int, Kind], Tensor] = {}
            for (i, kind), site in sites.items():
                read = v2t_maps if kind == "v2t" else v2v_maps
                found = read(
                    calls[f"{i} {kind}"],
                    site,
                    weights[kind].expand(size, -1, -1),
                    per_head=probe.per_head,
                )
                if probe.per_head:  # phrases before heads
                    found = found.transpose(1, 2)
                maps[i, kind] = found.float().cpu().unflatten(-1, grid.shape)
            yield LevelMaps(tuple(chosen), tuple(float(value) for value in t), maps)


def _noise(latents: Tensor, seed: int, sample: str, level: int) -> Tensor:
    generator = keyed_generator(seed, sample, level, "analysis")
    return torch.randn(latents.shape, generator=generator)


def _rows(
    sample: str,
    found: LevelMaps,
    layer: int,
    kind: Kind,
    maps: Tensor,
    target: Target,
    grid: TokenGrid,
) -> list[Row]:
    """Rows of one phrase's maps [P,F,h,w] or [P,A,F,h,w]; heads come with their mean."""
    after = grid.first if kind == "v2v" else -1
    visible_F = counted_frames(target.own.states, after=after)
    if not bool(visible_F.any()) or (kind == "v2v" and target.region_N is None):
        return []
    rivals = [(rival.mask_Fhw, _counted(rival, after)) for rival in target.rivals]
    heads: list[tuple[int | None, Tensor]] = [(None, maps)]
    if maps.ndim == 5:
        per_head = list(enumerate(maps.unbind(dim=1)))
        heads = [(None, maps.double().mean(dim=1)), *per_head]
    rows: list[Row] = []
    for head, maps_PFhw in heads:
        scores = score(maps_PFhw, target.own.mask_Fhw, visible_F, rivals)
        for p, (level, timestep) in enumerate(zip(found.levels, found.timesteps, strict=True)):
            rows.append(
                Row(
                    sample=sample,
                    layer=layer,
                    level=level,
                    timestep=timestep,
                    role=target.phrase.role,
                    kind=kind,
                    phrase=target.index,
                    instance="+".join(target.phrase.instances),
                    head=head,
                    **_values(scores, p),
                )
            )
    return rows


def _counted(rival: GridTarget, after: int) -> Tensor:
    return counted_frames(rival.states, after=after)


def _values(scores: Scores, p: int) -> dict[str, float]:
    return {
        "aas": float(scores.aas[p]),
        "log_lift": float(scores.log_lift[p]),
        "mean_in_mask": float(scores.mean_in_mask[p]),
        "average_precision": float(scores.average_precision[p]),
        "binding": float(scores.binding[p]),
        "area": scores.area,
    }
