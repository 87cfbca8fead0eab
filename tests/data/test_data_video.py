"""Writing videos, and what damaged files are told."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from matrix_video.data.clip import Video
from matrix_video.data.video import check_video, probe_video, read_video, write_video
from matrix_video.services.errors import MatrixError

Smooth = Callable[..., np.ndarray]
Remux = Callable[..., Path]


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 19), st.integers(1, 19)).flatmap(
        lambda shape: arrays(np.uint8, (*shape, 3))
    ),
    st.sampled_from([1.0, 8.0, 24000 / 1001, 29.97, 60.0]),
)
def test_lossless_round_trip_is_exact(frames_THWC: np.ndarray, fps: float) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, frames_THWC, fps, lossless=True)
        video, info = read_video(path), probe_video(path)
    assert np.array_equal(video.frames_THWC, frames_THWC)
    assert video.times == pytest.approx(np.arange(len(frames_THWC)) / fps, abs=1e-4)
    assert video.fps == pytest.approx(fps, rel=1e-3)
    assert np.array_equal(info.times, video.times)
    assert info.size == video.size == frames_THWC.shape[1:3]
    assert info.fps == video.fps


def test_lossy_is_close_in_colour_and_time(tmp_path: Path, smooth: Smooth) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, smooth(12), 8.0)
    video = read_video(path)
    error = video.frames_THWC.astype(int) - smooth(12)
    # A wrong matrix or range (601 for 709, 16-235 for 0-255) shifts means by 5 and more.
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 1.5
    assert np.abs(error).mean() < 3
    assert video.times.tolist() == [k / 8 for k in range(12)]
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.pix_fmt == "yuv420p"
        assert (stream.colorspace, stream.color_range) == (1, 1)
        stored = [p.pts for p in container.demux(video=0) if p.pts is not None]
    assert stored != sorted(stored), "the clip must hold B-frames for the next line to mean much"
    assert (np.diff(video.frames_THWC[..., 2].mean(axis=(1, 2))) > 10).all()


@pytest.mark.parametrize("lossless", [False, True])
def test_equal_frames_give_equal_files(tmp_path: Path, smooth: Smooth, lossless: bool) -> None:
    found: set[bytes] = set()
    for _ in range(30):
        write_video(tmp_path / "a.mp4", smooth(12), 8.0, lossless=lossless)
        found.add((tmp_path / "a.mp4").read_bytes())
    assert len(found) == 1
    # How often files differ with these two on depends on the frames and the processor: x264 notes
    # its settings in the file.
    raw = found.pop()
    assert b" mbtree=0 " in raw
    assert b" threads=1 " in raw


@pytest.mark.parametrize(
    ("name", "shape", "fps", "lossless", "message"),
    [
        ("a.mp4", (2, 15, 16, 3), 8.0, False, "needs even sizes, got 15x16 .* write losslessly"),
        ("a.mp4", (0, 16, 16, 3), 8.0, True, "cannot write a video of 0 frames of 16x16"),
        ("a.mp4", (2, 16, 16, 3), 0.0, True, "0.0 is not a frame rate"),
        ("a.mp4", (2, 16, 16, 3), float("nan"), True, "nan is not a frame rate"),
        ("a.avi", (2, 16, 16, 3), 8.0, True, r"a\.avi: cannot write the format \.avi"),
        # H.264 ends at 16384 pixels.
        ("a.mp4", (1, 2, 16400, 3), 8.0, True, r"a\.mp4: frames of 2x16400 cannot be encoded"),
    ],
)
def test_a_refused_video_leaves_the_old_file_alone(
    tmp_path: Path, name: str, shape: tuple[int, ...], fps: float, lossless: bool, message: str
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"old")
    with pytest.raises(MatrixError, match=message):
        write_video(tmp_path / name, np.zeros(shape, dtype=np.uint8), fps, lossless=lossless)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def test_video_checks_its_parts() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \[T,H,W,3\], got float64"):
        Video(np.zeros((1, 2, 2, 3)), np.zeros(1), 8.0)
    with pytest.raises(ValueError, match=r"2 frames but times of shape \(1,\)"):
        Video(np.zeros((2, 2, 2, 3), dtype=np.uint8), np.zeros(1), 8.0)
    with pytest.raises(ValueError, match=r"expected uint8 \[T,H,W,3\]"):
        write_video(Path("a.mp4"), np.zeros((2, 2, 2, 4), dtype=np.uint8), 8.0)


# Damage


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Place and size of each packet in the file, in order."""
    with av.open(path) as container:
        return sorted((p.pos, p.size) for p in container.demux(video=0) if p.size)


