"""Attention maps laid over the frames that they belong to, one panel a phrase.

Shapes: R phrases, T pixel frames, F token frames, h w token rows and columns, H W pixels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from matrix_video.analysis.caption import (
    GROUND,
    Caption,
    Colour,
    caption_picture,
    font,
    phrase_colour,
)
from matrix_video.data.grid import TokenGrid
from matrix_video.data.video import write_video
from matrix_video.services.files import write_atomic

FULL: Final = (0.1, 3.0)
"""Least and greatest log-lift at which the colour is strongest. Between them it is strongest at the
peak of the map itself: maps over text are ten times flatter than those over video, and would show
no colour on one scale with them (our choice)."""
GIF_WIDTH: Final = 960
"""Most pixels across in a GIF, whose size grows with every one."""
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
    scored: frame by frame), strongest at its own peak (see `FULL`), which stands before its label
    as a multiple of chance. ``masks_RFhw`` outlines the target on the token grid in that colour. A
    pixel frame takes the map of the token frame that holds it; a token frame that holds none is
    not shown.
    """
    count, height, width, _ = frames_THWC.shape
    if len(labels) != len(maps_RFhw) or maps_RFhw.shape[1:] != grid.shape:
        raise ValueError(f"{len(labels)} labels and maps {maps_RFhw.shape} on {grid.shape}")
    scale = max(1, math.ceil(_PANEL / width))
    size = (height * scale, width * scale)
    lift_RFhw = _log_lift(maps_RFhw)
    peak_R = lift_RFhw.amax(dim=(-3, -2, -1))
    strength_RFhw = (lift_RFhw / peak_R.clamp(*FULL)[:, None, None, None]).clamp(max=1.0)
    alpha_RFHW = (_STRONGEST * _resized(strength_RFhw, size)).numpy()
    outlines = None if masks_RFhw is None else _outlines(masks_RFhw, size)
    token_frame = {t: k for k, group in enumerate(grid.frames) for t in group}
    bars = [
        _label(f"{math.exp(peak_R[r]):.1f}× {label}", phrase_colour(r), size[1])
        for r, label in enumerate(labels)
    ]
    pictures: list[NDArray[np.uint8]] = []
    for t in range(count):
        plain_HWC = np.kron(frames_THWC[t], np.ones((scale, scale, 1), dtype=np.uint8))
        panels: list[NDArray[np.uint8]] = []
        for r, bar in enumerate(bars):
            k = token_frame.get(t)
            panel = plain_HWC
            if k is not None:
                panel = _blend(plain_HWC, alpha_RFHW[r, k], phrase_colour(r))
                if outlines is not None:
                    panel[outlines[0][r, k]] = phrase_colour(r)
                    panel[outlines[1][r, k]] = GROUND
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


def write_overlay(
    path: Path, video_THWC: NDArray[np.uint8], grid: TokenGrid, fps: float, caption: Caption
) -> list[Path]:
    """Write an `overlay_video` as MP4 (``path``) and GIF, and its `overlay_strip` as PNG, beside
    each other, below the caption; returns their paths. Equal frames give equal files."""
    strip = Image.fromarray(_captioned(overlay_strip(video_THWC, grid)[None], caption)[0])
    video_THWC = _captioned(video_THWC, caption)
    write_video(path, video_THWC, fps)
    image = io.BytesIO()
    strip.save(image, format="PNG")
    write_atomic(path.with_suffix(".png"), image.getvalue())
    write_atomic(path.with_suffix(".gif"), _gif(video_THWC, strip, fps))
    return [path, path.with_suffix(".png"), path.with_suffix(".gif")]


def _captioned(pictures_THWC: NDArray[np.uint8], caption: Caption) -> NDArray[np.uint8]:
    above_HWC = caption_picture(caption, pictures_THWC.shape[2])
    above_THWC = np.broadcast_to(above_HWC, (len(pictures_THWC), *above_HWC.shape))
    return np.concatenate([above_THWC, pictures_THWC], axis=1)


def _gif(video_THWC: NDArray[np.uint8], strip: Image.Image, fps: float) -> bytes:
    """All frames with one palette, the strip's, so that still parts do not flicker."""
    palette = strip.quantize(256, dither=Image.Dither.NONE)
    scale = min(1.0, GIF_WIDTH / video_THWC.shape[2])
    size = (round(video_THWC.shape[2] * scale), round(video_THWC.shape[1] * scale))
    frames = [
        Image.fromarray(frame)
        .resize(size, Image.Resampling.BOX)
        .quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in video_THWC
    ]
    # GIF counts in hundredths of a second: rounded times, not rounded durations, keep the length.
    times = [round(100 * k / fps) for k in range(len(frames) + 1)]
    durations = [10 * (end - start) for start, end in pairwise(times)]
    found = io.BytesIO()
    frames[0].save(
        found,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        optimize=False,
    )
    return found.getvalue()


def _log_lift(maps_RFhw: NDArray[np.float64]) -> torch.Tensor:
    """Logarithm of each value over the mean of its frame; 0 below that mean."""
    maps = torch.from_numpy(np.ascontiguousarray(maps_RFhw)).float()
    mean = maps.mean(dim=(-2, -1), keepdim=True)
    lift = torch.where(mean > 0, maps / mean.clamp_min(torch.finfo(maps.dtype).tiny), 1.0)
    return lift.clamp_min(1.0).log()


def _resized(values_RFhw: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(values_RFhw, size=size, mode="bilinear", align_corners=False)


def _outlines(
    masks_RFhw: NDArray[np.bool_], size: tuple[int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Inner borders [R,F,H,W] of the masks at pixel size, one pixel wide, and the next pixel
    within, which sets the border off from a map of its own colour."""
    masks = torch.from_numpy(np.ascontiguousarray(masks_RFhw)).float()
    fine = F.interpolate(masks, size=size, mode="nearest")
    inside = _eroded(fine)
    deeper = _eroded(inside)
    return (fine > inside).numpy(), (inside > deeper).numpy()


def _eroded(masks_RFHW: torch.Tensor) -> torch.Tensor:
    return -F.max_pool2d(-F.pad(masks_RFHW, (1, 1, 1, 1)), 3, stride=1)


def _blend(
    picture_HWC: NDArray[np.uint8], alpha_HW: NDArray[np.float32], colour: Colour
) -> NDArray[np.uint8]:
    alpha_HW1 = alpha_HW[:, :, None]
    mixed = picture_HWC * (1 - alpha_HW1) + np.array(colour, dtype=np.float32) * alpha_HW1
    return mixed.round().astype(np.uint8)


def _label(text: str, colour: Colour, width: int) -> NDArray[np.uint8]:
    image = Image.new("RGB", (width, _BAR), GROUND)
    ImageDraw.Draw(image).text((3, 1), text, fill=colour, font=font())
    return np.asarray(image)
