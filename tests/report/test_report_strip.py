"""Strips hold just the video's pixels, or a smaller picture of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from matrix_video.data.video import write_video
from matrix_video.report.strip import encode, make_strip
from matrix_video.services.errors import MatrixError


def noise(frames: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def test_a_small_clip_is_stored_exactly(tmp_path: Path) -> None:
    frames = noise(5, 16, 24)
    write_video(tmp_path / "a.mp4", frames, 8.0, lossless=True)
    strip = make_strip(tmp_path / "a.mp4", tmp_path / "assets")
    assert (strip.frames, strip.height, strip.width) == (5, 16, 24)
    assert strip.stride == 1
    assert strip.seconds == pytest.approx(5 / 8)
    assert strip.pixelated
    stored = np.asarray(Image.open(tmp_path / strip.file).convert("RGB"))
    np.testing.assert_array_equal(stored.reshape(frames.shape), frames)


def test_equal_pictures_share_one_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", noise(3, 16, 16), 8.0, lossless=True)
    found = {make_strip(tmp_path / f"{n}.mp4", tmp_path / "assets").file for n in ("a", "b")}
    assert len(found) == 1
    assert [file.name for file in (tmp_path / "assets").iterdir()] == [Path(*found).name]


def test_a_tall_clip_becomes_smaller_and_keeps_its_shape(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", noise(3, 480, 720), 8.0)
    strip = make_strip(tmp_path / "a.mp4", tmp_path / "assets")
    assert (strip.height, strip.width) == (288, 432)
    assert not strip.pixelated
    assert Image.open(tmp_path / strip.file).size == (432, 3 * 288)


def test_a_long_clip_fits_into_one_picture_and_keeps_its_duration(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", noise(300, 130, 16), 30.0)
    strip = make_strip(tmp_path / "a.mp4", tmp_path / "assets")
    assert (strip.frames, strip.stride) == (100, 3)
    assert strip.seconds == pytest.approx(10.0)
    assert strip.height == 130
    assert strip.frames * strip.height <= 16_000


def test_a_strip_with_a_stride_holds_just_those_frames(tmp_path: Path) -> None:
    frames = noise(301, 128, 16)
    write_video(tmp_path / "a.mp4", frames, 30.0, lossless=True)
    strip = make_strip(tmp_path / "a.mp4", tmp_path / "assets")
    assert (strip.frames, strip.stride, strip.height) == (101, 3, 128)
    stored = np.asarray(Image.open(tmp_path / strip.file).convert("RGB"))
    np.testing.assert_array_equal(stored.reshape(-1, *frames.shape[1:]), frames[::3])


def test_encode_never_exceeds_what_browsers_read() -> None:
    _, size = encode(noise(120, 140, 10), 120, (140, 10))
    assert size[0] * 120 <= 16_000
    _, size = encode(noise(1, 2, 20_000), 1, (2, 20_000))
    assert size[1] <= 16_000


def test_a_missing_video_is_named(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match=r"gone\.mp4: there is no such video file"):
        make_strip(tmp_path / "gone.mp4", tmp_path / "assets")
    assert not (tmp_path / "assets").exists()
