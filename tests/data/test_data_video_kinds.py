"""Kinds of video: positions, containers, codecs, limits; and the stream of frames."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from matrix_video.data import container, video
from matrix_video.data.check import check_datasets
from matrix_video.data.dataset import Dataset
from matrix_video.data.probe import find_videos
from matrix_video.data.sample import Sample
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.transform import ClipTransform
from matrix_video.data.video import (
    check_video,
    first_frame,
    frames,
    probe_video,
    read_video,
    write_video,
)
from matrix_video.data.writer import DatasetWriter
from matrix_video.services.errors import MatrixError

ONE = 1 << 16


def smooth(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames of which no two are alike, nor any two corners of one; blue tells their order."""
    shown_THWC = np.zeros((count, height, width, 3), np.uint8)
    shown_THWC[..., 0] = np.linspace(0, 200, width)
    shown_THWC[..., 1] = np.linspace(255, 30, height)[:, None]
    shown_THWC[..., 2] = (20 * np.arange(count) % 256)[:, None, None]
    return shown_THWC


def show_by(matrix: tuple[int, ...], source: Path, target: Path) -> None:
    """Copy the packets into a container that asks for this 2x2 display matrix."""
    a, b, c, d = matrix
    with av.open(source) as old, av.open(target, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        stream.set_display_matrix((a, b, 0, c, d, 0, 0, 0, 1 << 30))
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)


SIGNS = [*product((ONE, -ONE), repeat=2)]
POSITIONS = [*((a, 0, 0, d) for a, d in SIGNS), *((0, b, c, 0) for b, c in SIGNS)]


