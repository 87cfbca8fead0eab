"""One mask picture: which object is where.

A number or a colour that stands in a pixel names an object, 0 and black are the background. Edges
that were smoothed, and lossy files, hold values between those of the objects. They are counted; a
single object is cut at half its value, and several objects are refused, because an edge between 0
and object 2 reads as object 1 (our choice).

Shapes: H rows, W columns, C channels.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from matrix_video.services.errors import MatrixError
from matrix_video.services.files import read_bounded

Mask = NDArray[np.bool_]
Values = NDArray[np.integer[Any]]

SUFFIXES: Final = frozenset(
    {".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".jpg", ".jpeg", ".jp2", ".ppm", ".pgm"}
)
_MOST = 64
"""Distinct values of a picture above which they are shades, not objects."""
_SMOOTHED = 0.3
"""Share of the objects' edge that values in between cover in a smoothed picture; where objects
overlap, single pixels of one lie between two others too."""
_NEAR = 1 / 16
"""Distance from black or the top value, in shares of the top, that a lossy file adds by itself."""
_LARGEST = 1 << 26
"""Pixels of a picture that are decoded."""


@dataclass(frozen=True, eq=False)
class Picture:
    """``masks`` bool [H,W] by name: a decimal number, or a colour as ``#rrggbb``.

    ``between`` counts the pixels whose value lies between those of objects or background.
    """

    size: tuple[int, int]
    masks: Mapping[str, Mask]
    between: int = 0


@dataclass(frozen=True)
class Part:
    """Masks of one frame, read when asked for: those of ``object``, or, where that is None, all
    that there are. ``frame`` counts as the masks do."""

    frame: int
    object: str | None
    file: Path
    read: Callable[[], Picture]


@contextmanager
def opened(
    source: Path | bytes, place: Path, kinds: tuple[str, ...] | None = None
) -> Generator[Image.Image]:
    """A picture of at most 2**26 pixels, not yet decoded. ``kinds``: the formats that may be, as
    Pillow calls them; None: all.

    ``MatrixError`` about ``place`` for any other and a damaged one, also where decoding shows it.
    """
    try:
        raw = read_bounded(source) if isinstance(source, Path) else source
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have our own limit
            image = Image.open(io.BytesIO(raw), formats=kinds)
        with image:
            if image.height * image.width > _LARGEST:
                raise MatrixError(
                    f"the mask has {image.height}x{image.width} pixels (height x width)",
                    remedy=f"Give masks of at most {_LARGEST:,} pixels, of the video's size",
                    file=place,
                )
            if image.format == "PNG" and raw[24] == 16 and raw[25] != 0:
                # Pillow keeps the upper 8 of 16 bits a channel, without a word.
                raise unsupported(f"{image.mode} with 16 bits a channel", place)
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MatrixError(
            f"the mask cannot be read as a {'/'.join(kinds or ('picture',))} ({error})",
            remedy="Restore the file, or remove it: the frame is not annotated then",
            file=place,
        ) from error


def read_picture(path: Path) -> Picture:
    """Decode a picture: 1 to 32 bits of grey, palette indices, RGB or RGBA.

    ``MatrixError`` for no picture, several in one file, 16 bits a colour channel, shades that are
    no mask, and smoothed edges between several objects.
    """
    with opened(path, path) as image:
        if (count := int(getattr(image, "n_frames", 1))) > 1:
            raise MatrixError(
                f"the file holds {count} pictures, of which only the first would be read",
                remedy="Store each frame's mask as a file of its own, such as 00000.png",
                file=path,
            )
        image.load()
        lossy = image.format in ("JPEG", "JPEG2000") or _lossy_webp(path)
        planes_HWC, grey = _planes(image, path)
    return _objects(planes_HWC, grey, lossy, path)


def _lossy_webp(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(64)
    return header[8:12] == b"WEBP" and b"VP8 " in header


def wrong_size(found: tuple[int, int], wanted: tuple[int, int], path: Path) -> MatrixError:
    """The refusal of masks that do not have their video's size."""
    return MatrixError(
        f"the mask is {found[0]}x{found[1]}, but its video is {wanted[0]}x{wanted[1]} "
        "(height x width)",
        remedy="Make the masks from this very video. Masks of its whole frame, squeezed to another "
        "size (SAM 2 works at 1024x1024), can be stretched back with --from masks --resize-masks",
        file=path,
    )


