"""A clip as the training loop needs it: latents, text, and masks on the grids of the losses.

Shapes: P phrases, I instances in the first frame, C latent channels, L text tokens, F token
frames, h w token rows and columns, N = F·h·w, T decoder frames, H W rows and columns, E text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from matrix_video.alignment.targets import output_frames, token_ratio
from matrix_video.backbones.base import Backbone
from matrix_video.data.clip import Clip
from matrix_video.data.grid import TokenGrid, masks_on_grid, masks_per_frame, union
from matrix_video.data.spans import Mentions, Phrase, phrase_tokens, phrases
from matrix_video.data.tracks import State
from matrix_video.services.errors import MatrixError


@dataclass(frozen=True)
class Encoded:
    """One sample, encoded once; all tensors on the CPU.

    A phrase is a participant or a verb (whose mask is the union of its participants).
    """

    id: str
    labels: tuple[str, ...]
    """What each phrase says, with its role: "subject: red ball"."""
    latents_FCHW: Tensor
    image_FCHW: Tensor | None
    """Latents of the first frame, for image-to-video bases."""
    text_LE: Tensor
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


def encode_clip(backbone: Backbone, clip: Clip, *, mentions: Mentions, up: int) -> Encoded:
    """Everything of ``clip`` that does not change between epochs.

    Raises `MatrixError` for a phrase that covers no token or is cut by truncation, and for one
    whose instance has no mask track.
    """
    sample, video = clip.sample, clip.video
    times, (height, width) = len(video), video.size
    try:
        grid = backbone.grid(times, height, width)
    except MatrixError as error:
        raise MatrixError(
            f"sample {sample.id}: {error.problem}", remedy=error.remedy, field=error.field
        ) from error
    found = phrases(sample, mentions)
    length = backbone.num_text_tokens
    phrase_PL = torch.zeros(len(found), length)
    for row, tokens in enumerate(
        phrase_tokens(backbone.tokenizer, sample, found, max_length=length)
    ):
        phrase_PL[row, list(tokens)] = 1 / len(tokens)
    masks = [_phrase_masks(phrase, clip, grid, up) for phrase in found]
    instances = [frozenset(phrase.instances) for phrase in found]
    first = [track.mask(0) for track in clip.tracks.values() if track.states[0] is State.VISIBLE]
    none = _empty_masks(grid, up)
    frames = torch.from_numpy(video.frames_THWC)
    with torch.no_grad():
        latents = backbone.encode_video(frames[None])[0]
        image = backbone.encode_image(frames[:1], times)[0] if backbone.takes_image else None
        text = backbone.encode_text([sample.caption])[0]
    return Encoded(
        id=sample.id,
        labels=tuple(f"{phrase.role}: {phrase.text}" for phrase in found),
        latents_FCHW=latents.cpu(),
        image_FCHW=None if image is None else image.cpu(),
        text_LE=text.cpu(),
        ids_IHW=_stacked(first, np.zeros((height, width), bool)),
        phrase_PL=phrase_PL,
        region_PN=_stacked([m.region_N for m in masks], none.region_N),
        repeated_P=torch.tensor([k in instances[:i] for i, k in enumerate(instances)]).bool(),
        tokens_PFhw=_stacked([m.tokens_Fhw for m in masks], none.tokens_Fhw),
        visible_PF=_stacked([m.visible_F for m in masks], none.visible_F),
        target_PTHW=_stacked([m.target_THW for m in masks], none.target_THW),
        known_PT=_stacked([m.known_T for m in masks], none.known_T),
    )


@dataclass(frozen=True)
class _PhraseMasks:
    region_N: NDArray[np.float32]
    tokens_Fhw: NDArray[np.bool_]
    visible_F: NDArray[np.bool_]
    target_THW: NDArray[np.bool_]
    known_T: NDArray[np.bool_]


def _empty_masks(grid: TokenGrid, up: int) -> _PhraseMasks:
    frames, rows, columns = grid.shape
    times = len(output_frames(grid.frames, token_ratio(grid.frames)))
    return _PhraseMasks(
        np.zeros(frames * rows * columns, np.float32),
        np.zeros(grid.shape, bool),
        np.zeros(frames, bool),
        np.zeros((times, rows * up, columns * up), bool),
        np.zeros(times, bool),
    )


def _phrase_masks(phrase: Phrase, clip: Clip, grid: TokenGrid, up: int) -> _PhraseMasks:
    for name in phrase.instances:
        if name not in clip.tracks:
            raise MatrixError(
                f"sample {clip.sample.id}: {phrase.text!r} is {name}, which has no mask track",
                remedy="add the track, or take the phrase's spans out of metadata.jsonl",
                field=f"tracks.{name}",
            )
    tracks = [(clip.tracks[name].masks(), clip.tracks[name].states) for name in phrase.instances]
    size = (grid.height * up, grid.width * up)
    token = union([masks_on_grid(masks, states, grid) for masks, states in tracks])
    fine = union([masks_per_frame(masks, states, size) for masks, states in tracks])
    out = _empty_masks(grid, up)
    for index, frame in enumerate(output_frames(grid.frames, token_ratio(grid.frames))):
        if frame is not None:
            out.known_T[index] = fine.known_F[frame]
            out.target_THW[index] = fine.mask_Fhw[frame]
    out.tokens_Fhw[:] = token.mask_Fhw
    out.visible_F[:] = token.visible_F
    start = next(k for k, group in enumerate(grid.frames) if group)
    if out.visible_F[start]:
        tokens = grid.height * grid.width
        region = token.mask_Fhw[start].reshape(-1)
        out.region_N[start * tokens : (start + 1) * tokens] = region / max(int(region.sum()), 1)
    return out


def _stacked(arrays: Sequence[NDArray[np.generic]], like: NDArray[np.generic]) -> Tensor:
    """Arrays along a new first axis; without any, an empty tensor of that shape."""
    return torch.from_numpy(np.stack(arrays) if arrays else np.zeros((0, *like.shape), like.dtype))
