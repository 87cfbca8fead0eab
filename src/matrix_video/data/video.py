"""Video files in and out, through PyAV.

Shapes: T frames, H rows, W columns, C = 3 colour channels (RGB).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from matrix_video.services.errors import MatrixError
from matrix_video.services.files import atomic_path

_BT709 = 1  # AVCOL_SPC_BT709, AVCOL_PRI_BT709 and AVCOL_TRC_BT709 share this number
_EXACT = (
    Interpolation.BILINEAR
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT  # the same pixels on every machine
)
_SMALL = 1 << 24
"""Pixels of a clip below which spawning decoder threads costs more than they save."""


@dataclass(frozen=True, eq=False)
class Video:
    """Frames uint8 [T,H,W,3] RGB with their presentation times float64 [T] in seconds.

    ``fps`` is the container's average rate; ``times`` is what counts.
    """

    frames_THWC: NDArray[np.uint8]
    times: NDArray[np.float64]
    fps: float

    def __post_init__(self) -> None:
        shape = self.frames_THWC.shape
        if len(shape) != 4 or shape[3] != 3 or self.frames_THWC.dtype != np.uint8:
            raise ValueError(f"expected uint8 [T,H,W,3], got {self.frames_THWC.dtype} {shape}")
        if self.times.shape != shape[:1]:
            raise ValueError(f"{shape[0]} frames but times of shape {self.times.shape}")

    def __len__(self) -> int:
        return len(self.times)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.frames_THWC.shape[1], self.frames_THWC.shape[2]


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """What a container says without decoding: display size, times float64 [T] seconds, rate."""

    height: int
    width: int
    times: NDArray[np.float64]
    fps: float


def write_video(
    path: Path, frames_THWC: NDArray[np.uint8], fps: float, *, lossless: bool = False
) -> None:
    """Write an MP4 atomically: frame k is shown at k / fps seconds.

    ``lossless`` stores RGB exactly (x264 ``qp 0``, any size); otherwise H.264 ``yuv420p`` at
    ``crf 18``, BT.709, which every browser plays and which needs even sizes. Encoding uses one
    thread, so that the bytes do not depend on the number of cores.

    Raises ``MatrixError`` for an odd size (lossy), no frames, or a suffix other than ``.mp4``;
    ``ValueError`` for another dtype or shape.
    """
    if frames_THWC.ndim != 4 or frames_THWC.shape[3] != 3 or frames_THWC.dtype != np.uint8:
        raise ValueError(f"expected uint8 [T,H,W,3], got {frames_THWC.dtype} {frames_THWC.shape}")
    count, height, width, _ = frames_THWC.shape
    if count == 0 or height == 0 or width == 0:
        raise MatrixError(
            f"cannot write a video of {count} frames of {height}x{width}",
            remedy="Give at least one frame of at least one pixel",
            file=path,
        )
    if not np.isfinite(fps) or fps < 1e-5:
        raise MatrixError(
            f"{fps} is not a frame rate", remedy="Give frames per second above 0", file=path
        )
    if path.suffix != ".mp4":
        raise MatrixError(
            f"cannot write the format {path.suffix or '(no suffix)'}",
            remedy="Name the file .mp4",
            file=path,
        )
    if not lossless and (height % 2 or width % 2):
        raise MatrixError(
            f"H.264 yuv420p needs even sizes, got {height}x{width} (height x width)",
            remedy="Crop or resize to even sizes with a clip transform, or write losslessly",
            file=path,
        )
    rate = Fraction(fps).limit_denominator(100_000)  # holds 24000/1001 and its relatives exactly
    with atomic_path(path) as temporary:
        try:
            with av.open(temporary, "w", format="mp4") as container:
                _encode(container, frames_THWC, rate, lossless)
        except OSError:
            raise  # a full disk and its like, told by the atomic path
        except FFmpegError as error:
            raise MatrixError(
                f"frames of {height}x{width} cannot be encoded as H.264 ({error.strerror})",
                remedy="Use a smaller size",
                file=path,
            ) from error


def _encode(
    container: OutputContainer, frames_THWC: NDArray[np.uint8], rate: Fraction, lossless: bool
) -> None:
    stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=rate)
    _, stream.height, stream.width, _ = frames_THWC.shape
    stream.thread_count = 1
    if lossless:
        stream.pix_fmt = "rgb24"
        stream.options = {"qp": "0", "preset": "faster"}
    else:
        stream.pix_fmt = "yuv420p"
        # Without macroblock trees: x264's vector code for them is not repeatable from call to
        # call (seen with core 165 on AVX-512), and equal frames must give equal files.
        stream.options = {"crf": "18", "preset": "medium", "x264-params": "mbtree=0"}
        stream.colorspace = stream.color_primaries = stream.color_trc = _BT709
        stream.color_range = ColorRange.MPEG
    for frame_HWC in frames_THWC:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
        if not lossless:
            frame = frame.reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=_EXACT,
                threads=1,
            )
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def read_video(path: Path) -> Video:
    """Decode every frame in order of presentation, rotated as the container asks.

    Raises ``MatrixError`` naming the file when it is missing, is no video, has no frame, is
    damaged, or holds fewer frames than its container declares.
    """
    with _open(path) as container:
        stream = _video_stream(container, path)
        pixels = stream.frames * stream.height * stream.width
        stream.thread_count = 1 if 0 < pixels < _SMALL else 0
        base = _time_base(stream, path)
        frames: list[NDArray[np.uint8]] = []
        pts: list[int] = []
        discarded = 0
        try:
            for index, packet in enumerate(container.demux(stream)):
                if packet.is_corrupt:
                    raise _damaged(path, f"packet {index} is cut off")
                discarded += packet.is_discard  # before the start that an edit list sets
                for frame in stream.decode(packet):
                    if frame.is_corrupt:
                        raise _damaged(path, f"frame {len(frames)} cannot be decoded")
                    if frame.pts is None:
                        raise _timeless(path)
                    pts.append(frame.pts)
                    frames.append(_rgb(frame))
        except FFmpegError as error:
            raise _damaged(
                path, f"decoding failed after {len(frames)} frames ({error.strerror})"
            ) from error
        if not frames:
            raise _empty(path)
        _check_count(path, stream, len(frames) + discarded)
        order = np.argsort(pts, kind="stable")
        times = np.array([float(pts[i] * base) for i in order], dtype=np.float64)
        if any(frame.shape != frames[0].shape for frame in frames):
            raise _damaged(path, "its frames differ in size")
        return Video(np.stack([frames[i] for i in order]), times, _rate(stream, times))


def probe_video(path: Path) -> VideoInfo:
    """Size, presentation times and rate, from the packets and the first frame alone.

    Raises ``MatrixError`` as ``read_video`` does, but cannot see damage inside later frames.
    """
    with _open(path) as container:
        stream = _video_stream(container, path)
        stream.thread_count = 1
        base = _time_base(stream, path)
        pts: list[int] = []
        discarded = 0
        first: av.VideoFrame | None = None
        try:
            for index, packet in enumerate(container.demux(stream)):
                if packet.is_corrupt:
                    raise _damaged(path, f"packet {index} is cut off")
                if first is None:  # the one frame that tells size and rotation
                    first = next(iter(stream.decode(packet)), None)
                if packet.size == 0:  # the flush packet that ends every stream
                    continue
                if packet.is_discard:
                    discarded += 1
                elif packet.pts is None:
                    raise _timeless(path)
                else:
                    pts.append(packet.pts)
        except FFmpegError as error:
            raise _damaged(
                path, f"reading failed after {len(pts)} frames ({error.strerror})"
            ) from error
        if not pts or first is None:
            raise _empty(path)
        _check_count(path, stream, len(pts) + discarded)
        times = np.array([float(p * base) for p in sorted(pts)], dtype=np.float64)
        height, width = _rgb(first).shape[:2]
        return VideoInfo(height, width, times, _rate(stream, times))


def _open(path: Path) -> InputContainer:
    if not path.is_file():
        raise MatrixError(
            "there is no such video file", remedy="Check the path or restore the file", file=path
        )
    try:
        return av.open(path, "r")
    except FFmpegError as error:
        raise _damaged(path, f"it cannot be opened as a video ({error.strerror})") from error


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    if not container.streams.video:
        raise MatrixError(
            "the file holds no video stream", remedy="Give a file with a video stream", file=path
        )
    return container.streams.video[0]


def _time_base(stream: VideoStream, path: Path) -> Fraction:
    if stream.time_base is None:
        raise _timeless(path)
    return stream.time_base


def _rgb(frame: av.VideoFrame) -> NDArray[np.uint8]:
    array = frame.to_ndarray(format="rgb24", interpolation=_EXACT, threads=1)
    return cast("NDArray[np.uint8]", np.rot90(array, frame.rotation // 90))


def _rate(stream: VideoStream, times: Sequence[float] | NDArray[np.float64]) -> float:
    if stream.average_rate:
        return float(stream.average_rate)
    span = times[-1] - times[0]
    return float((len(times) - 1) / span) if span > 0 else 1.0


def _check_count(path: Path, stream: VideoStream, found: int) -> None:
    if found < stream.frames:
        raise _damaged(path, f"its container declares {stream.frames} frames but holds {found}")


def _damaged(path: Path, what: str) -> MatrixError:
    return MatrixError(
        f"the video is damaged or truncated: {what}",
        remedy="Copy or encode the file again, or remove its sample from the data set",
        file=path,
    )


def _empty(path: Path) -> MatrixError:
    return MatrixError(
        "the video has no frames",
        remedy="Encode the file again, or remove its sample from the data set",
        file=path,
    )


def _timeless(path: Path) -> MatrixError:
    return MatrixError(
        "the video's frames carry no presentation times",
        remedy="Put the stream into a container that has them, such as MP4",
        file=path,
    )
