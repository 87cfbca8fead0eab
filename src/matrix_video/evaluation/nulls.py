"""Rows that every score table is read against: what videos score that show nothing asked for.

All are made from the prompt set's own clips. Shapes: T frames, H rows, W columns, R instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from matrix_video.services.files import sha256_text

Frames = NDArray[np.uint8]

_SPEED = (0.5, 1.6)  # pixels a frame: the range in which acting instances move


def frozen(frames_THWC: Frames, num_frames: int) -> Frames:
    """The first frame, held."""
    return np.repeat(frames_THWC[:1], num_frames, axis=0)


def derangement(count: int, seed: int) -> list[int]:
    """A cyclic shuffle: a partner for each of ``count`` prompts, never itself (count ≥ 2)."""
    if count < 2:
        raise ValueError(f"{count} prompt has no other prompt")
    order = np.random.default_rng(seed).permutation(count)
    partner = np.empty(count, dtype=int)
    partner[order] = np.roll(order, 1)
    return partner.tolist()


def drifting(
    first_HWC: Frames, masks_R: Sequence[NDArray[np.bool_]], num_frames: int, key: str
) -> Frames:
    """Every instance of the first frame slides straight on at its own random pace.

    Instances are cut out by their masks and pasted over a background filled in from the nearest
    free pixels; they stop at the frame's border. Their paths follow from ``key`` alone.
    """
    rng = np.random.default_rng(int(sha256_text(key)[:16], 16))
    height, width = first_HWC.shape[:2]
    taken_HW = np.zeros((height, width), dtype=bool)
    for mask_HW in masks_R:
        taken_HW |= mask_HW
    rim_HW = ndimage.binary_dilation(taken_HW, iterations=2)  # soft edges are no background
    background_HWC = _fill(first_HWC, rim_HW)
    frames_THWC = np.repeat(background_HWC[None], num_frames, axis=0)
    for mask_HW in masks_R:
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(*_SPEED)
        rows, columns = np.nonzero(mask_HW)
        for t in range(num_frames):
            dy = round(float(np.sin(angle) * speed * t))
            dx = round(float(np.cos(angle) * speed * t))
            dy = min(max(dy, -int(rows.min())), height - 1 - int(rows.max()))
            dx = min(max(dx, -int(columns.min())), width - 1 - int(columns.max()))
            frames_THWC[t, rows + dy, columns + dx] = first_HWC[rows, columns]
    return frames_THWC


def _fill(frame_HWC: Frames, hole_HW: NDArray[Any]) -> Frames:
    """Each pixel of the hole takes the colour of the nearest pixel outside it."""
    nearest_2HW = np.asarray(
        ndimage.distance_transform_edt(hole_HW, return_distances=False, return_indices=True)
    )
    return frame_HWC[nearest_2HW[0], nearest_2HW[1]]
