"""Kinds of video: positions, containers, codecs, limits; and the stream of frames."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
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


Smooth = Callable[..., np.ndarray]
Remux = Callable[..., Path]


SIGNS = [*product((ONE, -ONE), repeat=2)]
POSITIONS = [*((a, 0, 0, d) for a, d in SIGNS), *((0, b, c, 0) for b, c in SIGNS)]


@pytest.mark.parametrize("parts", POSITIONS)
def test_all_eight_positions_are_shown_as_the_container_asks(
    tmp_path: Path, smooth: Smooth, remux: Remux, parts: tuple[int, int, int, int]
) -> None:
    stored = smooth(3, 16, 24)
    write_video(tmp_path / "a.mp4", stored, 8.0, lossless=True)
    path = remux(tmp_path / "a.mp4", tmp_path / "b.mp4", parts)
    a, b, c, d = (part // ONE for part in parts)
    # Each pixel moved by hand to where the matrix puts it.
    moved = {(b * x + d * y, a * x + c * y): stored[:, y, x] for y in range(16) for x in range(24)}
    top, left = min(y for y, _ in moved), min(x for _, x in moved)
    height, width = (16, 24) if a else (24, 16)
    wanted = np.zeros((3, height, width, 3), np.uint8)
    for (y, x), colours in moved.items():
        wanted[:, y - top, x - left] = colours
    info = probe_video(path)
    assert np.array_equal(read_video(path).frames_THWC, wanted)
    assert np.array_equal(first_frame(path), wanted[0])
    assert (info.size, info.turned) == ((height, width), parts != (ONE, 0, 0, ONE))


@pytest.mark.parametrize(
    "parts", [(ONE, ONE // 2, 0, ONE), (2 * ONE, 0, 0, ONE), (46341, 46341, -46341, 46341)]
)
def test_shears_stretches_and_slants_are_refused(
    tmp_path: Path, smooth: Smooth, remux: Remux, parts: tuple[int, ...]
) -> None:
    write_video(tmp_path / "a.mp4", smooth(2, 16, 24), 8.0)
    path = remux(tmp_path / "a.mp4", tmp_path / "b.mp4", parts)
    for read in (probe_video, read_video, first_frame):
        with pytest.raises(MatrixError, match=r"b\.mp4: the container shows the video sheared"):
            read(path)


GREYS = (
    np.full((8, 48, 64, 3), 20, np.uint8) + 25 * np.arange(8, dtype=np.uint8)[:, None, None, None]
)


def encode(
    path: Path,
    codec: str,
    pix_fmt: str,
    shown_THWC: np.ndarray = GREYS,
    *,
    times: Sequence[int] | None = None,
    stored: Sequence[int] | None = None,
    colours: int = 1,
    **options: str,
) -> Path:
    """``times`` of frames, ``stored`` of packets in their order, in eighths (25ths for MPEG) of a
    second; ``colours``: 2 for the full range."""
    with av.open(path, "w") as file:
        stream: Any = file.add_stream(codec, rate=25 if "mpeg2" in codec else 8)
        _, stream.height, stream.width, _ = shown_THWC.shape
        stream.pix_fmt, stream.color_range, stream.options = pix_fmt, colours, options
        packets: list[Any] = []
        for picture, time in zip(shown_THWC, times or range(len(shown_THWC)), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(format=pix_fmt, dst_color_range=colours)
            frame.pts = time
            packets += stream.encode(frame)
        packets += stream.encode()
        for place, packet in enumerate(packets):
            if stored is not None:
                packet.dts, packet.pts = place, stored[place]
            file.mux(packet)
    return path


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
    encode(tmp_path / name, codec, pix_fmt)
    info = probe_video(tmp_path / name)
    assert (info.bits, info.alpha, info.size, info.variable) == (bits, alpha, (48, 64), False)
    assert info.codec in codec.replace("x264", "h264")
    assert any("alpha" in note for note in info.notes) == alpha
    found = read_video(tmp_path / name)
    assert np.abs(found.frames_THWC.astype(int) - GREYS).mean() < 6
    step = 1 / (25 if codec == "mpeg2video" else 8)
    assert np.diff(found.times) == pytest.approx(np.full(7, step), abs=2e-3)
    assert check_video(tmp_path / name).times.tolist() == found.times.tolist()


def test_times_of_a_variable_rate_are_kept(tmp_path: Path) -> None:
    times = (0, 1, 2, 7, 8, 16)
    encode(tmp_path / "a.mkv", "libx264", "yuv420p", GREYS[:6], times=times)
    info = probe_video(tmp_path / "a.mkv")
    assert info.variable
    assert "varying intervals" in info.notes[0]
    assert read_video(tmp_path / "a.mkv").times == pytest.approx(np.array(times) / 8, abs=1e-3)


def test_interlaced_frames_are_told(tmp_path: Path) -> None:
    encode(tmp_path / "a.mkv", "libx264", "yuv420p", **{"x264-params": "interlaced=1"})
    assert probe_video(tmp_path / "a.mkv").notes == (
        "frames are interlaced: two moments share each of them",
    )


def test_frames_stored_out_of_order_are_sorted(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", "ffv1", "bgr0", GREYS[[0, 3, 1, 2]], stored=(2, 5, 3, 4))
    video = read_video(path)
    assert np.array_equal(video.frames_THWC, GREYS[:4])
    assert video.times.tolist() == probe_video(path).times.tolist() == [0.25, 0.375, 0.5, 0.625]


def test_frames_before_the_start_of_an_edit_list_do_not_count(
    tmp_path: Path, smooth: Smooth, remux: Remux
) -> None:
    write_video(tmp_path / "a.mp4", smooth(12), 8.0, lossless=True)
    path = remux(tmp_path / "a.mp4", tmp_path / "b.mp4", early=0.375)
    video = read_video(path)
    assert np.array_equal(video.frames_THWC, smooth(12)[3:])
    assert video.times.tolist() == [k / 8 for k in range(9)]
    assert probe_video(path).times.tolist() == video.times.tolist()


def test_full_range_is_read_as_such(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", "mjpeg", "yuvj420p", colours=2)
    # Grey 195 would be 208 were it taken for limited range.
    assert np.abs(read_video(path).frames_THWC.astype(int) - GREYS).max() <= 4


@pytest.mark.parametrize("film", [True, False])
def test_a_cover_picture_is_no_film(tmp_path: Path, smooth: Smooth, film: bool) -> None:
    write_video(tmp_path / "film.mp4", smooth(4), 8.0)
    path = tmp_path / "a.mp4"
    with av.open(tmp_path / "film.mp4") as old, av.open(path, "w") as new:
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
    if film:
        assert read_video(path).frames_THWC.shape == (4, 48, 64, 3)
    else:
        with pytest.raises(MatrixError, match="no video stream but a cover picture"):
            read_video(path)


@pytest.mark.parametrize("name", ["concat:a.mp4", "b.mp4", "c.m3u8"])
def test_a_file_never_leads_to_another(
    tmp_path: Path, smooth: Smooth, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Neither by a name that is an address, nor by naming others inside."""
    write_video(tmp_path / "a.mp4", smooth(2, 16, 16), 8.0)
    lists = {"b": "ffconcat version 1.0\nfile a.mp4\n", "c": M3U8}
    (tmp_path / name).write_text(lists.get(name[0], "none"))
    monkeypatch.chdir(tmp_path)
    for path in (Path(name), tmp_path / name):
        with pytest.raises(MatrixError, match="it cannot be opened as a video"):
            first_frame(path)


