"""Strips hold just the video's pixels, or a smaller picture of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from matrix_video.data.video import write_video
from matrix_video.report.strip import encode, make_strip


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize(("shape", "stride"), [((5, 16, 24), 1), ((301, 128, 16), 3)])
def test_a_small_clip_is_stored_exactly_and_a_long_one_by_every_few_frames(
    tmp_path: Path, shape: tuple[int, int, int], stride: int
) -> None:
    frames = noise(*shape)
    for name in "ab":  # equal pictures share one file
        write_video(tmp_path / f"{name}.mp4", frames, 8.0, lossless=True)
    strip, again = (make_strip(tmp_path / f"{name}.mp4", tmp_path / "assets") for name in "ab")
    assert again == strip
    assert len([*(tmp_path / "assets").iterdir()]) == 1
    assert (strip.frames, strip.height, strip.width) == (len(frames[::stride]), *shape[1:])
    assert strip.stride == stride
    assert strip.seconds == pytest.approx(shape[0] / 8)
    assert strip.pixelated
    stored = np.asarray(Image.open(tmp_path / strip.file).convert("RGB"))
    np.testing.assert_array_equal(stored.reshape(-1, *frames.shape[1:]), frames[::stride])


def test_a_tall_clip_becomes_smaller_and_keeps_its_shape(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", noise(3, 480, 720), 8.0)
    strip = make_strip(tmp_path / "a.mp4", tmp_path / "assets")
    assert (strip.height, strip.width, strip.pixelated) == (288, 432, False)
    assert Image.open(tmp_path / strip.file).size == (432, 3 * 288)


@pytest.mark.parametrize("shape", [(120, 140, 10), (1, 2, 20_000)])
def test_encode_never_exceeds_what_browsers_read(shape: tuple[int, int, int]) -> None:
    _, (height, width) = encode(noise(*shape), shape[0], shape[1:])
    assert max(height * shape[0], width) <= 16_000
