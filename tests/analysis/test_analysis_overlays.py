"""Overlays show what the map says, where it says it.

Shapes: R phrases, T pixel frames, F token frames, h w token rows and columns, H W pixels.
"""

from __future__ import annotations

import numpy as np
import pytest

from matrix_video.analysis.overlays import COLOURS, overlay_strip, overlay_video
from matrix_video.data.grid import TokenGrid

_GRID = TokenGrid(frames=((0,), (1, 2, 3, 4)), height=4, width=4)
_SIDE = 32


def _frames() -> np.ndarray:
    return np.full((5, _SIDE, _SIDE, 3), 100, dtype=np.uint8)


def _maps() -> np.ndarray:
    """Phrase 0 looks at the top left token, then at the bottom right one; phrase 1 nowhere."""
    maps = np.ones((2, 2, 4, 4))
    maps[0] = 1e-3
    maps[0, 0, 0, 0] = maps[0, 1, 3, 3] = 1.0
    return maps


def test_colour_lies_where_the_map_does_and_only_there() -> None:
    video = overlay_video(_frames(), _maps(), _GRID, ["one", "two"])
    side = video.shape[2] // 2
    bar = video.shape[1] - side
    assert video.shape == (5, bar + side, 2 * side, 3)
    panel = video[:, bar:, :side].astype(int)
    cell = side // 4
    red = np.array(COLOURS[0])
    for t, (y, x) in enumerate([(0, 0), *[(3, 3)] * 4]):
        middle = panel[t, y * cell + cell // 2, x * cell + cell // 2]
        assert np.abs(middle - red).sum() < np.abs(100 - red).sum() * 0.4, t
        away = panel[t, (3 - y) * cell + cell // 2, (3 - x) * cell + cell // 2]
        assert (away == 100).all(), t
    uniform = video[:, bar:, side:]
    assert (uniform == 100).all()


def test_a_map_of_zeros_colours_nothing() -> None:
    video = overlay_video(_frames(), np.zeros((1, 2, 4, 4)), _GRID, ["nothing"])
    assert (video[:, -_SIDE:] == 100).all()


def test_outline_follows_the_mask() -> None:
    masks = np.zeros((1, 2, 4, 4), dtype=bool)
    masks[0, 1, 1:3, 1:3] = True
    video = overlay_video(_frames(), np.ones((1, 2, 4, 4)), _GRID, ["x"], masks_RFhw=masks)
    side = video.shape[2]
    white = (video[:, -side:] == 255).all(axis=-1)
    assert not white[0].any()
    rows, columns = np.nonzero(white[1])
    assert (rows.min(), rows.max()) == (side // 4, 3 * side // 4 - 1)
    assert (columns.min(), columns.max()) == (side // 4, 3 * side // 4 - 1)
    assert not white[1, side // 2, side // 2]


def test_odd_frames_make_even_videos_and_padding_tokens_are_not_shown() -> None:
    grid = TokenGrid(frames=((), (0,), (1, 2)), height=3, width=3)
    frames = np.zeros((3, 31, 31, 3), dtype=np.uint8)
    maps = np.ones((1, 3, 3, 3))
    video = overlay_video(frames, maps, grid, ["x"])
    assert video.shape[1] % 2 == 0
    assert video.shape[2] % 2 == 0
    strip = overlay_strip(video, grid)
    assert np.array_equal(strip, np.concatenate([video[0], video[2]]))


def test_labels_must_belong_to_the_maps() -> None:
    with pytest.raises(ValueError, match="1 labels and maps"):
        overlay_video(_frames(), _maps(), _GRID, ["one"])
