"""Pixels → which known appearance each pixel shows, in every frame.

Appearances are *learned* from the first frame: an instance's colour from the pixels under its
first-frame mask, the background from what lies outside all of them. A pixel is unmixed between
background and one appearance, so that blurred edges, faint noise and the soft shading of a decoded
video do not matter: what counts is how much of a colour it shows (its *share*) and how far it lies
off the line between background and that colour (its *residual*).

The method is our choice; the paper tracks with SAM 2, which needs a network.

Shapes: T frames, H rows, W columns, P pixels of a frame, N chosen pixels, R instances, K
appearances (own ones first), 3 channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from matrix_video.world.palette import COLOURS

Masks = NDArray[np.bool_]
Floats = NDArray[np.float32]

BACKGROUND: Final = -1
"""Label of a pixel that shows the background."""
FADED: Final = -2
"""Label of a pixel that shows less than half of a known colour over the background."""
MIXED: Final = -3
"""Label of a pixel that lies between two instances' colours: where they touch and are blurred."""
STRANGE: Final = -4
"""Label of a pixel that none of these explains."""

_SAME = 45.0  # instances whose colours are closer share one appearance (RGB distance)
_OTHER = 70.0  # a palette colour this far from every own one is nobody's
_SHARE = 0.5  # a pixel shows a colour if at least half of it does
_TOLERANCE = 52.0  # residual up to which a colour is still that colour
_VISIBLE = 60.0  # distance from the background below which nothing is there
_MARGIN = 2  # pixels around masks that do not teach the background
_SAMPLE = 32  # pixels of background from which it can be measured


@dataclass(frozen=True)
class Appearance:
    """What was learned from the first frame.

    ``colours_K3`` holds the instances' own colours, then palette colours nobody wears;
    ``group_R`` gives each instance's row among them, ``num_own`` the number of own rows;
    ``background_HW3`` is the background's fitted plane.
    """

    colours_K3: Floats
    group_R: tuple[int, ...]
    num_own: int
    background_HW3: Floats


def learn(frame_HW3: NDArray[np.uint8], masks_R: Sequence[Masks]) -> Appearance:
    """Appearances from the first frame and its masks [H,W], none of them empty.

    Raises ``ValueError`` for an empty mask or one of another size.
    """
    pixels_HW3 = frame_HW3.astype(np.float32)
    own: list[Floats] = []
    members: list[int] = []
    group_R: list[int] = []
    for mask_HW in masks_R:
        if mask_HW.shape != frame_HW3.shape[:2] or not mask_HW.any():
            raise ValueError(f"mask {mask_HW.shape} is empty or no frame {frame_HW3.shape[:2]}")
        core_HW = np.asarray(ndimage.binary_erosion(mask_HW, iterations=2), dtype=np.bool_)
        if core_HW.sum() < 8:
            core_HW = mask_HW
        colour = np.median(pixels_HW3[core_HW], axis=0).astype(np.float32)
        near = [float(np.linalg.norm(colour - other)) for other in own]
        if near and min(near) < _SAME:
            group = int(np.argmin(near))
            members[group] += 1
            mean = own[group] + (colour - own[group]) / np.float32(members[group])
            own[group] = mean.astype(np.float32)
        else:
            group = len(own)
            own.append(colour)
            members.append(1)
        group_R.append(group)
    others = [
        np.asarray(colour, dtype=np.float32)
        for colour in COLOURS.values()
        if all(np.linalg.norm(np.asarray(colour) - mine) >= _OTHER for mine in own)
    ]
    union_HW = np.logical_or.reduce(masks_R)
    return Appearance(
        colours_K3=np.stack([*own, *others]),
        group_R=tuple(group_R),
        num_own=len(own),
        background_HW3=_plane(pixels_HW3, union_HW),
    )


def _plane(pixels_HW3: Floats, taken_HW: Masks) -> Floats:
    """Least-squares plane through the background's pixels, once more without its outliers."""
    height, width = taken_HW.shape
    rows_HW, columns_HW = np.mgrid[:height, :width].astype(np.float32)
    basis_P3 = np.stack([np.ones_like(rows_HW), rows_HW, columns_HW], axis=-1).reshape(-1, 3)
    values_P3 = pixels_HW3.reshape(-1, 3)
    near_HW = np.asarray(ndimage.binary_dilation(taken_HW, iterations=_MARGIN), dtype=np.bool_)
    free_P = ~near_HW.ravel()
    if free_P.sum() < _SAMPLE:  # hardly any background: its median must do
        free_P = ~taken_HW.ravel() if not taken_HW.all() else np.ones(taken_HW.size, bool)
        median_3 = np.median(values_P3[free_P], axis=0).astype(np.float32)
        return np.broadcast_to(median_3, pixels_HW3.shape).astype(np.float32)
    median_3 = np.median(values_P3[free_P], axis=0)
    sound_P = free_P & (np.abs(values_P3 - median_3).max(axis=1) < _VISIBLE)
    fitted_33, *_ = np.linalg.lstsq(basis_P3[sound_P], values_P3[sound_P], rcond=None)
    return (basis_P3 @ fitted_33).astype(np.float32).reshape(pixels_HW3.shape)


