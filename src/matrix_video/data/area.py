"""Exact area resampling of boolean masks.

Shapes: T frames, H W pixels, h w cells. Output cell (y, x) covers the rectangle
[y H/h, (y+1) H/h) x [x W/w, (x+1) W/w) of the mask. Areas are counted in units of 1/(h w) pixel,
which makes every number an integer and the 50 % cut exact for any ratio, up or down.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_FLOAT32_EXACT = 1 << 24


def coverage(masks_THW: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.int64]:
    """Covered area [T,h,w] of every cell, in units of which a full cell holds H * W."""
    _, height, width = masks_THW.shape
    rows, cols = size
    # Every partial sum is an integer of at most H * W, so floats hold it exactly.
    kind = np.float32 if height * width <= _FLOAT32_EXACT else np.float64
    across = masks_THW.astype(kind) @ overlap(width, cols).astype(kind).T
    return (overlap(height, rows).astype(kind) @ across).astype(np.int64)


def cut(
    covered_Thw: NDArray[np.int64], full: int, *, keep_best: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Cells at least half covered; where a frame has none and ``keep_best`` [T], its best cell.

    The best cell is the first of the largest area; a frame without any area stays empty.
    """
    masks_Thw = 2 * covered_Thw >= full
    lost = keep_best & ~masks_Thw.any(axis=(1, 2)) & covered_Thw.any(axis=(1, 2))
    for t in np.flatnonzero(lost):
        masks_Thw[t].flat[int(covered_Thw[t].argmax())] = True
    return masks_Thw


@lru_cache(maxsize=64)
def overlap(pixels: int, cells: int) -> NDArray[np.int64]:
    """Overlap [cells, pixels] of each cell with each pixel, in units of 1/cells pixel."""
    cell = np.arange(cells)[:, None]
    pixel = np.arange(pixels)[None, :]
    stop = np.minimum((cell + 1) * pixels, (pixel + 1) * cells)
    start = np.maximum(cell * pixels, pixel * cells)
    weights = np.maximum(stop - start, 0).astype(np.int64)
    weights.flags.writeable = False  # cached: nobody may change it
    return weights