@pytest.mark.parametrize("parts", POSITIONS)
def test_all_eight_positions_are_shown_as_the_container_asks(
    tmp_path: Path, parts: tuple[int, int, int, int]
) -> None:
    stored = smooth(3, 16, 24)
    write_video(tmp_path / "a.mp4", stored, 8.0, lossless=True)
    show_by(parts, tmp_path / "a.mp4", tmp_path / "b.mp4")
    a, b, c, d = (part // ONE for part in parts)
    # Each pixel moved by hand to where the matrix puts it.
    moved = {(b * x + d * y, a * x + c * y): stored[:, y, x] for y in range(16) for x in range(24)}
    top, left = min(y for y, _ in moved), min(x for _, x in moved)
    height, width = (16, 24) if a else (24, 16)
    wanted = np.zeros((3, height, width, 3), np.uint8)
    for (y, x), colours in moved.items():
        wanted[:, y - top, x - left] = colours
    info = probe_video(tmp_path / "b.mp4")
    assert np.array_equal(read_video(tmp_path / "b.mp4").frames_THWC, wanted)
    assert np.array_equal(first_frame(tmp_path / "b.mp4"), wanted[0])
    assert (info.size, info.turned) == ((height, width), parts != (ONE, 0, 0, ONE))


@pytest.mark.parametrize(
    "parts", [(ONE, ONE // 2, 0, ONE), (2 * ONE, 0, 0, ONE), (46341, 46341, -46341, 46341)]
)
def test_shears_stretches_and_slants_are_refused(tmp_path: Path, parts: tuple[int, ...]) -> None:
    write_video(tmp_path / "a.mp4", smooth(2, 16, 24), 8.0)
    show_by(parts, tmp_path / "a.mp4", tmp_path / "b.mp4")
    for read in (probe_video, read_video, first_frame):
        with pytest.raises(MatrixError, match=r"b\.mp4: the container shows the video sheared"):
            read(tmp_path / "b.mp4")


def encode(
    path: Path,
    codec: str,
    pix_fmt: str,
    times: tuple[int, ...] = tuple(range(8)),
    params: str = "",
) -> np.ndarray:
    """A clip whose grey grows by 25 a frame; ``times`` in eighths (25ths for MPEG) of a second."""
    rate = 25 if "mpeg2" in codec else 8
    shown = np.zeros((len(times), 48, 64, 3), np.uint8)
    with av.open(path, "w") as file:
        stream: Any = file.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pix_fmt
        stream.options = {"x264-params": params} if params else {}
        for place, time in enumerate(times):
            shown[place] = 20 + 25 * place
            frame = av.VideoFrame.from_ndarray(shown[place], format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts = time
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return shown


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "bits", "alpha"),
    [
        ("a.mov", "prores_ks", "yuv422p10le", 10, False),
        ("a.MP4", "libx264", "yuv420p10le", 10, False),
        ("a.webm", "libvpx-vp9", "yuv420p", 8, False),
        ("a.webm", "libvpx-vp9", "yuva420p", 8, True),
        ("a.mkv", "ffv1", "yuv420p16le", 16, False),
        ("a.m4v", "mpeg4", "yuv420p", 8, False),
        ("a.avi", "libx264", "yuv420p", 8, False),
        ("a.mpg", "mpeg2video", "yuv420p", 8, False),
        ("a.ts", "libx264", "yuv420p", 8, False),
        ("a.mov", "qtrle", "argb", 8, True),
    ],
)
def test_containers_codecs_and_depths_are_read_in_order(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, bits: int, alpha: bool
) -> None:
    shown = encode(tmp_path / name, codec, pix_fmt)
    info = probe_video(tmp_path / name)
    assert (info.bits, info.alpha, info.size, info.variable) == (bits, alpha, (48, 64), False)
    assert info.codec in codec.replace("x264", "h264")
    assert any("alpha" in note for note in info.notes) == alpha
    found = read_video(tmp_path / name)
    assert np.abs(found.frames_THWC.astype(int) - shown).mean() < 6
    step = 1 / (25 if codec == "mpeg2video" else 8)
    assert np.diff(found.times) == pytest.approx(np.full(7, step), abs=2e-3)
    assert check_video(tmp_path / name).times.tolist() == found.times.tolist()


def test_odd_sizes_and_single_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", smooth(1, 15, 17), 8.0, lossless=True)
    info = probe_video(tmp_path / "a.mp4")
    assert (info.size, len(info.times), info.variable) == ((15, 17), 1, False)
    assert np.array_equal(first_frame(tmp_path / "a.mp4"), smooth(1, 15, 17)[0])


def test_times_of_a_variable_rate_are_kept(tmp_path: Path) -> None:
    times = (0, 1, 2, 7, 8, 16)
    encode(tmp_path / "a.mkv", "libx264", "yuv420p", times)
    info = probe_video(tmp_path / "a.mkv")
    assert info.variable
    assert "varying intervals" in info.notes[0]
    assert read_video(tmp_path / "a.mkv").times == pytest.approx(np.array(times) / 8, abs=1e-3)


def test_interlaced_frames_are_told(tmp_path: Path) -> None:
    encode(tmp_path / "a.mkv", "libx264", "yuv420p", params="interlaced=1")
    assert probe_video(tmp_path / "a.mkv").notes == (
        "frames are interlaced: two moments share each of them",
    )


def with_cover(path: Path, film: bool) -> None:
    """A file whose first stream is a cover picture."""
    write_video(path.with_name("film.mp4"), smooth(4), 8.0)
    with av.open(path.with_name("film.mp4")) as old, av.open(path, "w") as new:
        cover: Any = new.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        stream = new.add_stream_from_template(old.streams.video[0]) if film else None
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        new.mux(cover.encode(picture.reformat(format="yuvj420p")))
        new.mux(cover.encode())
        for packet in old.demux(video=0):
            if stream is not None and packet.dts is not None:
                packet.stream = stream
                new.mux(packet)


def test_a_cover_picture_is_no_film(tmp_path: Path) -> None:
    with_cover(tmp_path / "a.mp4", film=True)
    assert read_video(tmp_path / "a.mp4").frames_THWC.shape == (4, 48, 64, 3)
    with_cover(tmp_path / "b.mp4", film=False)
    with pytest.raises(MatrixError, match="no video stream but a cover picture"):
        read_video(tmp_path / "b.mp4")


# Limits


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stamps of the frames that were decoded, as they come."""
    stamps: list[int] = []
    real = container.Film.decode

    def decode(self: container.Film, packet: Any, done: int) -> Iterator[av.VideoFrame]:
        for frame in real(self, packet, done):
            stamps.append(frame.pts or 0)
            yield frame

    monkeypatch.setattr(container.Film, "decode", decode)
    return stamps


def test_more_pixels_than_the_limit_are_refused_before_decoding(
    tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "a.mp4", smooth(40), 8.0)
    message = (
        r"40 frames of 48x64 .* more than 100,000 pixels\. Take fewer or smaller.*--num-frames"
    )
    with pytest.raises(MatrixError, match=message):
        read_video(tmp_path / "a.mp4", most_pixels=100_000)
    assert len(decoded) == 1  # the probe's
    monkeypatch.setattr(video, "MOST_PIXELS", 100_000)
    assert len(ClipTransform(num_frames=4).load(tmp_path / "a.mp4")) == 4
    assert len(ClipTransform(size=(24, 32)).load(tmp_path / "a.mp4")) == 40


@pytest.mark.parametrize("limit", [1 << 10, 1 << 26])
def test_headers_of_huge_frames_are_refused(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "MOST_FRAME_PIXELS", limit)
    if limit == 1 << 10:
        write_video(tmp_path / "a.mkv.mp4", smooth(2), 8.0)
        path = tmp_path / "a.mkv.mp4"
    else:  # a stream of 43 bytes that claims 9,000 x 9,000 pixels
        path = tmp_path / "a.y4m"
        path.write_bytes(b"YUV4MPEG2 W9000 H9000 F8:1 Ip A1:1 C420jpeg\nFRAME\n" + bytes(99))
    for read in (probe_video, read_video, first_frame, check_video):
        with pytest.raises(MatrixError, match=rf"its frames have .* at most {limit:,} pixels"):
            read(path)


# The stream


def long_video(path: Path) -> np.ndarray:
    """96 frames with a key frame every 12 and frames that look both ways between."""
    shown = smooth(96)
    with av.open(path, "w") as file:
        stream: Any = file.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.options = {"g": "12", "bf": "2", "qp": "4"}
        for picture in shown:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    return shown


INDICES = {
    "first": [0],
    "last": [95],
    "a window late": list(range(70, 80)),
    "every tenth": list(range(0, 96, 10)),
    "repeats": [3, 3, 4, 4, 4, 50],
    "across a key frame": [11, 12, 13],
    "none": [],
}


@pytest.mark.parametrize("kind", INDICES)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_chosen_frames_are_those_of_the_whole(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    long_video(path)
    whole = read_video(path).frames_THWC
    assert (np.diff(whole[:12, ..., 2].mean(axis=(1, 2))) > 10).all()
    found = list(frames(path, INDICES[kind]))
    assert len(found) == len(INDICES[kind])
    for picture, index in zip(found, INDICES[kind], strict=True):
        assert np.array_equal(picture, whole[index])


@pytest.mark.parametrize("indices", [[4, 3], [-1], [96]])
def test_impossible_frames_are_refused(tmp_path: Path, indices: list[int]) -> None:
    long_video(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="frames"):
        next(frames(tmp_path / "a.mp4", indices))


def test_only_what_is_needed_is_decoded(tmp_path: Path, decoded: list[int]) -> None:
    long_video(tmp_path / "a.mp4")
    info = probe_video(tmp_path / "a.mp4")
    decoded.clear()
    assert first_frame(tmp_path / "a.mp4").shape == (48, 64, 3)
    assert len(decoded) == 1
    decoded.clear()
    assert len(list(frames(tmp_path / "a.mp4", range(84, 90), info))) == 6
    assert len(decoded) <= 16  # of 96: from the key frame on, and what the decoder looks ahead


@pytest.fixture
def most_alive(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The most pictures that were alive at once, counted whenever one is made."""
    alive: list[weakref.ref[Any]] = []
    most = [0]
    real = video.picture

    class Counted(np.ndarray):
        pass

    def picture(frame: av.VideoFrame, path: Path) -> np.ndarray:
        found = real(frame, path).view(Counted)
        alive.append(weakref.ref(found))
        gc.collect()
        most[0] = max(most[0], sum(one() is not None for one in alive))
        return found

    monkeypatch.setattr(video, "picture", picture)
    return lambda: most[0]


def in_data_set(folder: Path, sample: Sample, num_frames: int = 24) -> Path:
    masks_THW = np.zeros((num_frames, 48, 64), bool)
    masks_THW[:, 4:20, 4:20] = True
    with DatasetWriter(folder) as writer:
        track = {name: MaskTrack.from_masks(masks_THW) for name in ("id1", "id2")}
        writer.add(sample, smooth(num_frames), 8.0, track)
    return folder


@pytest.mark.parametrize("use", ["frames", "check", "strip", "first", "window"])
def test_one_frame_wanted_is_one_frame_held(
    tmp_path: Path, sample: Sample, most_alive: Callable[[], int], use: str
) -> None:
    from matrix_video.report.strip import make_strip

    path = in_data_set(tmp_path / "data", sample)
    file = path / sample.file_name
    data = Dataset(path, ClipTransform(fps=4, num_frames=8, size=(24, 32)))
    match use:
        case "frames":
            assert sum(1 for _ in frames(file)) == 24
        case "check":
            assert check_datasets([path]).ok
        case "strip":
            assert make_strip(file, tmp_path / "assets").frames == 24
        case "first":
            assert np.array_equal(data.first_frame(0), data.video(0).frames_THWC[0])
        case _:
            assert data[0].video.frames_THWC.shape == (8, 24, 32, 3)
    assert most_alive() <= 2  # the one in use, and the one that takes its place


# Folders


def test_every_video_of_a_folder_is_found_and_the_rest_named(tmp_path: Path) -> None:
    for name in ("b.MP4", "a.mov", "c.webm", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).write_bytes(b"x")
    videos, others = find_videos(tmp_path)
    assert [p.name for p in videos] == ["a.mov", "b.MP4", "c.webm"]
    assert [p.name for p in others] == ["notes.txt"]


@pytest.mark.parametrize(
    ("names", "message"),
    [((), "it holds nothing"), (("a.txt", "b.flac"), r"it holds \.flac, \.txt\. Give.*\.mov")],
)
def test_no_video_is_an_error(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(MatrixError, match=message):
        find_videos(tmp_path)
    with pytest.raises(MatrixError, match="there is no such folder"):
        find_videos(tmp_path / "gone")
