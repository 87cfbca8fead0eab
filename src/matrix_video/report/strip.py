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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from matrix_video.data.video import frames, probe_video
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
    info = probe_video(video)
    count = len(info.times)
    stride = max(1, math.ceil(count * min(info.height, _LOWEST) / _SIDE))
    shown = range(0, count, stride)
    data, size = encode(frames(video, shown, info), len(shown), info.size)
    name = f"{hashlib.sha256(data).hexdigest()[:16]}.webp"
    if not (assets / name).is_file():
        write_atomic(assets / name, data)
    return Strip(
        file=f"{assets.name}/{name}",
        frames=len(shown),
        stride=stride,
        height=size[0],
        width=size[1],
        seconds=count / info.fps,
        pixelated=info.height <= _EXACT,
    )


def encode(
    frames: Iterable[NDArray[np.uint8]], count: int, size: tuple[int, int]
) -> tuple[bytes, tuple[int, int]]:
    """WebP bytes of a strip of ``count`` frames of ``size`` (H, W), and the size they have there.

    Frames are made smaller one by one.
    """
    height, width = size
    rows = max(1, min(height, _TALLEST, _SIDE // count))
    columns = max(1, min(_SIDE, round(width * rows / height)))
    strip_THWC = np.empty((count, rows, columns, 3), dtype=np.uint8)
    for place, frame in enumerate(frames):
        if (rows, columns) != size:
            picture = Image.fromarray(np.ascontiguousarray(frame))
            frame = np.asarray(picture.resize((columns, rows), Image.Resampling.BOX))
        strip_THWC[place] = frame
    picture = Image.fromarray(strip_THWC.reshape(count * rows, columns, 3))
    buffer = io.BytesIO()
    exact = rows <= _EXACT
    picture.save(buffer, "WEBP", lossless=exact, quality=80 if exact else 86, method=4)
    return buffer.getvalue(), (rows, columns)
