"""Overlays show what the map says, where it says it.

Shapes: R phrases, T pixel frames, F token frames, h w token rows and columns, H W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from matrix_video.analysis.caption import COLOURS, GROUND, Caption, caption_picture
from matrix_video.analysis.overlays import overlay_strip, overlay_video, write_overlay
from matrix_video.data.grid import TokenGrid
from matrix_video.data.sample import Span
from matrix_video.data.video import read_video

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


@pytest.mark.parametrize("peak", [1.2, 1.5, 20.0])
def test_a_flat_map_is_as_visible_as_a_peaked_one(peak: float) -> None:
    """Maps over text peak at a few tenths above chance: their colour must be seen as well."""
    maps = np.ones((1, 2, 4, 4))
    maps[:, :, 1, 1] = peak
    panel = overlay_video(_frames(), maps, _GRID, ["x"])[:, -160:].astype(int)
    middle = panel[0, 60, 60]  # of the token (1, 1), 40 pixels wide
    assert (
        np.abs(middle - np.array(COLOURS[0])).sum() < np.abs(100 - np.array(COLOURS[0])).sum() * 0.4
    )


def test_a_map_of_zeros_colours_nothing() -> None:
    video = overlay_video(_frames(), np.zeros((1, 2, 4, 4)), _GRID, ["nothing"])
    assert (video[:, -_SIDE:] == 100).all()


def test_outline_follows_the_mask_in_the_colour_of_the_phrase() -> None:
    masks = np.zeros((2, 2, 4, 4), dtype=bool)
    masks[1, 1, 1:3, 1:3] = True
    flat = np.ones((2, 2, 4, 4))
    video = overlay_video(_frames(), flat, _GRID, ["x", "y"], masks_RFhw=masks)
    side = video.shape[2] // 2
    assert (video[:, -side:, :side] == 100).all()  # the first phrase has no mask
    panel = video[:, -side:, side:]
    border = (panel == np.array(COLOURS[1])).all(axis=-1)
    assert not border[0].any()
    for shown, inset in ((border[1], 0), ((panel[1] == np.array(GROUND)).all(axis=-1), 1)):
        rows, columns = np.nonzero(shown)
        low, high = side // 4 + inset, 3 * side // 4 - 1 - inset
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (low, high, low, high)
        assert len(rows) == 4 * (high - low)  # one pixel wide
    assert (panel[1, side // 2, side // 2] == 100).all()


def test_video_strip_and_animation_are_written_side_by_side(tmp_path: Path) -> None:
    caption = Caption("one two", ((Span(start=0, end=3),), (Span(start=4, end=7),)))
    plain = overlay_video(_frames(), _maps(), _GRID, ["one", "two"])
    paths = write_overlay(tmp_path / "a.b_v2t_layer01.mp4", plain, _GRID, 7.0, caption)
    above = caption_picture(caption, plain.shape[2])
    video = np.stack([np.concatenate([above, frame]) for frame in plain])
    assert [path.name for path in paths] == [f"a.b_v2t_layer01.{s}" for s in ("mp4", "png", "gif")]
    assert read_video(paths[0]).frames_THWC.shape == video.shape
    strip = np.concatenate([above, overlay_strip(plain, _GRID)])  # the caption once
    np.testing.assert_array_equal(np.asarray(Image.open(paths[1])), strip)
    animation = Image.open(paths[2])
    durations, shown = [], []
    for frame in ImageSequence.Iterator(animation):
        durations.append(frame.info["duration"])
        shown.append(np.asarray(frame.convert("RGB")).astype(int))
    assert sum(durations) == round(5 / 7 * 100) * 10
    # Frames 1 to 4 are alike, and GIF stores such frames once.
    assert len(shown) == 2
    for found, t in zip(shown, (0, 1), strict=True):
        assert np.abs(found - video[t]).mean() < 2
    again = write_overlay(tmp_path / "again.mp4", plain, _GRID, 7.0, caption)
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]


def test_a_wide_animation_is_made_smaller(tmp_path: Path) -> None:
    video = np.zeros((5, 20, 1920, 3), dtype=np.uint8)
    paths = write_overlay(tmp_path / "wide.mp4", video, _GRID, 8.0, Caption("x", ()))
    height = read_video(paths[0]).size[0]
    assert Image.open(paths[2]).size == (960, height // 2)


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
