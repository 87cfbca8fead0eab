"""Measuring a clip: its maps in every layer at fixed noise levels, and their scores.

Shapes: I layers, R phrases of the clip, P noise levels, A attention heads, F token frames, h w
token rows and columns, H W pixels.

Maps come from the clip itself, noised, one forward pass a level, which serves real and generated
videos alike and needs no sampling (our choice); or, for generated videos, from their own sampling
(`analysis.trajectory`), which is what paper section 4 analyses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from matrix_video.analysis.probe import LevelMaps, Probe
from matrix_video.analysis.reading import Reader
from matrix_video.analysis.records import KINDS, Row
from matrix_video.analysis.scores import counted_frames, score
from matrix_video.analysis.sink_records import SinkRow
from matrix_video.analysis.targets import Target, clip_targets, phrase_tokens
from matrix_video.analysis.trajectory import replayed_maps
from matrix_video.attention.site import Kind
from matrix_video.attention.tap import tap
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.condition import paint_ids
from matrix_video.backbones.precision import autocast
from matrix_video.backbones.seeds import keyed_generator
from matrix_video.data.clip import Clip
from matrix_video.data.grid import TokenGrid
from matrix_video.data.sample import Sample
from matrix_video.data.spans import Mentions, phrases
from matrix_video.data.tracks import first_masks
from matrix_video.services.errors import MatrixError, naming

_MEASURES = ("aas", "log_lift", "mean_in_mask", "average_precision", "binding")


@dataclass(frozen=True)
class Measured:
    """All rows of one clip."""

    rows: list[Row]
    """Every layer, level, phrase and kind."""
    sinks: list[SinkRow]
    """Every layer, level and kind of token."""


def sample_phrases(
    backbone: Backbone, sample: Sample, mentions: Mentions
) -> tuple[tuple[int, ...], ...]:
    """Text tokens of each phrase that is looked for.

    Raises `MatrixError` naming the sample where there is no phrase, and where one has no token or
    is cut off because the caption is longer than the model reads.
    """
    found = phrases(sample, mentions)
    if not found:
        raise MatrixError(
            f"sample {sample.id} has no phrase of an interaction to look for in attention",
            remedy="Give it an interaction and its participants' mentions in metadata.jsonl, or "
            "leave the sample out",
            field="interactions",
        )
    return phrase_tokens(backbone, sample, found)


def measure_clip(backbone: Backbone, clip: Clip, probe: Probe) -> Measured:
    """Measure one clip in every layer.

    Raises `MatrixError` naming the sample where it has no phrase to look for, and for whatever
    `clip_targets` and `Backbone.clip_grid` refuse.
    """
    sample_phrases(backbone, clip.sample, probe.mentions)
    grid = backbone.clip_grid(clip)
    targets = clip_targets(backbone, clip, grid, probe.mentions)
    rows: list[Row] = []
    sinks: list[SinkRow] = []
    for found in level_maps(backbone, clip, targets, probe, range(backbone.num_layers)):
        sinks += _sink_rows(clip.sample.id, found)
        rows += _rows(clip.sample.id, found, targets, grid)
    return Measured(rows, sinks)


@torch.no_grad()
def level_maps(
    backbone: Backbone,
    clip: Clip,
    targets: Sequence[Target],
    probe: Probe,
    layers: Sequence[int],
) -> Iterator[LevelMaps]:
    """Maps of ``layers`` at every noise level, some levels and layers at a time (see `Probe`)."""
    reader = Reader(backbone, clip, targets, per_head=probe.per_head)
    groups = list(probe.groups(layers))
    if probe.replay is None:
        return noised_maps(reader, clip, probe, groups)
    return replayed_maps(reader, probe.replay, clip, probe.levels, groups)


@torch.no_grad()
def noised_maps(
    reader: Reader, clip: Clip, probe: Probe, groups: Sequence[Sequence[int]]
) -> Iterator[LevelMaps]:
    """Maps of the clip itself, noised.

    The noise of a level depends on (seed, sample id, level) alone, so that neither the batch nor
    the order of the clips changes a number beyond rounding. The model is conditioned as in
    training: on the caption, where it takes one on the clip's first frame, and with an adapter
    that takes one on the id map of that frame.
    """
    backbone = reader.backbone
    device = backbone.device
    frames = torch.from_numpy(clip.video.frames_THWC)
    with naming(f"sample {clip.sample.id}"):
        latents = backbone.encode_video(frames[None])
        image = backbone.encode_image(frames[:1], len(frames)) if backbone.takes_image else None
        text = backbone.encode_text([clip.sample.caption], frames[:1])
    given = nullcontext()
    if probe.condition is not None:
        given = probe.condition.given(_id_map(backbone, clip, probe.seed))
    timesteps = backbone.noise_levels(probe.levels).to(device)
    with given:
        for start in range(0, probe.levels, probe.batch):
            chosen = range(start, min(start + probe.batch, probe.levels))
            size = len(chosen)
            noise = torch.cat([_noise(latents, probe.seed, clip.sample.id, p) for p in chosen])
            t = timesteps[start : start + size]
            times = tuple(float(value) for value in t)
            at = [f"noise level {p} (timestep {v:g})" for p, v in zip(chosen, times, strict=True)]
            many = latents.expand(size, *latents.shape[1:])
            noisy = backbone.add_noise(many, noise.to(latents), t)
            first = None if image is None else image.expand(size, *image.shape[1:])
            for layers in groups:
                places = reader.places(layers)
                sites = {place.name: place.site for place in places}
                with tap(backbone.transformer, sites) as calls, autocast(device, probe.precision):
                    backbone.predict(noisy, t, text.expand(size), first)
                read = reader.read(calls, places, at)
                yield LevelMaps(read.maps, read.sinks, tuple(chosen), times)


def _id_map(backbone: Backbone, clip: Clip, seed: int) -> Tensor:
    """Latents of the first frame's id map, its colours drawn by (seed, sample id)."""
    masks = [*first_masks(clip.tracks).values()]
    masks_IHW = np.stack(masks) if masks else np.zeros((0, *clip.video.size), dtype=bool)
    name = clip.sample.id
    painted = paint_ids(masks_IHW, keyed_generator(seed, name, "colours"), name)
    return backbone.encode_id_map(torch.from_numpy(painted)[None], len(clip.video))


