"""What the maps of a clip are compared with: masks of its phrases on the token grid.

Shapes: T pixel frames, H W pixels, F token frames, h w token rows and columns, N = F·h·w.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matrix_video.backbones.base import Backbone
from matrix_video.data.clip import Clip
from matrix_video.data.grid import GridMask, TokenGrid, masks_on_grid, union
from matrix_video.data.sample import Sample
from matrix_video.data.spans import Mentions, Phrase, phrases
from matrix_video.data.tracks import State
from matrix_video.services.errors import MatrixError


@dataclass(frozen=True)
class GridTarget:
    """A mask on the token grid with the states of its frames."""

    mask_Fhw: Tensor
    states: tuple[State, ...]


@dataclass(frozen=True)
class Target:
    """One phrase of a sample, with all that its two maps need."""

    index: int
    """Position among the sample's phrases."""
    phrase: Phrase
    tokens: tuple[int, ...]
    """Text tokens of the phrase."""
    own: GridTarget
    rivals: tuple[GridTarget, ...]
    """Instances that it may be mistaken for: see `rival_ids`."""
    region_N: Tensor | None
    """Weights over video tokens, sum 1, of its instances' region in the first token frame that
    holds pixels; None where they are not visible there."""


def rival_ids(sample: Sample, phrase: Phrase) -> tuple[str, ...]:
    """Instances that the phrase could be bound to by mistake, in the sample's order.

    These are the other participants of the interactions that the phrase's instances take part in,
    and the instances of the same class (our choice: the two confusions that the paper's
    figures show).
    """
    own = set(phrase.instances)
    nouns = {sample.instance(name).noun for name in own}
    found = {i.id for i in sample.instances if i.noun in nouns}
    for interaction in sample.interactions:
        pair = {interaction.subject, interaction.object}
        if pair & own:
            found |= pair
    return tuple(i.id for i in sample.instances if i.id in found - own)


def phrase_tokens(
    backbone: Backbone, sample: Sample, found: Sequence[Phrase]
) -> tuple[tuple[int, ...], ...]:
    """`Backbone.phrase_tokens` of a sample's phrases; its errors name the sample too."""
    try:
        return backbone.phrase_tokens(sample.caption, [phrase.spans for phrase in found])
    except MatrixError as error:
        raise MatrixError(
            error.problem, remedy=error.remedy, field=f"{sample.id}: {error.field}"
        ) from error


def clip_targets(
    backbone: Backbone, clip: Clip, grid: TokenGrid, mentions: Mentions = "full"
) -> tuple[Target, ...]:
    """Targets of all phrases of a clip; none where no interaction is mentioned.

    Raises `MatrixError` naming the sample when a phrase covers no token or is cut by truncation,
    or when a named instance has no mask track.
    """
    sample = clip.sample
    found = phrases(sample, mentions)
    tokens = phrase_tokens(backbone, sample, found)
    on_grid = {
        name: masks_on_grid(track.masks(), track.states, grid)
        for name, track in clip.tracks.items()
    }
    targets: list[Target] = []
    for index, (phrase, indices) in enumerate(zip(found, tokens, strict=True)):
        for name in phrase.instances:
            if name not in clip.tracks:
                raise MatrixError(
                    f"sample {sample.id}: {phrase.text!r} is {name}, which has no mask track",
                    remedy="Add the track, or take the phrase's spans out of metadata.jsonl",
                    field=f"tracks.{name}",
                )
        own = _target(union([on_grid[name] for name in phrase.instances]))
        rivals = [_target(on_grid[name]) for name in rival_ids(sample, phrase) if name in on_grid]
        targets.append(Target(index, phrase, indices, own, tuple(rivals), _region(own, grid)))
    return tuple(targets)


def text_weights(targets: Sequence[Target], num_text: int) -> Tensor:
    """Rows that average over each phrase's text tokens, float32 [R,L]."""
    weights_RL = torch.zeros(len(targets), num_text)
    for row, target in zip(weights_RL, targets, strict=True):
        row[list(target.tokens)] = 1 / len(target.tokens)
    return weights_RL


def region_weights(targets: Sequence[Target], num_video: int) -> Tensor:
    """Rows that average over each phrase's first-frame region, float32 [R,N]; zeros without one."""
    none_N = torch.zeros(num_video)
    rows = [none_N if t.region_N is None else t.region_N for t in targets]
    return torch.stack(rows) if rows else none_N.expand(0, -1)


def _target(mask: GridMask) -> GridTarget:
    return GridTarget(torch.from_numpy(mask.mask_Fhw), mask.states)


def _region(own: GridTarget, grid: TokenGrid) -> Tensor | None:
    if own.states[grid.first] is not State.VISIBLE:
        return None
    weights_Fhw = torch.zeros(own.mask_Fhw.shape)
    weights_Fhw[grid.first] = own.mask_Fhw[grid.first].float()
    return (weights_Fhw / weights_Fhw.sum()).flatten()
