"""The caption of a clip as a picture, each phrase in its colour.

Shapes: H rows, W columns, in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from matrix_video.data.sample import Span

Colour = tuple[int, int, int]
COLOURS: Final[tuple[Colour, ...]] = (
    (230, 159, 0),
    (86, 180, 233),
    (240, 228, 66),
    (204, 121, 167),
    (0, 190, 140),
    (255, 110, 60),
)
"""Colours of phrases, in their order, repeated after the last: those of Okabe and Ito's palette
that stand out on dark ground, for readers who are colour-blind."""
GROUND: Final[Colour] = (24, 24, 24)
_PLAIN: Final[Colour] = (225, 225, 225)
_SIZE, _MARGIN, _LINE = 11, 4, 16


def phrase_colour(index: int) -> Colour:
    """The colour of the phrase of this index."""
    return COLOURS[index % len(COLOURS)]


@cache
def font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic and more, the same
    everywhere."""
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", _SIZE)


@dataclass(frozen=True)
class Caption:
    """A caption and the character spans of each of its phrases, by their order."""

    text: str
    phrases: tuple[tuple[Span, ...], ...]

    def owners(self) -> tuple[int | None, ...]:
        """The phrase of each character: the first that covers it, None outside of all."""
        found: list[int | None] = [None] * len(self.text)
        for index, spans in reversed(list(enumerate(self.phrases))):
            for span in spans:
                found[span.start : span.end] = [index] * (span.end - span.start)
        return tuple(found)


def caption_picture(caption: Caption, width: int) -> NDArray[np.uint8]:
    """The caption broken into lines of ``width`` pixels, uint8 [H,W,3]; H fits the text, and is
    even, as videos need it."""
    owners = caption.owners()
    lines = _lines(caption.text, width - 2 * _MARGIN)
    image = Image.new("RGB", (width, len(lines) * _LINE + 2 * _MARGIN), GROUND)
    draw = ImageDraw.Draw(image)
    for row, (start, end) in enumerate(lines):
        for first, last in _runs(owners, start, end):
            owner = owners[first]
            # Placed by the line's own width up to here, so that kerning adds up.
            x = _MARGIN + font().getlength(caption.text[start:first])
            colour = _PLAIN if owner is None else phrase_colour(owner)
            draw.text((x, _MARGIN + row * _LINE), caption.text[first:last], colour, font())
    return np.asarray(image)


def _lines(text: str, width: int) -> list[tuple[int, int]]:
    """Character ranges of the lines, broken at spaces, and within words that are too long."""
    lines: list[tuple[int, int]] = []
    start = 0
    while start < len(text):
        end = start + 1
        while end < len(text) and font().getlength(text[start : end + 1]) <= width:
            end += 1
        space = text.rfind(" ", start + 1, end + 1)
        if end < len(text) and space > 0:
            end = space
        lines.append((start, end))
        start = end + 1 if text[end : end + 1] == " " else end
    return lines


def _runs(owners: Sequence[int | None], start: int, end: int) -> list[tuple[int, int]]:
    """Ranges of one owner within a line."""
    cuts = [i for i in range(start + 1, end) if owners[i] != owners[i - 1]]
    edges = [start, *cuts, end]
    return list(pairwise(edges))
