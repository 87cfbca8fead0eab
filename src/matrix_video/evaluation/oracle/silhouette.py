"""An instance's first-frame silhouette as a template: placing it, and finding where it fits.

A template says where an instance is although a part of it is hidden or out of the frame, which
the centroid of its visible pixels does not.

Shapes: H rows, W columns of the frame, h w of the template. Positions are (x, y) in pixels, the
centre of pixel [0, 0] is (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

Masks = NDArray[np.bool_]
Point = NDArray[np.float64]

NEAR = 2
REACH = 5
_SEARCH = 7  # pixels around the expected place that are tried
_PLATEAU = 0.01  # fits within this share of the best one count as equally good


@dataclass(frozen=True)
class Box:
    """Extent of a mask in pixels; ``right`` and ``bottom`` are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def of(cls, mask_HW: Masks) -> Self:
        columns, rows = np.flatnonzero(mask_HW.any(axis=0)), np.flatnonzero(mask_HW.any(axis=1))
        return cls(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def centre(self) -> Point:
        return np.array([(self.left + self.right) / 2, (self.top + self.bottom) / 2])


@dataclass(frozen=True)
class Template:
    """Silhouette [h,w] and what the tracker needs of it.

    ``start`` is the centre of its box in the first frame; ``lean`` the offset from that centre to
    the centroid; ``radius`` a quarter of width plus height; ``area`` its pixels. ``near_hw`` and
    ``reach_hw`` are the silhouette grown by ``NEAR`` and ``REACH`` pixels.
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
        box = Box.of(mask_HW)
        mask_hw = mask_HW[box.top : box.bottom, box.left : box.right]
        return cls(
            mask_hw=mask_hw,
            near_hw=grown(np.pad(mask_hw, NEAR), NEAR),
            reach_hw=grown(np.pad(mask_hw, REACH), REACH),
            start=box.centre,
            lean=centroid(mask_HW) - box.centre,
            radius=(box.width + box.height) / 4,
            area=int(mask_HW.sum()),
        )

    def place(self, centre: Point, size: tuple[int, int]) -> Masks:
        """The silhouette [H,W] at a centre; what lies outside the frame is cut off."""
        return _paste(self.mask_hw, centre, size)

    def near(self, centre: Point, size: tuple[int, int]) -> Masks:
        """Where the instance may be after a frame of ordinary motion."""
        return _paste(self.near_hw, centre, size)

    def reach(self, centre: Point, size: tuple[int, int]) -> Masks:
        """How far it may bulge: a mask beyond this is another instance that grew out of it."""
        return _paste(self.reach_hw, centre, size)

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


def _paste(mask_hw: Masks, centre: Point, size: tuple[int, int]) -> Masks:
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
