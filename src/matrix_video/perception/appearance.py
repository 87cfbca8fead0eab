"""Phrases of colour, shape and size → regions of a plain picture, without a network.

A phrase's words are looked at one by one: "small red ball" is a red, round region that is smaller
than others which are red and round. Words that say nothing of these (articles, people) are passed
over; a phrase of such words alone has no proposal. All of it is our choice.

Shapes: H rows, W columns, 3 channels; R regions, K names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from matrix_video.perception.locate import Proposal, overlap
from matrix_video.perception.regions import colour_regions

_BASIC: Final = (
    *("black", "white", "grey", "red", "orange", "yellow", "green", "cyan", "blue", "purple"),
    *("pink", "brown"),
)
"""Names that a region's colour is told by; a phrase may use any that CSS knows beside them."""
_SHADES: Final = ("", "dark", "light", "medium", "deep", "pale", "royal", "midnight", "forest")
_SHAPES: Final[dict[str, str]] = {
    **dict.fromkeys(("ball", "circle", "disc", "disk", "sphere"), "disc"),
    **dict.fromkeys(("box", "square", "cube", "block"), "square"),
    **dict.fromkeys(("cone", "triangle", "pyramid"), "triangle"),
    **dict.fromkeys(("star",), "star"),
}
_SIZES: Final[dict[str, int]] = {
    **dict.fromkeys(("small", "little", "tiny", "smaller", "smallest"), -1),
    **dict.fromkeys(("large", "big", "huge", "larger", "bigger", "largest", "biggest"), 1),
}
_COLOUR_WIDTH: Final = 12.0  # of Lab distance
_SHAPE_WIDTH: Final = 0.06  # of intersection over union
_SIZE_WIDTH: Final = 0.1  # of the area's logarithm
_LIGHTNESS: Final = 0.4  # lightness counts less than hue: things are lit
_LEAST: Final = 0.1  # mean probability of a word below which a region is none that is meant


class AppearanceFinder:
    """`Finder` for plain things on a plain ground."""

    def propose(self, frame_HW3: NDArray[np.uint8], phrases: Sequence[str]) -> list[list[Proposal]]:
        """Regions by the geometric mean of the probabilities of a phrase's words."""
        masks = colour_regions(frame_HW3)
        if not masks:
            return [[] for _ in phrases]
        colours_R3 = np.stack([np.median(frame_HW3[mask_HW], axis=0) for mask_HW in masks])
        shapes = [shape_likeness(mask_HW) for mask_HW in masks]
        sizes_R = np.log([mask_HW.sum() for mask_HW in masks])
        found: list[list[Proposal]] = []
        for phrase in phrases:
            scores_R = _scores(phrase, colours_R3, shapes, sizes_R)
            found.append(
                [
                    Proposal(mask_HW, float(score))
                    for mask_HW, score in zip(masks, scores_R, strict=True)
                    if score >= _LEAST
                ]
            )
        return found


def _scores(
    phrase: str,
    colours_R3: NDArray[np.float64],
    shapes: Sequence[dict[str, float]],
    sizes_R: NDArray[np.float64],
) -> NDArray[np.float64]:
    """In [0,1] for each region; zeros for a phrase without a word that is known."""
    words = re.findall(r"[a-z]+", phrase.lower())
    factors = [colour_likeness(word, colours_R3) for word in words if word in ImageColor.colormap]
    factors += [
        np.array([shape[_SHAPES[word]] for shape in shapes]) for word in words if word in _SHAPES
    ]
    if not factors and not any(word in _SIZES for word in words):
        return np.zeros(len(sizes_R))
    # Size is a comparison with what is otherwise alike, so it comes after colour and shape.
    alike_R = np.prod(factors, axis=0) if factors else np.ones(len(sizes_R))
    middle = float((alike_R * sizes_R).sum() / max(float(alike_R.sum()), 1e-12))
    for word in words:
        if word in _SIZES:
            rise_R = np.clip(_SIZES[word] * (sizes_R - middle) / _SIZE_WIDTH, -30, 30)
            factors.append(1 / (1 + np.exp(-rise_R)))
    return np.prod(factors, axis=0) ** (1 / len(factors))


