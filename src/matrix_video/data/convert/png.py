"""Mask images in and out: which pixels are in the mask, and how to make the same PNG again.

Shapes: H rows, W columns, C channels (1 for the modes 1, L, P and I). ``pixels_HWC`` are the
values as stored (palette indices for P). In the mask is what is not black once palettes are
applied, which is what the authors' loader sees; alpha does not count.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from matrix_video.data.sample import Record
from matrix_video.services.errors import MatrixError

_CHANNELS = {"1": 1, "L": 1, "P": 1, "RGB": 3}
"""The modes that a ``Form`` can describe; files of other modes are kept whole."""
_COLOURS = {**_CHANNELS, "I;16": 1, "I": 1, "LA": 1, "RGBA": 3}
_PLAIN_HEADERS = {(1, 0), (8, 0), (8, 2), (1, 3), (2, 3), (4, 3), (8, 3)}
"""(bits, colour type) of a PNG that its pixels and palette describe wholly, as Pillow reads it."""

Value = tuple[int, ...]
Pixels = NDArray[Any]


class Form(Record):
    """How a two-valued image is stored. ``palette``: RGB bytes, base64, for mode P alone."""

    mode: str
    palette: str | None
    background: Value
    foreground: Value


DEFAULT_FORM = Form(mode="L", palette=None, background=(0,), foreground=(255,))


@dataclass(frozen=True, eq=False)
class Png:
    """A decoded file. ``plain``: mode, palette and pixels are all that it holds."""

    mode: str
    palette: str | None
    pixels_HWC: Pixels
    plain: bool

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels_HWC.shape[0], self.pixels_HWC.shape[1]

    def mask(self) -> NDArray[np.bool_]:
        """Bool [H,W]: what is not black."""
        if self.mode == "P":
            table = np.zeros((256, 3), dtype=np.uint8)
            colours = np.frombuffer(base64.b64decode(self.palette or ""), dtype=np.uint8)
            table[: len(colours) // 3] = colours.reshape(-1, 3)
            return np.any(table[self.pixels_HWC[..., 0]], axis=-1)
        return np.any(self.pixels_HWC[..., : _COLOURS[self.mode]] != 0, axis=-1)


def read_png(path: Path, size: tuple[int, int]) -> Png:
    """Decode a file; ``MatrixError`` where it is broken, of another size, or no known kind."""
    png = decode_png(path.read_bytes(), path)
    if png.size != size:
        raise MatrixError(
            f"the mask is {png.size[0]}x{png.size[1]}, but its video is {size[0]}x{size[1]} "
            "(height x width)",
            remedy="Make the masks from this very video",
            file=path,
        )
    return png


def decode_png(raw: bytes, path: Path) -> Png:
    """As ``read_png``, of any size."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(raw), formats=["PNG"])
            image.load()
    except (OSError, SyntaxError, ValueError, Warning, Image.DecompressionBombError) as error:
        raise MatrixError(
            f"the mask cannot be read as a PNG ({error})",
            remedy="Restore the file, or remove it: the frame is unknown then",
            file=path,
        ) from error
    header = (raw[24], raw[25])  # bits and colour type stand at a fixed place in every PNG
    if image.mode not in _COLOURS or (header[0] == 16 and header[1] != 0):
        raise MatrixError(
            f"masks of the kind {image.mode}, {header[0]} bits a channel, are not supported",
            remedy="Save it as 1, L, P or RGB with 8 bits a channel",
            file=path,
        )
    palette = None
    if image.mode == "P":
        palette = base64.b64encode(bytes(image.getpalette("RGB") or [])).decode()
    if image.mode == "1":  # as bool, Pillow's array holds other bytes than 0 and 1
        pixels = (np.asarray(image.convert("L")) != 0).astype(np.uint8)
    else:
        pixels = np.asarray(image)
    plain = image.mode in _CHANNELS and not image.info and header in _PLAIN_HEADERS
    return Png(image.mode, palette, pixels.reshape(*pixels.shape[:2], -1), plain)