def _noise(latents: Tensor, seed: int, sample: str, level: int) -> Tensor:
    generator = keyed_generator(seed, sample, level, "analysis")
    return torch.randn(latents.shape, generator=generator)


def _rows(sample: str, found: LevelMaps, targets: Sequence[Target], grid: TokenGrid) -> list[Row]:
    """Rows of all phrases, by layer and kind; heads come with their mean."""
    maps = found.maps
    layers = list(dict.fromkeys(layer for layer, _ in maps))
    scored: dict[tuple[Kind, int], list[_Scored]] = {}
    for kind in KINDS:
        maps_IPR = torch.stack([maps[layer, kind] for layer in layers])
        for r, target in enumerate(targets):
            scored[kind, r] = _score(maps_IPR[:, :, r], kind, target, grid)
    return [
        Row(
            sample=sample,
            layer=layer,
            level=level,
            timestep=timestep,
            role=target.phrase.role,
            kind=kind,
            phrase=target.index,
            instance="+".join(target.phrase.instances),
            head=scores.head,
            **{name: values[i][p] for name, values in scores.values_IP.items()},
            area=scores.area,
        )
        for i, layer in enumerate(layers)
        for kind in KINDS
        for r, target in enumerate(targets)
        for scores in scored[kind, r]
        for p, (level, timestep) in enumerate(zip(found.levels, found.timesteps, strict=True))
    ]


@dataclass(frozen=True)
class _Scored:
    """Scores of one phrase in all layers, of one head or the mean over heads."""

    head: int | None
    values_IP: dict[str, list[list[float]]]
    """By the table's names, for each layer and level."""
    area: float


def _score(maps: Tensor, kind: Kind, target: Target, grid: TokenGrid) -> list[_Scored]:
    """Scores of maps [I,P,F,h,w] or [I,P,A,F,h,w]; none where no frame of the target counts."""
    after = grid.first if kind == "v2v" else -1
    visible_F = counted_frames(target.own.states, after=after)
    if not bool(visible_F.any()) or (kind == "v2v" and target.region_N is None):
        return []
    rivals = [(r.mask_Fhw, counted_frames(r.states, after=after)) for r in target.rivals]
    heads: list[tuple[int | None, Tensor]] = [(None, maps)]
    if maps.ndim == 6:
        heads = [(None, maps.double().mean(dim=2)), *enumerate(maps.unbind(dim=2))]
    found: list[_Scored] = []
    for head, maps_IPFhw in heads:
        scores = score(maps_IPFhw, target.own.mask_Fhw, visible_F, rivals)
        values = {name: getattr(scores, name).tolist() for name in _MEASURES}
        found.append(_Scored(head, values, scores.area))
    return found


def _sink_rows(sample: str, found: LevelMaps) -> list[SinkRow]:
    return [
        SinkRow(sample, layer, level, timestep, share.tokens, share.count, float(share.share_B[p]))
        for layer, shares in found.sinks.items()
        for p, (level, timestep) in enumerate(zip(found.levels, found.timesteps, strict=True))
        for share in shares
    ]