def colour_likeness(name: str, colours_R3: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability [R] that ``name`` is what a colour (sRGB, 0 to 255) is called.

    A name stands for the shades of it that CSS knows: "blue" for royalblue too, whose hue is far
    from pure blue's.
    """
    own = ImageColor.getrgb(name)  # "gray" and "grey" are no rivals
    names = (name, *(other for other in _BASIC if ImageColor.getrgb(other) != own))
    seen_R3 = _lab(colours_R3)
    gaps = [_gap(seen_R3, _lab(_family(other))).min(axis=1) for other in names]
    odds_RK = np.exp(-np.stack(gaps, axis=1) / _COLOUR_WIDTH)
    return odds_RK[:, 0] / odds_RK.sum(axis=1)


@cache
def _family(name: str) -> NDArray[np.float64]:
    members = [shade + name for shade in _SHADES if shade + name in ImageColor.colormap]
    return np.array([ImageColor.getrgb(other)[:3] for other in members], dtype=np.float64)


def _gap(left_N3: NDArray[np.float64], right_M3: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances [N,M] of L*a*b* colours."""
    weight_3 = np.array([_LIGHTNESS, 1.0, 1.0])
    return np.linalg.norm((left_N3[:, None] - right_M3[None]) * weight_3, axis=2)


def _lab(colours_N3: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE L*a*b* (D65) of sRGB colours."""
    part_N3 = colours_N3 / 255
    linear_N3 = np.where(part_N3 <= 0.04045, part_N3 / 12.92, ((part_N3 + 0.055) / 1.055) ** 2.4)
    to_xyz_33 = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    ratio_N3 = linear_N3 @ to_xyz_33.T / to_xyz_33.sum(axis=1)
    root_N3 = np.where(
        ratio_N3 > (6 / 29) ** 3, np.cbrt(ratio_N3), ratio_N3 / (3 * (6 / 29) ** 2) + 4 / 29
    )
    x, y, z = root_N3.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def shape_likeness(mask_HW: NDArray[np.bool_]) -> dict[str, float]:
    """Probability of each shape: by overlap with it, at the region's place and area."""
    rows, columns = mask_HW.nonzero()
    side = float(np.sqrt(mask_HW.sum()))
    reach = int(np.ceil(1.5 * side))
    row, column = round(float(rows.mean())), round(float(columns.mean()))
    padded_HW = np.pad(mask_HW, reach)
    window_HW = padded_HW[row : row + 2 * reach + 1, column : column + 2 * reach + 1]
    offset = (float(rows.mean()) - row, float(columns.mean()) - column)
    names = tuple(dict.fromkeys(_SHAPES.values()))
    fits = np.array([overlap(window_HW, _drawn(name, side, reach, offset)) for name in names])
    odds = np.exp((fits - fits.max()) / _SHAPE_WIDTH)
    return dict(zip(names, (odds / odds.sum()).tolist(), strict=True))


def _drawn(name: str, side: float, reach: int, offset: tuple[float, float]) -> NDArray[np.bool_]:
    """A shape of area ``side``² around its centre of mass, in a window of ± ``reach`` pixels."""
    down_HW, right_HW = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    down_HW, right_HW = (down_HW - offset[0]) / side, (right_HW - offset[1]) / side
    if name == "disc":
        return down_HW**2 + right_HW**2 <= 1 / np.pi
    corners_N2 = _outline(name)
    inside_HW = np.zeros(down_HW.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners_N2, np.roll(corners_N2, -1, axis=0), strict=True):
        # Even-odd rule: a pixel is inside if a ray to the right crosses the outline oddly often.
        crosses_HW = (y0 > down_HW) != (y1 > down_HW)
        rise = y1 - y0 if y1 != y0 else 1.0
        inside_HW ^= crosses_HW & (right_HW < (x1 - x0) * (down_HW - y0) / rise + x0)
    return inside_HW


@cache
def _outline(name: str) -> NDArray[np.float64]:
    """Corners (right, down) of a polygon of area 1 around its centre of mass."""
    if name == "square":
        corners_N2 = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64)
    elif name == "triangle":  # equilateral, a point up
        corners_N2 = np.array([[0, -2], [np.sqrt(3), 1], [-np.sqrt(3), 1]], dtype=np.float64)
    else:  # a star of five points, one up; the inner corners at half the radius
        turn_N = np.arange(10) * np.pi / 5
        radius_N = np.where(np.arange(10) % 2, 0.5, 1.0)
        corners_N2 = radius_N[:, None] * np.stack([np.sin(turn_N), -np.cos(turn_N)], axis=1)
    x_N, y_N = corners_N2.T
    area = 0.5 * abs(float((x_N * np.roll(y_N, -1) - np.roll(x_N, -1) * y_N).sum()))
    return corners_N2 / np.sqrt(area)