def _planes(image: Image.Image, path: Path) -> tuple[Values, bool]:
    """The values [H,W,C] that name objects, and whether they are numbers and not colours."""
    mode = image.mode
    if mode == "1":
        return np.asarray(image.convert("L"))[..., None], True
    if mode == "P":
        palette = np.frombuffer(bytes(image.getpalette("RGB") or []), np.uint8).reshape(-1, 3)
        indices_HW = np.asarray(image)
        used = [i for i in np.unique(indices_HW) if i < len(palette) and not palette[i].any()]
        # Numbers, unless the palette was made from colours and put black elsewhere than first.
        if not used or used[0] == 0 or not len(palette):
            return indices_HW[..., None], True
        return np.asarray(image.convert("RGB")), False
    if mode in ("L", "I", "I;16", "I;16B", "I;16L"):
        values_HW = np.asarray(image)
        if values_HW.min(initial=0) < 0:
            raise unsupported(f"{mode} with negative values", path)
        return values_HW[..., None], True
    if mode not in ("LA", "RGB", "RGBA"):
        raise unsupported(mode, path)
    pixels_HWC = np.asarray(image)
    if mode == "RGB":
        return pixels_HWC, False
    colours_HWC, alpha_HW = pixels_HWC[..., :-1], pixels_HWC[..., -1]
    if alpha_HW.min() == 255:
        return colours_HWC, mode == "LA"
    if not colours_HWC[alpha_HW > 0].any():  # black on nothing: the mask is in the alpha channel
        return alpha_HW[..., None], True
    seen_HWC = np.rint(colours_HWC * (alpha_HW[..., None] / 255)).astype(np.uint8)
    return seen_HWC, mode == "LA"


