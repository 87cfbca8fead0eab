"""Mask images in and out: the pixels of a mask, and pictures of masks.

Shapes: H rows, W columns, C channels. In the mask is what is not black once palettes are applied,
as the authors' loader sees it: shades count, alpha does not. (Masks of other makers are read by
``data.masks``, which looks for several objects in a picture.)
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from matrix_video.data.masks.pictures import Mask, opened, unsupported, wrong_size

_COLOURS: Final = {"1": 1, "L": 1, "RGB": 3, "I;16": 1, "I": 1, "LA": 1, "RGBA": 3}
"""Channels of a mode that are no alpha."""


def read_mask(raw: bytes, size: tuple[int, int], place: Path, out: Mask | None = None) -> Mask:
    """Bool [H,W], in ``out`` where that is given, since new memory costs as much as a third of
    decoding. ``MatrixError`` where it is broken, of another size, or of an unknown kind."""
    with opened(raw, place, ("PNG",)) as image:
        _check_kind(image, size, place)
        image.load()
        if image.mode == "P":
            colours = np.frombuffer(bytes(image.getpalette("RGB") or []), dtype=np.uint8)
            table = np.zeros(256, dtype=bool)
            table[: len(colours) // 3] = colours.reshape(-1, 3).any(axis=1)
            return table.take(np.asarray(image), out=out, mode="clip")
        if image.mode == "1":  # as bool, Pillow's array holds other bytes than 0 and 1
            image = image.convert("L")
        pixels = _grey(image) if image.mode == "L" else np.asarray(image)
        if pixels.ndim == 2:
            return np.not_equal(pixels, 0, out=out)
        return np.any(pixels[..., : _COLOURS[image.mode]] != 0, axis=-1, out=out)


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels [H,W] without a copy, which takes Pillow as long as half of decoding."""
    try:
        return pa.array(image).to_numpy().reshape(image.height, image.width)
    except ValueError:  # in several blocks of memory
        return np.asarray(image)


def check_picture(raw: bytes, size: tuple[int, int], place: Path) -> None:
    """Errors as ``read_mask``, without decoding: size, checksums, and that the end is there."""
    with opened(raw, place, ("PNG",)) as image:
        _check_kind(image, size, place)
        image.verify()


def _check_kind(image: Image.Image, size: tuple[int, int], place: Path) -> None:
    if (image.height, image.width) != size:
        raise wrong_size((image.height, image.width), size, place)
    if image.mode not in (*_COLOURS, "P"):
        raise unsupported(image.mode, place)


def draw_png(indices_HW: NDArray[Any], palette_NC: NDArray[np.uint8]) -> bytes:
    """A picture of 8 bits, grey (C = 1) or RGB (C = 3), of the colours that indices name; index 0
    is black.

    A row is stored as its difference from the row above, which is zero but where colours change:
    only those pixels are looked at, and zeros compress fastest. Pillow's writer, which tries all
    filters, takes four times as long.
    """
    height, width = indices_HW.shape
    channels = palette_NC.shape[1]
    columns_WH = indices_HW.T  # masks are decoded column by column
    before_WH = np.zeros_like(columns_WH)
    before_WH[:, 1:] = columns_WH[:, :-1]
    x, y = np.divmod(np.flatnonzero(columns_WH != before_WH), height)
    changes = palette_NC[columns_WH[x, y]] - palette_NC[before_WH[x, y]]
    rows = np.zeros((height, 1 + width * channels), dtype=np.uint8)
    rows[:, 0] = 2  # the filter
    for channel in range(channels):
        rows[y, 1 + x * channels + channel] = changes[:, channel]
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    packer = zlib.compressobj(1, strategy=zlib.Z_RLE)
    data = packer.compress(rows.data) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    )
