"""Attention maps laid over the frames that they belong to, one panel a phrase.

Shapes: R phrases, T pixel frames, F token frames, h w token rows and columns, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from matrix_video.data.grid import TokenGrid

COLOURS: Final[tuple[tuple[int, int, int], ...]] = (
    (255, 72, 72),
    (72, 200, 255),
    (255, 210, 60),
    (140, 255, 110),
    (255, 120, 240),
    (160, 140, 255),
)
"""Colours of phrases, in their order, repeated after the last."""
FULL: Final = 3.0
"""Log-lift at which the colour is strongest: twenty times chance."""
_STRONGEST = 0.8
_PANEL = 160  # least width of a panel in pixels, so that its label can be read
_BAR = 16


def overlay_video(
    frames_THWC: NDArray[np.uint8],
    maps_RFhw: NDArray[np.float64],
    grid: TokenGrid,
    labels: Sequence[str],
    *,
    masks_RFhw: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Panels side by side, one a phrase, for each pixel frame: uint8 [T,H',W',3], sizes even.

    A map is drawn in its phrase's colour where it lies above chance *within its frame* (as it is
    scored: frame by frame), strongest from `FULL` on. ``masks_RFhw`` outlines the target on the
    token grid in white. A pixel frame takes the map of the token frame that holds it; a token frame
    that holds none is not shown.
    """
    count, height, width, _ = frames_THWC.shape
    if len(labels) != len(maps_RFhw) or maps_RFhw.shape[1:] != grid.shape:
        raise ValueError(f"{len(labels)} labels and maps {maps_RFhw.shape} on {grid.shape}")
    scale = max(1, math.ceil(_PANEL / width))
    size = (height * scale, width * scale)
    alpha_RFHW = _alpha(maps_RFhw, size)
    outline_RFHW = None if masks_RFhw is None else _outlines(masks_RFhw, size)
    token_frame = {t: k for k, group in enumerate(grid.frames) for t in group}
    bars = [_label(label, _colour(r), size[1]) for r, label in enumerate(labels)]
    pictures: list[NDArray[np.uint8]] = []
    for t in range(count):
        plain_HWC = np.kron(frames_THWC[t], np.ones((scale, scale, 1), dtype=np.uint8))
        panels: list[NDArray[np.uint8]] = []
        for r, bar in enumerate(bars):
            k = token_frame.get(t)
            panel = plain_HWC
            if k is not None:
                panel = _blend(plain_HWC, alpha_RFHW[r, k], _colour(r))
                if outline_RFHW is not None:
                    panel = np.where(outline_RFHW[r, k, :, :, None], np.uint8(255), panel)
            panels.append(np.concatenate([bar, panel], axis=0))
        pictures.append(np.concatenate(panels, axis=1))
    stacked = np.stack(pictures)
    odd_rows, odd_columns = stacked.shape[1] % 2, stacked.shape[2] % 2
    return np.pad(stacked, ((0, 0), (0, odd_rows), (0, odd_columns), (0, 0)))


def overlay_strip(video_THWC: NDArray[np.uint8], grid: TokenGrid) -> NDArray[np.uint8]:
    """An `overlay_video` as one picture, uint8 [H',W',3]: token frames downwards, phrases across.

    Each token frame shows the last of its pixel frames.
    """
    shown = [group[-1] for group in grid.frames if group]
    return np.concatenate(list(video_THWC[shown]), axis=0)


def _colour(phrase: int) -> tuple[int, int, int]:
    return COLOURS[phrase % len(COLOURS)]


def _alpha(maps_RFhw: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float32]:
    """Opacity [R,F,H,W] in [0, `_STRONGEST`] from the lift within each frame."""
    maps = torch.from_numpy(np.ascontiguousarray(maps_RFhw)).float()
    mean = maps.mean(dim=(-2, -1), keepdim=True)
    lift = torch.where(mean > 0, maps / mean.clamp_min(torch.finfo(maps.dtype).tiny), 1.0)
    strength = (lift.clamp_min(1.0).log() / FULL).clamp(max=1.0)
    fine = F.interpolate(strength, size=size, mode="bilinear", align_corners=False)
    return (_STRONGEST * fine).numpy()


def _outlines(masks_RFhw: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """One pixel wide inner borders [R,F,H,W] of the masks at pixel size."""
    masks = torch.from_numpy(np.ascontiguousarray(masks_RFhw)).float()
    fine = F.interpolate(masks, size=size, mode="nearest")
    inside = -F.max_pool2d(-F.pad(fine, (1, 1, 1, 1)), 3, stride=1)
    return ((fine > 0) & (inside == 0)).numpy()


def _blend(
    picture_HWC: NDArray[np.uint8], alpha_HW: NDArray[np.float32], colour: tuple[int, int, int]
) -> NDArray[np.uint8]:
    alpha_HW1 = alpha_HW[:, :, None]
    mixed = picture_HWC * (1 - alpha_HW1) + np.array(colour, dtype=np.float32) * alpha_HW1
    return mixed.round().astype(np.uint8)


def _label(text: str, colour: tuple[int, int, int], width: int) -> NDArray[np.uint8]:
    image = Image.new("RGB", (width, _BAR), (24, 24, 24))
    font = ImageFont.load_default(size=11)
    ImageDraw.Draw(image).text((3, 1), text, fill=colour, font=font)
    return np.asarray(image)