def _objects(planes_HWC: Values, grey: bool, lossy: bool, path: Path) -> Picture:
    size = planes_HWC.shape[0], planes_HWC.shape[1]
    if planes_HWC.shape[2] == 1:
        codes_HW = planes_HWC[..., 0]
    else:
        codes_HW = (planes_HWC.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=2)
    top = codes_HW.max(initial=0)
    mask_HW = codes_HW == top
    if np.count_nonzero(mask_HW) + np.count_nonzero(codes_HW == 0) == codes_HW.size:
        values = [int(top)]  # the usual picture, without the search
    else:
        values = [int(v) for v in np.unique(codes_HW) if v]

    def name(value: int) -> str:
        return str(value) if grey else f"#{value:06x}"

    if len(values) == 1 or not top:
        return Picture(size, {name(int(top)): mask_HW} if top else {})
    shades = len(values) > _MOST or (lossy and planes_HWC.max() >= 128)
    spread = int((planes_HWC.max(axis=2) - planes_HWC.min(axis=2)).max())
    if shades and spread > 32:
        raise _shades(path, f"{len(values) + 1} colours")
    if not shades and not _noisy(planes_HWC):
        between_HW, edge = _between(planes_HWC), int(_edge(codes_HW).sum())
        # A picture is smoothed where soft pixels, most of which lie between, line its edge.
        soft_HW, solid = np.zeros(size, dtype=bool), 0
        if 2 * between_HW.sum() >= _SMOOTHED * edge:
            soft_HW, solid = _soft(codes_HW, values, between_HW)
        if (soft_HW & _edge(codes_HW)).sum() < _SMOOTHED * max(1, edge):
            return Picture(size, {name(v): codes_HW == v for v in values})
        if solid > 1:
            raise MatrixError(
                f"{int(soft_HW.sum())} of {int((codes_HW > 0).sum())} pixels of the objects hold "
                "values that lie only on borders, between the values beside them: the picture was "
                "smoothed or stored with loss, and its edges name wrong objects",
                remedy="Store the masks as PNG, resized without smoothing (nearest neighbour)",
                file=path,
            )
    if lossy and not shades:
        raise _shades(path, "small numbers in a lossy format")
    level_HW = planes_HWC.max(axis=2)
    top = int(level_HW.max())
    mask_HW = 2 * level_HW.astype(np.int64) > top
    far = max(1.0, _NEAR * top)
    count = int(((level_HW >= far) & (level_HW <= top - far)).sum())
    if count > max(mask_HW.sum(), mask_HW.size // 4):
        raise _shades(path, f"{len(values) + 1} shades, {count} pixels of them far from both ends")
    if top >= 128 and spread <= 32:  # one name for the white of all frames
        shown = name(255 if grey else 0xFFFFFF)
    else:
        shown = name(int(codes_HW[level_HW == top][0]))
    return Picture(size, {shown: mask_HW}, count)


def _between(planes_HWC: Values) -> Mask:
    """Pixels [H,W] with a lower and a higher one opposite each other, one or two pixels away.

    Two, because the steps of a soft edge may be two pixels wide; of a colour, all channels that
    differ.
    """
    found_HW = np.zeros(planes_HWC.shape[:2], dtype=bool)
    for axis, step in product((0, 1), (1, 2)):
        along = np.moveaxis(planes_HWC, axis, 0)
        before, here, after = along[: -2 * step], along[step:-step], along[2 * step :]
        strict = ((before < here) & (here < after)) | ((before > here) & (here > after))
        same = (before == here) & (here == after)
        inner = np.moveaxis(found_HW, axis, 0)[step:-step]
        inner |= strict.any(axis=2) & (strict | same).all(axis=2)
    return found_HW


def _edge(codes_HW: Values) -> Mask:
    """Pixels of objects beside the background, in the four directions."""
    empty_HW = codes_HW == 0
    return ndimage.binary_dilation(empty_HW) & ~empty_HW


def _soft(codes_HW: Values, values: list[int], between_HW: Mask) -> tuple[Mask, int]:
    """Connected pixels of one value that are nowhere three wide and lie mostly between others.

    And how many of the values are somewhere wide.
    """
    uniform_HW = ndimage.maximum_filter(codes_HW, 3) == ndimage.minimum_filter(codes_HW, 3)
    soft_HW = np.zeros(codes_HW.shape, dtype=bool)
    solid = 0
    for value in values:
        parts_HW = np.zeros(codes_HW.shape, dtype=np.int32)
        count = int(ndimage.label(codes_HW == value, np.ones((3, 3)), output=parts_HW))  # pyright: ignore
        inside = np.bincount(parts_HW.ravel(), minlength=count + 1)
        lying = np.bincount(parts_HW[between_HW], minlength=count + 1)
        wide = np.bincount(parts_HW[uniform_HW], minlength=count + 1)
        soft = (wide == 0) & (2 * lying >= inside)
        soft[0] = False
        soft_HW |= soft[parts_HW]
        solid += bool(wide[1:].any())
    return soft_HW, solid


def _noisy(planes_HWC: Values) -> bool:
    """Whether this is white on black with the noise of a lossy format at both ends."""
    level_HW = planes_HWC.max(axis=2)
    top = int(level_HW.max())
    far = _NEAR * top
    middle_HW = (level_HW >= far) & (level_HW <= top - far)
    low, high = level_HW[level_HW < far], level_HW[level_HW > top - far]
    return (
        top >= 128
        and 10 * int(middle_HW.sum()) < middle_HW.size
        and min(len(np.unique(low)), len(np.unique(high))) > 3
    )


def unsupported(mode: str, path: Path) -> MatrixError:
    """The refusal of pixels that cannot name objects."""
    return MatrixError(
        f"pictures of the kind {mode} are not read as masks",
        remedy="Store ids as 8 or 16 bits of grey, palette indices, or RGB with 8 bits a channel",
        file=path,
    )


def _shades(path: Path, found: str) -> MatrixError:
    return MatrixError(
        f"this is no mask: it holds {found}",
        remedy="Store one number or flat colour an object as PNG, or white on black",
        file=path,
    )
