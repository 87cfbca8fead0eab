"""Clips as film strips: all frames of a video below each other in one picture.

The page plays a strip by moving it in steps behind a window. Against video elements and animated
images this is exact (no codec, no chroma subsampling), keeps clips in sync, can be paused and
stepped, respects a reader's wish for less motion, and needs no script (our choice).

Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from matrix_video.data.video import read_video
from matrix_video.services.files import write_atomic

_SIDE = 16_000  # pixels a side that every browser's WebP decoder takes (16383 at most)
_TALLEST = 288  # rows of a frame; the page shows no clip larger
_LOWEST = 128  # rows below which frames are left out rather than made smaller
_EXACT = 128  # frames up to this many rows are stored without loss


@dataclass(frozen=True)
class Strip:
    """One stored strip. ``file`` is relative to the page; sizes are those of one frame."""

    file: str
    frames: int
    stride: int
    """Frames of the video for each of the strip: it holds frames 0, stride, 2 stride, ..."""
    height: int
    width: int
    seconds: float
    pixelated: bool
    """Whether it is shown with hard pixels: small videos, such as tiny world's."""


def make_strip(video: Path, assets: Path) -> Strip:
    """Store a video as a strip in ``assets``; equal pictures share one file.

    Frames taller than 288 rows are made smaller; a clip too long for one picture loses every
    second frame (every third, ...) and keeps its duration. Raises `MatrixError` for a video that
    cannot be read.
    """
    found = read_video(video)
    frames_THWC, rate = found.frames_THWC, found.fps
    seconds = len(found) / rate
    stride = max(1, math.ceil(len(found) * min(found.size[0], _LOWEST) / _SIDE))
    frames_THWC = frames_THWC[::stride]
    data, size = encode(frames_THWC)
    name = f"{hashlib.sha256(data).hexdigest()[:16]}.webp"
    if not (assets / name).is_file():
        write_atomic(assets / name, data)
    return Strip(
        file=f"{assets.name}/{name}",
        frames=len(frames_THWC),
        stride=stride,
        height=size[0],
        width=size[1],
        seconds=seconds,
        pixelated=found.size[0] <= _EXACT,
    )


def encode(frames_THWC: NDArray[np.uint8]) -> tuple[bytes, tuple[int, int]]:
    """WebP bytes of the strip, and height and width of its frames."""
    count, height, width, _ = frames_THWC.shape
    rows = max(1, min(height, _TALLEST, _SIDE // count))
    columns = max(1, min(_SIDE, round(width * rows / height)))
    if (rows, columns) != (height, width):
        frames_THWC = np.stack(
            [
                np.asarray(Image.fromarray(frame).resize((columns, rows), Image.Resampling.BOX))
                for frame in frames_THWC
            ]
        )
    picture = Image.fromarray(frames_THWC.reshape(count * rows, columns, 3))
    buffer = io.BytesIO()
    exact = rows <= _EXACT
    picture.save(buffer, "WEBP", lossless=exact, quality=80 if exact else 86, method=4)
    return buffer.getvalue(), (rows, columns)