def cut(share: float) -> Callable[[Path], object]:
    """Keep a share of the file, or of what comes before its last packets."""
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def end_at_a_packet(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: packets_of(path)[20][0]])


def sound_alone(path: Path) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = np.zeros((1, 1024), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


DAMAGED = "the video is damaged or truncated"


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("plain.mp4", Path.unlink, r"there is no such video file\. Check"),
        ("plain.mp4", lambda path: path.write_bytes(b""), f"{DAMAGED}.*cannot be opened"),
        ("plain.mp4", lambda path: path.write_bytes(b"text\n" * 9), f"{DAMAGED}.*cannot be opened"),
        *(("plain.mp4", cut(share), DAMAGED) for share in (0.1, 0.5, 0.9)),
        *(("first.mp4", cut(share), f"{DAMAGED}.*cut off") for share in (0.6, 0.9, 0.999)),
        ("first.mp4", end_at_a_packet, "declares 30 frames but holds 20"),
        ("plain.mp4", sound_alone, "holds no video stream at all"),
        (
            "a.y4m",
            lambda path: path.write_bytes(b"YUV4MPEG2 W16 H16 F8:1 Ip A1:1 C420jpeg\n"),
            r"the video has no frames\. Encode",
        ),
        ("raw.h264", lambda path: None, "carry no presentation times"),
    ],
)
def test_files_that_cannot_be_read_are_told(
    tmp_path: Path,
    smooth: Smooth,
    remux: Remux,
    name: str,
    spoil: Callable[[Path], object],
    message: str,
) -> None:
    write_video(tmp_path / "plain.mp4", smooth(30), 8.0, lossless=name != "raw.h264")
    if name in ("first.mp4", "raw.h264"):  # the former with its header first
        remux(tmp_path / "plain.mp4", tmp_path / name)
    spoil(tmp_path / name)
    for read in (read_video, probe_video):
        with pytest.raises(MatrixError, match=f"{name}: .*{message}"):
            read(tmp_path / name)


def test_damage_inside_a_frame(tmp_path: Path, smooth: Smooth) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, smooth(6), 8.0)
    position, size = packets_of(path)[2]
    raw = bytearray(path.read_bytes())
    raw[position + 4 : position + size] = bytes(size - 4)
    path.write_bytes(raw)
    for read in (read_video, check_video):
        with pytest.raises(MatrixError, match=rf"a\.mp4: {DAMAGED}: decoding failed"):
            read(path)


def test_frames_that_the_decoder_had_to_guess_are_refused(tmp_path: Path, smooth: Smooth) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, smooth(6), 8.0)
    packets, raw = packets_of(path), path.read_bytes()
    caught = 0
    places = np.linspace(packets[1][0] + 20, sum(packets[-1]) - 1, 40).astype(int)
    for place in places:
        damaged = bytearray(raw)
        damaged[place] ^= 0x5A
        path.write_bytes(damaged)
        try:
            read_video(path)
        except MatrixError as error:
            caught += "cannot be decoded" in error.problem
    # Some changed bytes are another valid video; the decoder's own concealment hides the others.
    assert caught >= len(places) // 3


def test_frames_that_change_their_size_are_refused(tmp_path: Path, smooth: Smooth) -> None:
    with av.open(tmp_path / "a.mkv", "w") as file:
        stream: Any = file.add_stream("mjpeg", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for place, height in enumerate((48, 48, 32)):
            raw = BytesIO()
            Image.fromarray(smooth(1, height)[0]).save(raw, "JPEG")
            packet = av.Packet(raw.getvalue())
            packet.stream, packet.pts, packet.dts = stream, place, place
            packet.time_base = Fraction(1, 8)
            file.mux(packet)
    for read in (read_video, check_video):
        with pytest.raises(MatrixError, match="its frames differ in size"):
            read(tmp_path / "a.mkv")
