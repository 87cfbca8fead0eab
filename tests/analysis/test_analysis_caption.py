"""The caption as a picture. Shapes: H rows, W columns, in pixels."""

from __future__ import annotations

import numpy as np
import pytest

from matrix_video.analysis.caption import (
    COLOURS,
    GROUND,
    Caption,
    caption_picture,
    phrase_colour,
)
from matrix_video.data.sample import Span

_TEXT = "the red ball pushes the blue ball while the box follows"


def _span(text: str) -> tuple[Span, ...]:
    start = _TEXT.index(text)
    return (Span(start=start, end=start + len(text)),)


def _columns(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.nonzero((picture == np.array(colour)).all(axis=-1).any(axis=0))[0]


def test_each_phrase_has_its_colour_in_the_order_of_the_caption() -> None:
    caption = Caption(_TEXT, (_span("red ball"), _span("blue ball"), _span("pushes")))
    picture = caption_picture(caption, 600)
    red, blue, verb = (_columns(picture, phrase_colour(i)) for i in range(3))
    assert 0 < red.min() < red.max() < verb.min() < verb.max() < blue.min() < blue.max() < 599
    nothing = caption_picture(Caption(_TEXT, ()), 600)
    assert all(len(_columns(nothing, colour)) == 0 for colour in COLOURS)
    # Colours move no letter.
    lit = (picture != np.array(GROUND)).any(axis=-1)
    other = (nothing != np.array(GROUND)).any(axis=-1)
    assert (lit != other).mean() < 0.002


def test_the_first_phrase_keeps_characters_that_two_claim() -> None:
    caption = Caption("red ball", ((Span(start=4, end=8),), (Span(start=0, end=8),)))
    assert caption.owners() == (1, 1, 1, 1, 0, 0, 0, 0)


@pytest.mark.parametrize("width", [24, 90, 160, 600])
def test_long_captions_are_broken_into_lines_that_fit(width: int) -> None:
    wide = caption_picture(Caption(_TEXT, ()), 2000)
    picture = caption_picture(Caption(_TEXT, ()), width)
    assert picture.shape[1] == width
    assert (picture[:, -3:] == np.array(GROUND)).all()
    lit = [int((p != np.array(GROUND)).any(axis=-1).sum()) for p in (wide, picture)]
    assert lit[1] == pytest.approx(lit[0], rel=0.05)  # nothing is cut off
    assert (picture.shape[0] > wide.shape[0]) == (width < 400)


def test_colours_begin_again_after_the_last() -> None:
    assert phrase_colour(len(COLOURS)) == COLOURS[0]
    assert len(set(COLOURS)) == len(COLOURS)
