"""Masks on the token grid of a video model.

Shapes: T pixel frames, H W pixels; F token frames (groups of pixel frames), h w token rows and
columns. Order of the rules (paper section 4 projects masks by their union over time; the rest is
our choice): union over a group's pixel frames, then area per token, positive from one half on; a
visible instance that reaches one half nowhere keeps its best-covered token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.tracks import State, resize_masks


@dataclass(frozen=True)
class TokenGrid:
    """Which pixel frames each token frame sees, and how many token rows and columns there are.

    ``frames[k]`` are the pixel frames of token frame k; () where it holds latents that the model
    added itself: its state is unknown.
    """

    frames: tuple[tuple[int, ...], ...]
    height: int
    width: int

    def __post_init__(self) -> None:
        if not self.frames or self.height < 1 or self.width < 1:
            raise ValueError(f"empty token grid {self.shape}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(F, h, w)."""
        return len(self.frames), self.height, self.width

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    @property
    def first(self) -> int:
        """The first token frame that holds pixels; those before it are the model's own padding.

        ``ValueError`` where none does.
        """
        for index, group in enumerate(self.frames):
            if group:
                return index
        raise ValueError(f"no token frame of {self.shape} holds a pixel frame")

    @property
    def num_tokens(self) -> int:
        """F * h * w, frame-major."""
        return len(self.frames) * self.height * self.width


@dataclass(frozen=True, eq=False)
class GridMask:
    """Mask bool [F,h,w] and one state a frame; the mask is false wherever it is not visible."""

    mask_Fhw: NDArray[np.bool_]
    states: tuple[State, ...]

    def __post_init__(self) -> None:
        if self.mask_Fhw.ndim != 3 or len(self.mask_Fhw) != len(self.states):
            raise ValueError(f"{len(self.states)} states for a mask of {self.mask_Fhw.shape}")

    @property
    def known_F(self) -> NDArray[np.bool_]:
        """Frames that may be supervised and scored: all but the unknown ones."""
        return np.array([state is not State.UNKNOWN for state in self.states], dtype=bool)


def causal_frames(
    num_latent: int, ratio: int, patch_t: int = 1, prepend: int = 0
) -> tuple[tuple[int, ...], ...]:
    """Pixel frames of each token frame of a causal video VAE followed by patches in time.

    Latent frame 0 comes from pixel frame 0, latent frame k from pixel frames
    ratio*(k-1)+1 ... ratio*k. The model puts ``prepend`` latents of its own in front and then
    groups ``patch_t`` latents into one token frame. A group of its own latents alone gives (): it
    shows nothing that is known. One that also holds real latents has the frames of these (our
    choice): the padding of CogVideoX 1.5 repeats the first latent, and this is the token frame
    that shows the first frame, where V2V regions lie. ``ValueError`` where the groups do not come
    out even.
    """
    if num_latent < 1 or ratio < 1 or patch_t < 1 or prepend < 0:
        raise ValueError(f"{num_latent=} {ratio=} {patch_t=} {prepend=}")
    if (prepend + num_latent) % patch_t:
        raise ValueError(
            f"{prepend} + {num_latent} latent frames do not divide into groups of {patch_t}"
        )
    latents: list[tuple[int, ...]] = [() for _ in range(prepend)]
    latents += [
        (0,),
        *(tuple(range(ratio * (k - 1) + 1, ratio * k + 1)) for k in range(1, num_latent)),
    ]
    groups = [latents[i : i + patch_t] for i in range(0, len(latents), patch_t)]
    return tuple(sum(group, ()) for group in groups)


def masks_on_grid(
    masks_THW: NDArray[np.bool_], states: Sequence[State], grid: TokenGrid
) -> GridMask:
    """One instance's masks bool [T,H,W] with a state a frame, on the token grid.

    A group is unknown if any of its frames is (or it has none), else visible if any is, else
    absent. ``ValueError`` where masks and states differ in length or the grid asks for a frame
    past the end.
    """
    if masks_THW.ndim != 3 or masks_THW.dtype != np.bool_ or len(masks_THW) != len(states):
        raise ValueError(
            f"expected bool [{len(states)},H,W], got {masks_THW.dtype} {masks_THW.shape}"
        )
    if any(frame >= len(states) for group in grid.frames for frame in group):
        raise ValueError(f"the grid {grid.frames} reaches past {len(states)} frames")
    group_states = tuple(_state([states[t] for t in group]) for group in grid.frames)
    union_FHW = np.zeros((grid.num_frames, *masks_THW.shape[1:]), dtype=bool)
    for k, (group, state) in enumerate(zip(grid.frames, group_states, strict=True)):
        if state is State.VISIBLE:
            seen = [t for t in group if states[t] is State.VISIBLE]
            union_FHW[k] = masks_THW[seen].any(axis=0)
    return GridMask(resize_masks(union_FHW, (grid.height, grid.width)), group_states)


def masks_per_frame(
    masks_THW: NDArray[np.bool_], states: Sequence[State], size: tuple[int, int]
) -> GridMask:
    """The same on a finer grid in time, that of the map decoder: a frame each, no union.

    ``size`` is (rows, columns); the result's F is T.
    """
    return masks_on_grid(
        masks_THW, states, TokenGrid(tuple((t,) for t in range(len(states))), *size)
    )


def union(masks: Sequence[GridMask]) -> GridMask:
    """Target of a verb: the union of its participants on the grid.

    Taken after the grid, so that a participant smaller than half a token is not lost beside a
    large one (our choice). A frame is unknown if it is for any participant, else visible if any
    is. ``ValueError`` for none, or for grids of different shape.
    """
    if not masks or any(mask.mask_Fhw.shape != masks[0].mask_Fhw.shape for mask in masks):
        raise ValueError(f"cannot unite masks of {[mask.mask_Fhw.shape for mask in masks]}")
    states = tuple(_state(each) for each in zip(*(mask.states for mask in masks), strict=True))
    mask_Fhw = np.logical_or.reduce([mask.mask_Fhw for mask in masks])
    known_F = np.array([state is not State.UNKNOWN for state in states], dtype=bool)
    return GridMask(mask_Fhw & known_F[:, None, None], states)


def _state(states: Sequence[State]) -> State:
    if not states or State.UNKNOWN in states:
        return State.UNKNOWN
    return State.VISIBLE if State.VISIBLE in states else State.ABSENT