def encode_png(mode: str, palette: str | None, pixels_HWC: Pixels) -> bytes:
    """A PNG of these values; ``decode_png`` gives them back."""
    if mode == "1":
        image = Image.fromarray(pixels_HWC[..., 0].astype(bool))
    else:
        flat = pixels_HWC if _CHANNELS[mode] > 1 else pixels_HWC[..., 0]
        image = Image.fromarray(np.ascontiguousarray(flat, dtype=np.uint8))
        if mode == "P":  # the same bytes, taken as indices
            image = Image.frombytes("P", image.size, image.tobytes())
            image.putpalette(base64.b64decode(palette or ""), "RGB")
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def render(form: Form, mask_HW: NDArray[np.bool_]) -> bytes:
    """The PNG of a mask in this form."""
    pixels_HWC = np.where(mask_HW[..., None], np.array(form.foreground), np.array(form.background))
    return encode_png(form.mode, form.palette, pixels_HWC)


def white(mode: str) -> Value:
    """The brightest value of a mode without a palette."""
    return (1,) if mode == "1" else (255,) * _CHANNELS[mode]


def only_value(pixels_NC: Pixels) -> Value | None:
    """The one value of these pixels; None where there is none or more than one."""
    if len(pixels_NC) == 0 or (pixels_NC != pixels_NC[0]).any():
        return None
    return tuple(int(v) for v in pixels_NC[0])


@dataclass(frozen=True)
class Look:
    """Of a two-valued image, what its pixels say of its form; None: no such pixel."""

    mode: str
    palette: str | None
    background: Value | None
    foreground: Value | None


def look(png: Png, mask_HW: NDArray[np.bool_]) -> Look | None:
    """None where no form can make the image: several values, transparency, other modes."""
    inside, outside = png.pixels_HWC[mask_HW], png.pixels_HWC[~mask_HW]
    fore, back = only_value(inside), only_value(outside)
    if not png.plain or (fore is None and len(inside)) or (back is None and len(outside)):
        return None
    return Look(png.mode, png.palette, back, fore)


def fit_forms(looks: Sequence[Look | None]) -> tuple[tuple[Form, ...], list[int | None]]:
    """Forms that make these images again, and for each image the index of its form.

    An image all inside or all outside the mask leaves one value open: it takes a form that another
    image fixed, else the default, else the brightest foreground on zero.
    """
    forms: list[Form] = []
    chosen: list[int | None] = [None] * len(looks)
    for k, seen in enumerate(looks):
        if seen is not None and seen.background is not None and seen.foreground is not None:
            form = Form(
                mode=seen.mode,
                palette=seen.palette,
                background=seen.background,
                foreground=seen.foreground,
            )
            chosen[k] = _known(forms, form)
    for k, seen in enumerate(looks):
        if seen is None or (seen.background is not None and seen.foreground is not None):
            continue
        fits = [form for form in (*forms, DEFAULT_FORM) if _fits(form, seen)]
        completed = fits[0] if fits else _completed(seen)
        if completed is not None:
            chosen[k] = _known(forms, completed)
    return tuple(forms), chosen


def _fits(form: Form, seen: Look) -> bool:
    return (
        (form.mode, form.palette) == (seen.mode, seen.palette)
        and seen.foreground in (None, form.foreground)
        and seen.background in (None, form.background)
    )


def _known(forms: list[Form], form: Form) -> int | None:
    """The form's index, added where it is new; None where it does not survive a PNG."""
    if form not in forms:
        both = np.array([[False, True]])
        again = decode_png(render(form, both), Path("probe.png"))
        values = [tuple(int(v) for v in pixel) for pixel in again.pixels_HWC[0]]
        same = (again.mode, again.palette) == (form.mode, form.palette)
        if not same or values != [form.background, form.foreground]:
            return None
        forms.append(form)
    return forms.index(form)


def _completed(seen: Look) -> Form | None:
    fore, back = seen.foreground, seen.background
    if seen.mode == "P" and fore is None:
        colours = np.frombuffer(base64.b64decode(seen.palette or ""), dtype=np.uint8)
        bright = np.flatnonzero(colours.reshape(-1, 3).any(axis=-1))
        if len(bright) == 0:
            return None
        fore = (int(bright[0]),)
    if seen.mode == "P" and back is None:
        return None  # all frames full: which index is the background is not known
    return Form(
        mode=seen.mode,
        palette=seen.palette,
        background=(0,) * _CHANNELS[seen.mode] if back is None else back,
        foreground=white(seen.mode) if fore is None else fore,
    )
