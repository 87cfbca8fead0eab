"""An instance's first-frame silhouette as a template: placing it, finding where it fits, and
sharing the pixels of one appearance among the instances that show it.

A template says where an instance is although a part of it is hidden or out of the frame, which
the centroid of its visible pixels does not. Thresholds are pixels of a 64-pixel frame or shares of
an instance's first-frame area.

Shapes: H rows, W columns of the frame, h w of the template. Positions are (x, y) in pixels, the
centre of pixel [0, 0] is (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

Masks = NDArray[np.bool_]
Point = NDArray[np.float64]

SPECK: Final = 6
"""Pixels; smaller blobs are noise."""
EMERGED: Final = 0.35
"""Share of the smallest instance's area from which an unexplained blob has emerged."""
_THICK: Final = 0.3  # of a blob that is left after one erosion: thinner ones are seams
_CONTESTED: Final = 0.3  # of its area: an instance whose place a blob fills less has no claim on it
_ENOUGH: Final = 1.3  # of the area of those that are there: one that was lost may be in more
_LACKING: Final = 0.2  # of its area: with less near its place an instance is sought elsewhere
_ADJACENT = np.ones((3, 3), dtype=bool)
NEAR = 2
REACH = 5
_SEARCH = 7  # pixels around the expected place that are tried
_PLATEAU = 0.01  # fits within this share of the best one count as equally good


def extent(mask_HW: Masks) -> tuple[slice, slice]:
    """The rows and columns between which the pixels of a mask lie."""
    (found,) = ndimage.find_objects(mask_HW.astype(np.uint8))
    return found


@dataclass(frozen=True)
class Template:
    """Silhouette [h,w] and what the tracker needs of it.

    ``start`` is the centre of its box in the first frame; ``lean`` the offset from that centre to
    the centroid; ``radius`` a quarter of width plus height; ``area`` its pixels. ``near_hw`` is the
    silhouette grown by as much as it may move in a frame, ``reach_hw`` by as much as it may bulge:
    what lies beyond is another instance that grew out of it.
    """

    mask_hw: Masks
    near_hw: Masks
    reach_hw: Masks
    start: Point
    lean: Point
    radius: float
    area: int

    @classmethod
    def cut(cls, mask_HW: Masks) -> Self:
        rows, columns = extent(mask_HW)
        mask_hw = mask_HW[rows, columns]
        start = np.array([(columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2])
        return cls(
            mask_hw=mask_hw,
            near_hw=grown(np.pad(mask_hw, NEAR), NEAR),
            reach_hw=grown(np.pad(mask_hw, REACH), REACH),
            start=start,
            lean=centroid(mask_HW) - start,
            radius=sum(mask_hw.shape) / 4,
            area=int(mask_HW.sum()),
        )

    def fit(self, own_HW: Masks, open_HW: Masks, expected: Point) -> Point:
        """Centre near ``expected`` at which the silhouette best explains the picture.

        ``own_HW`` marks pixels of the instance, ``open_HW`` those where it would be seen were it
        there; the rest, and what lies outside the frame, may hide it. Among equally good places
        the one nearest to ``expected`` wins.
        """
        height, width = self.mask_hw.shape
        pad = max(height, width) + 2 * _SEARCH
        evidence = np.pad(own_HW.astype(np.float32) - (open_HW & ~own_HW), pad)
        row, column = _corner(self.mask_hw, expected)
        # A centre far outside is searched at the edge of what the padding reaches.
        row = int(np.clip(row, _SEARCH - pad, own_HW.shape[0] + pad - height - _SEARCH))
        column = int(np.clip(column, _SEARCH - pad, own_HW.shape[1] + pad - width - _SEARCH))
        top, left = row + pad - _SEARCH, column + pad - _SEARCH
        region = evidence[top : top + height + 2 * _SEARCH, left : left + width + 2 * _SEARCH]
        windows = sliding_window_view(region, (height, width))
        fits = np.tensordot(windows, self.mask_hw.astype(np.float32), axes=((2, 3), (0, 1)))
        rows, columns = np.nonzero(fits >= fits.max() - _PLATEAU * self.area)
        places = np.stack(
            [columns - _SEARCH + column + width / 2, rows - _SEARCH + row + height / 2], axis=1
        )
        away = np.hypot(*(places - expected).T)
        return places[away <= away.min() + 0.75].mean(axis=0)


def grown(mask_HW: Masks, margin: int) -> Masks:
    """The mask and what lies within so many pixels of it, counted in steps along the axes."""
    return np.asarray(ndimage.binary_dilation(mask_HW, iterations=margin), dtype=np.bool_)


def _corner(mask_hw: Masks, centre: Point) -> tuple[int, int]:
    """Row and column of the first pixel of a mask whose box is centred there."""
    height, width = mask_hw.shape
    return round(float(centre[1]) - height / 2), round(float(centre[0]) - width / 2)


def paste(mask_hw: Masks, centre: Point, size: tuple[int, int]) -> Masks:
    """A mask [H,W] with a smaller one centred there; what lies outside the frame is cut off."""
    placed_HW = np.zeros(size, dtype=bool)
    row, column = _corner(mask_hw, centre)
    height, width = mask_hw.shape
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + height, size[0]), min(column + width, size[1])
    if top < bottom and left < right:
        placed_HW[top:bottom, left:right] = mask_hw[
            top - row : bottom - row, left - column : right - column
        ]
    return placed_HW


def centroid(mask_HW: Masks) -> Point:
    """Mean position of a mask's pixels, at their centres."""
    rows, columns = np.nonzero(mask_HW)
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5])


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
    near = [paste(one.template.near_hw, one.place, own_HW.shape) for one in expected]
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
            away = [float(np.hypot(*(centroid(free[k]) - one.place))) for k in large]
            claims[i] = free.pop(large[int(np.argmin(away))])
    return claims


def _wanting(expected: Sequence[Expectation], overlaps: Sequence[int]) -> list[int]:
    """Which instances may own a blob, by how far it fills the places where they are expected."""
    touched = [i for i, overlap in enumerate(overlaps) if overlap]
    filled = [i for i in touched if overlaps[i] >= _CONTESTED * expected[i].template.area]
    if filled or len(touched) < 2:
        return filled or touched
    return [max(touched, key=lambda i: overlaps[i])]


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