@dataclass(frozen=True, eq=False)
class Labels:
    """What the pixels of a video show.

    ``labels_THW`` holds indices into ``colours_K3`` or one of the negative labels; ``off_THW`` is
    each pixel's distance from the background. ``shift_T`` is how far the background as a whole is
    from the first frame's, in levels of the channel that changed most, and ``rough_T`` how far its
    pixels are from that (median); both are infinite where no background is left to see.
    """

    labels_THW: NDArray[np.int8]
    off_THW: Floats
    shift_T: NDArray[np.float64]
    rough_T: NDArray[np.float64]


def label_frames(frames_THW3: NDArray[np.uint8], appearance: Appearance) -> Labels:
    """Label every pixel; a background that changes its tint as a whole is followed."""
    num_frames, height, width, _ = frames_THW3.shape
    off_TP3 = frames_THW3.astype(np.float32) - appearance.background_HW3
    off_TP3 = off_TP3.reshape(num_frames, height * width, 3)
    near_TP = np.abs(off_TP3).max(axis=2) < _VISIBLE
    shift_T, rough_T = np.full((2, num_frames), np.inf)
    for t in range(num_frames):
        if near_TP[t].sum() >= _SAMPLE:
            tint_3 = np.median(off_TP3[t, near_TP[t]], axis=0)
            off_TP3[t] -= tint_3
            shift_T[t] = np.abs(tint_3).max()
            rough_T[t] = np.median(np.linalg.norm(off_TP3[t, near_TP[t]], axis=1))
    line_K3 = appearance.colours_K3 - appearance.background_HW3.mean(axis=(0, 1))
    length_K = np.maximum((line_K3 * line_K3).sum(axis=1), 1.0)
    share_TPK = off_TP3 @ line_K3.T
    share_TPK /= length_K
    square_TP = np.einsum("tpc,tpc->tp", off_TP3, off_TP3)
    used_TPK = np.clip(share_TPK, 0.0, 1.2)
    residual_TPK = square_TP[:, :, None] + length_K * used_TPK * (used_TPK - 2.0 * share_TPK)
    best_TP = residual_TPK.argmin(axis=2)
    share_TP = np.take_along_axis(share_TPK, best_TP[..., None], axis=2)[..., 0]
    residual_TP = np.take_along_axis(residual_TPK, best_TP[..., None], axis=2)[..., 0]
    known_TP = residual_TP <= _TOLERANCE**2
    label_TP = np.where(known_TP, np.where(share_TP >= _SHARE, best_TP, FADED), STRANGE)
    label_TP[(square_TP < _VISIBLE**2) & (label_TP < 0)] = BACKGROUND
    unclear_TP = (label_TP == STRANGE) | (label_TP >= appearance.num_own)
    own_K3 = line_K3[: appearance.num_own]
    unclear = label_TP[unclear_TP]
    unclear[_between(off_TP3[unclear_TP], own_K3)] = MIXED
    label_TP[unclear_TP] = unclear
    size = (num_frames, height, width)
    off_THW = np.sqrt(square_TP).reshape(size)
    return Labels(label_TP.astype(np.int8).reshape(size), off_THW, shift_T, rough_T)


def _between(pixels_N3: Floats, colours_K3: Floats) -> NDArray[np.bool_]:
    """Which pixels lie on a line between two of the colours."""
    between_N = np.zeros(len(pixels_N3), dtype=np.bool_)
    for one_3, two_3 in combinations(colours_K3, 2):
        way_3 = two_3 - one_3
        along_N = np.clip((pixels_N3 - one_3) @ way_3 / (way_3 @ way_3), 0.0, 1.0)
        off_N3 = pixels_N3 - one_3 - along_N[:, None] * way_3
        between_N |= (off_N3 * off_N3).sum(axis=1) <= _TOLERANCE**2
    return between_N
