"""A picture of plain things on a plain ground → its regions of one colour.

Classical (no network), for tiny world and drawings like it; on photographs use `grounded`. The
method is our choice.

Shapes: H rows, W columns, 3 channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_GROUND: Final = 60.0  # RGB distance from the ground from which a pixel belongs to something
_SAME: Final = 45.0  # RGB distance from a colour up to which a pixel shows it
_BIN: Final = 32  # grey levels that count as one where the commonest colour is looked for
_SMALLEST: Final = 1 / 400  # share of the picture below which a region is a speck
_EDGE: Final = 2  # pixels of a blurred edge that belong to the region next to them
_MOST: Final = 32  # colours that are looked for


def colour_regions(frame_HW3: NDArray[np.uint8]) -> list[NDArray[np.bool_]]:
    """Masks bool [H,W] of connected regions of one colour, largest first.

    The ground is the border's median colour; a blurred edge goes to the region beside it, halfway
    to the ground. Regions that touch are kept apart by colour alone.
    """
    pixels_HW3 = frame_HW3.astype(np.float32)
    ground_3 = _ground(pixels_HW3)
    off_HW = np.linalg.norm(pixels_HW3 - ground_3, axis=2)
    things_HW = off_HW >= _GROUND
    smallest = max(4, round(_SMALLEST * things_HW.size))
    cores = list(_cores(pixels_HW3, things_HW, smallest))
    if not cores:
        return []
    labels_HW = np.zeros(things_HW.shape, dtype=np.int32)
    for number, core_HW in enumerate(cores, start=1):
        labels_HW[core_HW] = number
    far: Any = ndimage.distance_transform_edt(labels_HW == 0, return_indices=True)
    distance_HW, nearest = far
    # A pixel of an edge shows half of its colour at least, or it is the ground's.
    full_N = [np.median(off_HW[labels_HW == n]) for n in range(1, len(cores) + 1)]
    next_HW = labels_HW[tuple(nearest)]
    half_HW = off_HW >= 0.5 * np.array([np.inf, *full_N])[next_HW]
    labels_HW = np.where(half_HW & (distance_HW <= _EDGE), next_HW, 0)
    masks = [labels_HW == number for number in range(1, len(cores) + 1)]
    return sorted(masks, key=lambda mask_HW: -int(mask_HW.sum()))


def _ground(pixels_HW3: NDArray[np.float32]) -> NDArray[np.float32]:
    sides = (pixels_HW3[0], pixels_HW3[-1], pixels_HW3[:, 0], pixels_HW3[:, -1])
    return np.median(np.concatenate(sides), axis=0).astype(np.float32)


def _cores(
    pixels_HW3: NDArray[np.float32], things_HW: NDArray[np.bool_], smallest: int
) -> Iterator[NDArray[np.bool_]]:
    """Connected pixels near the commonest colour of what is left, colour after colour."""
    left_HW = things_HW.copy()
    for _ in range(_MOST):
        if left_HW.sum() < smallest:
            return
        colours_P3 = pixels_HW3[left_HW]
        binned_P3 = (colours_P3 // _BIN).astype(np.int64)
        keys_P = (binned_P3 << np.array([16, 8, 0])).sum(axis=1)
        keys, counts = np.unique(keys_P, return_counts=True)
        colour_3 = np.median(colours_P3[keys_P == keys[counts.argmax()]], axis=0)
        near_HW = left_HW & (np.linalg.norm(pixels_HW3 - colour_3, axis=2) <= _SAME)
        left_HW &= ~near_HW
        parts: Any = ndimage.label(near_HW)
        parts_HW, number = parts
        sizes = np.bincount(parts_HW.ravel(), minlength=number + 1)
        for part in range(1, number + 1):
            if sizes[part] < smallest:  # a textured picture has thousands
                continue
            core_HW = parts_HW == part
            # A rim of mixed colours is all edge: nothing is left of it inside.
            if ndimage.binary_erosion(core_HW).sum() >= smallest:
                yield core_HW
