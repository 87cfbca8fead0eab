"""A clip as the training loop needs it: latents, text, and masks on the grids of the losses.

Shapes: P phrases, I instances in the first frame, C latent channels, L text tokens, F token
frames, h w token rows and columns, N = F·h·w, T decoder frames, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from matrix_video.alignment.targets import output_frames, token_ratio
from matrix_video.analysis.targets import Target, clip_targets, region_weights, text_weights
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.text import Text
from matrix_video.data.clip import Clip
from matrix_video.data.grid import GridMask, TokenGrid, masks_per_frame, union
from matrix_video.data.sample import Role
from matrix_video.data.spans import Mentions
from matrix_video.data.tracks import State, first_masks
from matrix_video.services.errors import naming

ROLES: Final[tuple[Role, ...]] = ("subject", "object", "verb")


@dataclass(frozen=True)
class Encoded:
    """One sample, encoded once; all tensors on the CPU.

    A phrase is a participant or a verb (whose mask is the union of its participants).
    """

    id: str
    clip: tuple[int, int, int]
    """Pixel frames, rows and columns."""
    latents_FCHW: Tensor
    image_FCHW: Tensor | None
    """Latents of the first frame, for image-to-video bases."""
    text: Text
    """Of this caption alone."""
    ids_IHW: Tensor
    """First-frame masks (bool, in pixels) of the instances that are visible there."""
    phrase_PL: Tensor
    """Weights over text tokens; rows sum to 1."""
    region_PN: Tensor
    """Weights over the first token frame's tokens; a row of zeros where the mask is empty."""
    repeated_P: Tensor
    """Whether an earlier phrase has the same instances, and so the same region."""
    tokens_PFhw: Tensor
    """Masks on the token grid."""
    visible_PF: Tensor
    """Whether the target is visible in the token frame."""
    target_PTHW: Tensor
    """Masks on the decoder's grid."""
    known_PT: Tensor
    """Whether the decoder frame is annotated."""
    role_P: Tensor
    """Index into `ROLES`."""
    image_extra: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """`Backbone.image_extra` of the first frame alone."""


def encode_clip(
    backbone: Backbone, clip: Clip, *, mentions: Mentions, up: int, aligned: bool = True
) -> Encoded:
    """Everything of ``clip`` that does not change between epochs; not ``aligned``: no phrases.

    Raises `MatrixError` as `analysis.targets.clip_targets` and `Backbone.clip_grid` do.
    """
    sample, video = clip.sample, clip.video
    grid, length = backbone.clip_grid(clip), backbone.num_text_tokens
    targets = clip_targets(backbone, clip, grid, mentions) if aligned else ()
    target_PTHW, known_PT = _decoder_masks(targets, clip, grid, up)
    instances = [frozenset(target.phrase.instances) for target in targets]
    visible = [[state is State.VISIBLE for state in t.own.states] for t in targets]
    first = [torch.from_numpy(mask_HW) for mask_HW in first_masks(clip.tracks).values()]
    frames = torch.from_numpy(video.frames_THWC)
    with torch.no_grad(), naming(f"sample {sample.id}"):
        latents = backbone.encode_video(frames[None])[0]
        image = None
        if backbone.takes_image:
            image = backbone.encode_image(frames[:1], len(video))[0].cpu()
        extra = {name: value.cpu() for name, value in backbone.image_extra(frames[:1]).items()}
        text = backbone.encode_text([sample.caption], frames[:1])
    return Encoded(
        id=sample.id,
        clip=(len(video), *video.size),
        latents_FCHW=latents.cpu(),
        image_FCHW=image,
        text=text.to("cpu"),
        ids_IHW=_stacked(first, video.size),
        phrase_PL=text_weights(targets, length),
        region_PN=region_weights(targets, grid.num_tokens),
        repeated_P=torch.tensor([k in instances[:i] for i, k in enumerate(instances)]).bool(),
        tokens_PFhw=_stacked([target.own.mask_Fhw for target in targets], grid.shape),
        visible_PF=torch.tensor(visible, dtype=torch.bool).reshape(-1, grid.num_frames),
        target_PTHW=target_PTHW,
        known_PT=known_PT,
        role_P=torch.tensor([ROLES.index(target.phrase.role) for target in targets]).long(),
        image_extra=extra,
    )


def with_masks_of(encoded: Encoded, other: Encoded) -> Encoded:
    """The sample with another's mask tracks, first-frame regions included: a placebo, in which all
    is as it was but what the losses say. Its phrases, id map and clip stay; phrase p gets the masks
    of the other's phrase p, counted round where that has fewer. ``other`` without phrases gives
    empty masks."""
    count = len(encoded.phrase_PL)
    if not len(other.phrase_PL):
        names = ("region_PN", "tokens_PFhw", "visible_PF", "target_PTHW")
        return replace(encoded, **{n: torch.zeros_like(getattr(encoded, n)) for n in names})
    rows = torch.arange(count) % len(other.phrase_PL)
    return replace(
        encoded,
        region_PN=other.region_PN[rows],
        tokens_PFhw=other.tokens_PFhw[rows],
        visible_PF=other.visible_PF[rows],
        target_PTHW=other.target_PTHW[rows],
        known_PT=other.known_PT[rows],
    )


def _decoder_masks(
    targets: Sequence[Target], clip: Clip, grid: TokenGrid, up: int
) -> tuple[Tensor, Tensor]:
    """Masks [P,T,H,W] on the decoder's grid, and which of its frames are annotated [P,T]."""
    size = (grid.height * up, grid.width * up)
    fine: dict[str, GridMask] = {}
    for name in {name for target in targets for name in target.phrase.instances}:
        track = clip.tracks[name]
        fine[name] = masks_per_frame(track.masks(), track.states, size)
    frames = output_frames(grid.frames, token_ratio(grid.frames))
    mask_PTHW = np.zeros((len(targets), len(frames), *size), dtype=bool)
    known_PT = np.zeros(mask_PTHW.shape[:2], dtype=bool)
    for row, target in enumerate(targets):
        whole = union([fine[name] for name in target.phrase.instances])
        for t, frame in enumerate(frames):
            if frame is not None:
                mask_PTHW[row, t] = whole.mask_Fhw[frame]
                known_PT[row, t] = whole.known_F[frame]
    return torch.from_numpy(mask_PTHW), torch.from_numpy(known_PT)


def _stacked(masks: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Masks of this shape along a new first axis, also where there are none."""
    return torch.stack([*masks]) if masks else torch.zeros(0, *shape, dtype=torch.bool)
