"""Mask images in and out: the pixels of a mask, and pictures of masks.

Shapes: H rows, W columns, C channels. In the mask is what is not black once palettes are applied,
as the authors' loader sees it: shades count, alpha does not. (Masks of other makers are read by
``data.masks``, which looks for several objects in a picture.)
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from matrix_video.services.errors import MatrixError

_COLOURS: Final = {"1": 1, "L": 1, "RGB": 3, "I;16": 1, "I": 1, "LA": 1, "RGBA": 3}
"""Channels of a mode that are no alpha."""

Mask = NDArray[np.bool_]


def read_mask(raw: bytes, size: tuple[int, int] | None, place: Path) -> Mask:
    """Bool [H,W]; ``MatrixError`` where it is broken, of another size, or of an unknown kind."""
    with _opened(raw, size, place) as image:
        image.load()
        if image.mode == "P":
            colours = np.frombuffer(bytes(image.getpalette("RGB") or []), dtype=np.uint8)
            table = np.zeros(256, dtype=bool)
            table[: len(colours) // 3] = colours.reshape(-1, 3).any(axis=1)
            return table[np.asarray(image)]
        if image.mode == "1":  # as bool, Pillow's array holds other bytes than 0 and 1
            image = image.convert("L")
        pixels = np.asarray(image)
        if pixels.ndim == 2:
            return pixels != 0
        return np.any(pixels[..., : _COLOURS[image.mode]] != 0, axis=-1)


def check_picture(raw: bytes, size: tuple[int, int], place: Path) -> None:
    """Errors as ``read_mask``, without decoding: size, checksums, and that the end is there."""
    with _opened(raw, size, place) as image:
        image.verify()


@contextmanager
def _opened(raw: bytes, size: tuple[int, int] | None, place: Path) -> Generator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(raw), formats=["PNG"])
            if size is not None and (image.height, image.width) != size:
                raise MatrixError(
                    f"the mask is {image.height}x{image.width}, but its video is "
                    f"{size[0]}x{size[1]} (height x width)",
                    remedy="Make the masks from this very video",
                    file=place,
                )
            bits, colour = raw[24], raw[25]  # they stand at a fixed place in every PNG
            if image.mode not in (*_COLOURS, "P") or (bits == 16 and colour != 0):
                raise MatrixError(
                    f"masks of the kind {image.mode}, {bits} bits a channel, are not supported",
                    remedy="Save it as 1, L, P or RGB with 8 bits a channel",
                    file=place,
                )
            yield image
    except (OSError, SyntaxError, ValueError, Warning, Image.DecompressionBombError) as error:
        raise MatrixError(
            f"the mask cannot be read as a PNG ({error})",
            remedy="Restore the file, or remove it: the frame is unknown then",
            file=place,
        ) from error


def mask_png(mask_HW: Mask) -> bytes:
    """Grey of 8 bits, 255 in the mask."""
    return _png((mask_HW * np.uint8(255))[..., None])


def colour_png(palette_NC: NDArray[np.uint8], indices_HW: NDArray[np.uint16]) -> bytes:
    """RGB; ``take`` is 20 times as fast as an index here."""
    return _png(palette_NC.take(np.ascontiguousarray(indices_HW), axis=0, mode="clip"))


def _png(pixels_HWC: NDArray[np.uint8]) -> bytes:
    """No filters and the fastest compression: Pillow's writer takes four times as long, and flat
    pictures are small all the same."""
    height, width, channels = pixels_HWC.shape
    rows = np.zeros((height, 1 + width * channels), dtype=np.uint8)  # a filter byte before a row
    rows[:, 1:] = pixels_HWC.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.data, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