M3U8 = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.mp4\n#EXT-X-ENDLIST\n"


# Limits


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stamps of the frames that were decoded, as they come."""
    stamps: list[int] = []
    real = container.Film.decode

    def decode(self: container.Film, packet: Any) -> Iterator[av.VideoFrame]:
        for frame in real(self, packet):
            stamps.append(frame.pts or 0)
            yield frame

    monkeypatch.setattr(container.Film, "decode", decode)
    return stamps


def test_more_pixels_than_the_limit_are_refused_before_decoding(
    tmp_path: Path, smooth: Smooth, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, smooth(40), 8.0)
    monkeypatch.setattr(video, "MOST_PIXELS", 100_000)
    message = (
        r"40 frames of 48x64 .* more than 100,000 pixels\. Take fewer or smaller.*--num-frames"
    )
    with pytest.raises(MatrixError, match=message):
        read_video(path)
    assert len(decoded) == 1  # the probe's
    info = probe_video(path)
    assert len(ClipTransform(num_frames=4).load(path, info)) == 4
    assert len(ClipTransform(size=(24, 32)).load(path, info)) == 40


def test_headers_of_huge_frames_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.y4m"  # 43 bytes that claim 9,000 x 9,000 pixels
    path.write_bytes(b"YUV4MPEG2 W9000 H9000 F8:1 Ip A1:1 C420jpeg\nFRAME\n" + bytes(99))
    for read in (probe_video, read_video, first_frame, check_video):
        with pytest.raises(MatrixError, match=r"its frames have .* at most 67,108,864 pixels"):
            read(path)


# The stream


LONG = {"g": "12", "bf": "2", "qp": "4"}
"""A key frame every 12, and frames that look both ways between."""
INDICES = {
    "first": [0],
    "last": [95],
    "a window late": list(range(70, 80)),
    "every tenth": list(range(0, 96, 10)),
    "repeats": [3, 3, 4, 4, 4, 50],
    "across a key frame": [11, 12, 13],
    "none": [],
}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_chosen_frames_are_those_of_the_whole(tmp_path: Path, smooth: Smooth, suffix: str) -> None:
    path = encode(tmp_path / f"a{suffix}", "libx264", "yuv420p", smooth(96), **LONG)
    whole = read_video(path).frames_THWC
    assert (np.diff(whole[:12, ..., 2].mean(axis=(1, 2))) > 10).all()
    for kind, indices in INDICES.items():
        assert np.array_equal([*frames(path, indices)], [*whole[indices]]), kind
    for impossible in ([4, 3], [-1], [96]):
        with pytest.raises(ValueError, match="frames"):
            next(frames(path, impossible))


def test_only_what_is_needed_is_decoded(tmp_path: Path, smooth: Smooth, decoded: list[int]) -> None:
    path = encode(tmp_path / "a.mp4", "libx264", "yuv420p", smooth(96), **LONG)
    info = probe_video(path)
    decoded.clear()
    assert first_frame(path).shape == (48, 64, 3)
    assert len(decoded) <= 6  # the probe's, and what the decoder gives with the first
    decoded.clear()
    assert len(list(frames(path, range(84, 90), info))) == 6
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


@pytest.mark.parametrize("use", ["frames", "check", "strip", "first", "window"])
def test_one_frame_wanted_is_one_frame_held(
    tmp_path: Path, sample: Sample, smooth: Smooth, most_alive: Callable[[], int], use: str
) -> None:
    from matrix_video.report.strip import make_strip

    path = tmp_path / "data"
    file = path / sample.file_name
    track = MaskTrack.from_masks(smooth(24)[..., 0] > 100)
    with DatasetWriter(path) as writer:
        writer.add(sample, smooth(24), 8.0, {"id1": track, "id2": track})
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
    with pytest.raises(MatrixError, match="there is no such folder"):
        find_videos(tmp_path / "gone")
    with pytest.raises(MatrixError, match="it holds nothing"):
        find_videos(tmp_path)
    (tmp_path / "notes.txt").write_bytes(b"x")
    (tmp_path / "more").mkdir()
    with pytest.raises(MatrixError, match=r"0 videos .* it holds \.txt, more/\. Give.*\.mov"):
        find_videos(tmp_path)
    for name in ("b.MP4", "a.mov", "c.webm", ".hidden.mp4"):
        (tmp_path / name).write_bytes(b"x")
    videos, others = find_videos(tmp_path)
    assert [p.name for p in videos] == ["a.mov", "b.MP4", "c.webm"]
    assert [p.name for p in others] == ["notes.txt"]
