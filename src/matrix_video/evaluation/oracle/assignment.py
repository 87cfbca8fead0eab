"""Which pixels of one appearance belong to which instance, in one frame.

Thresholds are pixels of a 64-pixel frame or shares of an instance's first-frame area.

Shapes: H rows, W columns, P pixels. Positions are (x, y) in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from matrix_video.evaluation.oracle.silhouette import Masks, Point, Template, centroid

SPECK: Final = 6
"""Pixels; smaller blobs are noise."""
EMERGED: Final = 0.35
"""Share of the smallest instance's area from which an unexplained blob has emerged."""
_THICK: Final = 0.3  # of a blob that is left after one erosion: thinner ones are seams
_CONTESTED: Final = 0.3  # of its area: an instance whose place a blob fills less has no claim on it
_ENOUGH: Final = (
    1.3  # of the area of those that are there: more, and one that was lost may be in it
)
_LACKING: Final = 0.2  # of its area: with less near its place an instance is sought elsewhere
_ADJACENT = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class Expectation:
    """An instance, where it should be in this frame, and whether it was seen in the last one."""

    template: Template
    place: Point
    seen: bool


def parts_of(mask_HW: Masks, least: float) -> list[Masks]:
    """Connected parts of at least so many pixels."""
    parts_HW = np.zeros(mask_HW.shape, dtype=np.int32)
    ndimage.label(mask_HW, _ADJACENT, output=parts_HW)
    areas = np.bincount(parts_HW.ravel())
    return [parts_HW == part for part in range(1, len(areas)) if areas[part] >= least]


def has_blob(mask_HW: Masks, least: float) -> bool:
    """Whether a mask holds a connected part that is large and thick enough to be something."""
    if mask_HW.sum() < least:
        return False
    blobs = parts_of(mask_HW, least)
    cores = [np.asarray(ndimage.binary_erosion(blob), dtype=np.bool_) for blob in blobs]
    return any(core.sum() >= _THICK * blob.sum() for core, blob in zip(cores, blobs, strict=True))


def claim(expected: Sequence[Expectation], own_HW: Masks) -> list[Masks]:
    """Share the pixels of one appearance among its instances; what nobody claims is left over.

    A blob goes to the instances at whose places it lies. One that lies at nobody's place goes to
    an instance that is nowhere else to be found: it leapt.
    """
    claims = [np.zeros_like(own_HW) for _ in expected]
    near = [one.template.near(one.place, own_HW.shape) for one in expected]
    free: list[Masks] = []
    for part_HW in parts_of(own_HW, SPECK):
        wanting = _wanting(expected, [int((part_HW & near_HW).sum()) for near_HW in near])
        seen = [i for i in wanting if expected[i].seen]
        # One that was lost may not take from one that is there, unless there is enough for both.
        if seen and part_HW.sum() <= _ENOUGH * sum(expected[i].template.area for i in seen):
            wanting = seen
        if not wanting:
            free.append(part_HW)
        elif len(wanting) == 1:
            claims[wanting[0]] |= part_HW
        else:
            shares = _split([expected[i] for i in wanting], part_HW)
            for i, share_HW in zip(wanting, shares, strict=True):
                claims[i] |= share_HW
    for i, one in enumerate(expected):
        large = [k for k, blob in enumerate(free) if blob.sum() >= EMERGED * one.template.area]
        if large and claims[i].sum() < _LACKING * one.template.area:
            claims[i] = free.pop(min(large, key=lambda k: _distance(free[k], one.place)))
    return claims


def _wanting(expected: Sequence[Expectation], overlaps: Sequence[int]) -> list[int]:
    """Which instances may own a blob, by how far it fills the places where they are expected."""
    touched = [i for i, overlap in enumerate(overlaps) if overlap]
    filled = [i for i in touched if overlaps[i] >= _CONTESTED * expected[i].template.area]
    if filled or len(touched) < 2:
        return filled or touched
    return [max(touched, key=lambda i: overlaps[i])]


def _distance(mask_HW: Masks, place: Point) -> float:
    return float(np.hypot(*(centroid(mask_HW) - place)))


def _split(expected: Sequence[Expectation], part_HW: Masks) -> list[Masks]:
    """Share a blob among instances that touch: each pixel to the nearest, sizes considered."""
    rows, columns = np.nonzero(part_HW)
    pixels_P2 = np.stack([columns + 0.5, rows + 0.5], axis=1)
    centres = [one.place + one.template.lean for one in expected]
    nearest_P = np.zeros(len(rows), dtype=np.intp)
    for _ in range(3):
        away = [
            np.hypot(*(pixels_P2 - centre).T) / one.template.radius
            for centre, one in zip(centres, expected, strict=True)
        ]
        nearest_P = np.argmin(away, axis=0)
        for i in range(len(expected)):
            if (nearest_P == i).sum() >= SPECK:
                centres[i] = pixels_P2[nearest_P == i].mean(axis=0)
    shares = [np.zeros_like(part_HW) for _ in expected]
    for i, share_HW in enumerate(shares):
        share_HW[rows[nearest_P == i], columns[nearest_P == i]] = True
    return shares
