from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from matrix_video.data.video import Video, VideoInfo, probe_video, read_video, write_video
from matrix_video.services.errors import MatrixError

Reader = Callable[[Path], Video | VideoInfo]
readers = pytest.mark.parametrize("read", [read_video, probe_video])


def smooth(count: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    """A coloured ramp that moves: every frame differs, chroma varies slowly."""
    frames_THWC = np.zeros((count, height, width, 3), dtype=np.uint8)
    for t in range(count):
        frames_THWC[t, ..., 0] = np.linspace(0, 150, width) + 3 * t
        frames_THWC[t, ..., 1] = np.linspace(255, 30, height)[:, None]
        frames_THWC[t, ..., 2] = (20 * t) % 256
    return frames_THWC


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
    assert (info.height, info.width) == video.size == frames_THWC.shape[1:3]
    assert info.fps == video.fps


def test_lossy_is_close_in_colour_and_time(tmp_path: Path) -> None:
    frames_THWC = smooth()
    write_video(tmp_path / "a.mp4", frames_THWC, 8.0)
    video = read_video(tmp_path / "a.mp4")
    error = video.frames_THWC.astype(int) - frames_THWC
    # A wrong matrix or range (601 for 709, 16-235 for 0-255) shifts means by 5 and more.
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 1.5
    assert np.abs(error).mean() < 3
    assert video.times.tolist() == [k / 8 for k in range(12)]
    with av.open(tmp_path / "a.mp4") as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.pix_fmt == "yuv420p"
        assert (stream.colorspace, stream.color_range) == (1, 1)


def test_frames_come_by_presentation_time(tmp_path: Path) -> None:
    frames_THWC = smooth()
    write_video(tmp_path / "a.mp4", frames_THWC, 8.0)
    with av.open(tmp_path / "a.mp4") as container:
        stored = [p.pts for p in container.demux(video=0) if p.pts is not None]
    assert stored != sorted(stored), "the clip must hold B-frames for this test to mean anything"
    for times in (read_video(tmp_path / "a.mp4").times, probe_video(tmp_path / "a.mp4").times):
        assert times.tolist() == sorted(times.tolist())
    blue = read_video(tmp_path / "a.mp4").frames_THWC[..., 2].mean(axis=(1, 2))
    assert (np.diff(blue) > 10).all()


@pytest.mark.parametrize("lossless", [False, True])
def test_equal_frames_give_equal_files(tmp_path: Path, lossless: bool) -> None:
    found: set[bytes] = set()
    for _ in range(30):
        write_video(tmp_path / "a.mp4", smooth(), 8.0, lossless=lossless)
        found.add((tmp_path / "a.mp4").read_bytes())
    assert len(found) == 1
    # How often files differ with these two on depends on the frames and the processor: x264 notes
    # its settings in the file.
    raw = found.pop()
    assert b" mbtree=0 " in raw
    assert b" threads=1 " in raw


def copy_video(source: Path, target: Path) -> None:
    """The packets of one file in another container, with its header first."""
    options = {"movflags": "faststart"} if target.suffix == ".mp4" else {}
    with av.open(source) as old, av.open(target, "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)


def test_other_containers_are_read(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", smooth(5), 8.0, lossless=True)
    copy_video(tmp_path / "a.mp4", tmp_path / "b.mkv")
    assert np.array_equal(read_video(tmp_path / "b.mkv").frames_THWC, smooth(5))
    assert probe_video(tmp_path / "b.mkv").times == pytest.approx(np.arange(5) / 8, abs=1e-3)


def test_frames_stored_out_of_order_are_sorted(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "bgr0"
        packets = []
        for value in (0, 30, 10, 20):
            grey = np.full((16, 16, 3), value, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            packets += stream.encode(frame.reformat(format="bgr0"))
        packets += stream.encode()
        for place, (packet, shown) in enumerate(zip(packets, (2, 5, 3, 4), strict=True)):
            packet.dts, packet.pts = place, shown
            container.mux(packet)
    video = read_video(path)
    assert video.frames_THWC[:, 0, 0, 0].tolist() == [0, 10, 20, 30]
    assert video.times.tolist() == probe_video(path).times.tolist() == [0.25, 0.375, 0.5, 0.625]


def test_frames_before_the_start_of_an_edit_list_do_not_count(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", smooth(12), 8.0, lossless=True)
    with av.open(tmp_path / "a.mp4") as old, av.open(tmp_path / "b.mp4", "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None and packet.pts is not None:
                early = round(0.375 / packet.time_base)
                packet.pts, packet.dts, packet.stream = (
                    packet.pts - early,
                    packet.dts - early,
                    stream,
                )
                new.mux(packet)
    video = read_video(tmp_path / "b.mp4")
    assert np.array_equal(video.frames_THWC, smooth(12)[3:])
    assert video.times.tolist() == [k / 8 for k in range(9)]
    assert probe_video(tmp_path / "b.mp4").times.tolist() == video.times.tolist()


def test_full_range_is_read_as_such(tmp_path: Path) -> None:
    grey = np.full((16, 16, 3), 200, dtype=np.uint8)  # 214 were it taken for limited range
    with av.open(tmp_path / "a.mkv", "w") as container:
        stream = container.add_stream("mjpeg", rate=8)
        stream.width, stream.height, stream.pix_fmt, stream.color_range = 16, 16, "yuvj420p", 2
        frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
        container.mux(stream.encode(frame.reformat(format="yuvj420p", dst_color_range=2)))
        container.mux(stream.encode())
    assert np.abs(read_video(tmp_path / "a.mkv").frames_THWC[0].astype(int) - grey).max() <= 4


@readers
def test_missing_file(tmp_path: Path, read: Reader) -> None:
    with pytest.raises(MatrixError, match=r"gone\.mp4: there is no such video file\. Check"):
        read(tmp_path / "gone.mp4")


@readers
@pytest.mark.parametrize("content", [b"", b"not a video, just text\n" * 9])
def test_no_video_at_all(tmp_path: Path, read: Reader, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(MatrixError, match=r"a\.mp4: the video is damaged.*cannot be opened"):
        read(tmp_path / "a.mp4")


@readers
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_file(tmp_path: Path, read: Reader, share: float) -> None:
    write_video(tmp_path / "a.mp4", smooth(30), 8.0, lossless=True)
    raw = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(MatrixError, match=r"a\.mp4: the video is damaged or truncated"):
        read(tmp_path / "a.mp4")


@readers
@pytest.mark.parametrize("share", [0.6, 0.9, 0.999])
def test_truncated_file_whose_header_survives(tmp_path: Path, read: Reader, share: float) -> None:
    write_video(tmp_path / "a.mp4", smooth(30), 8.0, lossless=True)
    copy_video(tmp_path / "a.mp4", tmp_path / "b.mp4")
    raw = (tmp_path / "b.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(MatrixError, match=r"b\.mp4: the video is damaged or truncated.*cut off"):
        read(tmp_path / "b.mp4")


@readers
def test_fewer_frames_than_declared(tmp_path: Path, read: Reader) -> None:
    write_video(tmp_path / "a.mp4", smooth(30), 8.0, lossless=True)
    copy_video(tmp_path / "a.mp4", tmp_path / "b.mp4")
    raw = (tmp_path / "b.mp4").read_bytes()
    with av.open(tmp_path / "b.mp4") as container:
        starts = sorted(p.pos for p in container.demux(video=0) if p.size)
    (tmp_path / "b.mp4").write_bytes(raw[: starts[20]])  # ends where a packet ends
    with pytest.raises(MatrixError, match="declares 30 frames but holds 20"):
        read(tmp_path / "b.mp4")


def test_damage_inside_a_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", smooth(6), 8.0)
    with av.open(tmp_path / "a.mp4") as container:
        third = [p for p in container.demux(video=0) if p.size][2]
        position, size = third.pos, third.size
    assert position is not None
    raw = bytearray((tmp_path / "a.mp4").read_bytes())
    raw[position + 4 : position + size] = bytes(size - 4)
    (tmp_path / "a.mp4").write_bytes(raw)
    with pytest.raises(MatrixError, match=r"a\.mp4: the video is damaged.*decoding failed after"):
        read_video(tmp_path / "a.mp4")


def test_frames_that_the_decoder_had_to_guess_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, smooth(6), 8.0)
    with av.open(path) as container:
        packets = sorted((p.pos, p.size) for p in container.demux(video=0) if p.size)
    raw = path.read_bytes()
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


@readers
def test_sound_alone(tmp_path: Path, read: Reader) -> None:
    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(MatrixError, match="holds no video stream"):
        read(tmp_path / "a.mp4")


@readers
def test_no_frames(tmp_path: Path, read: Reader) -> None:
    (tmp_path / "a.y4m").write_bytes(b"YUV4MPEG2 W16 H16 F8:1 Ip A1:1 C420jpeg\n")
    with pytest.raises(MatrixError, match=r"a\.y4m: the video has no frames\. Encode"):
        read(tmp_path / "a.y4m")


@readers
def test_frames_without_times(tmp_path: Path, read: Reader) -> None:
    write_video(tmp_path / "a.mp4", smooth(6), 8.0)
    copy_video(tmp_path / "a.mp4", tmp_path / "a.h264")
    with pytest.raises(MatrixError, match="carry no presentation times"):
        read(tmp_path / "a.h264")


@pytest.mark.parametrize(
    ("name", "shape", "fps", "lossless", "message"),
    [
        ("a.mp4", (2, 15, 16, 3), 8.0, False, "needs even sizes, got 15x16 .* write losslessly"),
        ("a.mp4", (2, 16, 15, 3), 8.0, False, "needs even sizes, got 16x15"),
        ("a.mp4", (0, 16, 16, 3), 8.0, True, "cannot write a video of 0 frames of 16x16"),
        ("a.mp4", (2, 16, 16, 3), 0.0, True, "0.0 is not a frame rate"),
        ("a.mp4", (2, 16, 16, 3), float("nan"), True, "nan is not a frame rate"),
        ("a.avi", (2, 16, 16, 3), 8.0, True, r"a\.avi: cannot write the format \.avi"),
    ],
)
def test_refused_videos_leave_no_file(
    tmp_path: Path,
    name: str,
    shape: tuple[int, ...],
    fps: float,
    lossless: bool,
    message: str,
) -> None:
    with pytest.raises(MatrixError, match=message):
        write_video(tmp_path / name, np.zeros(shape, dtype=np.uint8), fps, lossless=lossless)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lossless", [False, True])
def test_failed_write_keeps_the_old_file(tmp_path: Path, lossless: bool) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, smooth(2), 8.0)
    before = path.read_bytes()
    wide = np.zeros((1, 2, 16400, 3), dtype=np.uint8)  # H.264 ends at 16384
    with pytest.raises(MatrixError, match=r"a\.mp4: frames of 2x16400 cannot be encoded"):
        write_video(path, wide, 8.0, lossless=lossless)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_video_checks_its_parts() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \[T,H,W,3\], got float64"):
        Video(np.zeros((1, 2, 2, 3)), np.zeros(1), 8.0)
    with pytest.raises(ValueError, match=r"2 frames but times of shape \(1,\)"):
        Video(np.zeros((2, 2, 2, 3), dtype=np.uint8), np.zeros(1), 8.0)
    with pytest.raises(ValueError, match=r"expected uint8 \[T,H,W,3\]"):
        write_video(Path("a.mp4"), np.zeros((2, 2, 2, 4), dtype=np.uint8), 8.0)
