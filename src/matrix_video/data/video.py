"""Video files in and out, through PyAV: as a stream of frames, or whole.

Shapes: T frames, H rows, W columns, C = 3 colour channels (RGB).
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Final, cast

import av
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from matrix_video.data.clip import Video
from matrix_video.data.container import EXACT, Film, damaged, open_film, picture
from matrix_video.data.probe import VideoInfo, probe_video
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import atomic_path

__all__ = [
    "Video",
    "VideoInfo",
    "check_held",
    "check_video",
    "first_frame",
    "frames",
    "probe_video",
    "read_video",
    "write_video",
]

MOST_PIXELS: Final = 1 << 29
"""Pixels of all frames that are held at once (1.6 GB of RGB, our choice): 81 frames of 2160 x 3072,
or 22 minutes of 480 x 832 at one frame a second."""
_BT709 = 1  # AVCOL_SPC_BT709, AVCOL_PRI_BT709 and AVCOL_TRC_BT709 share this number
_LOOK_AHEAD = 32  # packets; reordering inside a stream spans at most 16 frames


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
    for refused, problem, remedy in (
        (
            frames_THWC.size == 0,
            f"cannot write a video of {count} frames of {height}x{width}",
            "Give at least one frame of at least one pixel",
        ),
        (
            not np.isfinite(fps) or fps < 1e-5,
            f"{fps} is not a frame rate",
            "Give frames per second above 0",
        ),
        (
            path.suffix != ".mp4",
            f"cannot write the format {path.suffix or '(no suffix)'}",
            "Name the file .mp4",
        ),
        (
            not lossless and (height % 2 or width % 2),
            f"H.264 yuv420p needs even sizes, got {height}x{width} (height x width)",
            "Crop or resize to even sizes with a clip transform, or write losslessly",
        ),
    ):
        if refused:
            raise MatrixError(problem, remedy=remedy, file=path)
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
                interpolation=EXACT,
                threads=1,
            )
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def frames(
    path: Path, indices: Sequence[int] | None = None, info: VideoInfo | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Frames uint8 [H,W,3] in order of presentation, as the container turns them, one at a time.

    ``indices``: those alone, ascending, repeats allowed; decoding begins at the key frame before
    the first and ends with the last. ``info``: of this file, where it is known already.
    Raises ``MatrixError`` as ``read_video`` does; ``ValueError`` for indices out of order or range.
    """
    info = probe_video(path) if info is None else info
    wanted = list(range(len(info.times)) if indices is None else indices)
    if any(later < earlier for earlier, later in pairwise(wanted)):
        raise ValueError("frames are read in ascending order")
    if wanted and not 0 <= wanted[0] <= wanted[-1] < len(info.times):
        raise ValueError(f"frames {wanted[0]} to {wanted[-1]} of {len(info.times)}")
    repeats = Counter(wanted)
    with closing(_decoded(path, info, wanted)) as decoded:
        for index, frame in decoded:
            picture_HWC = picture(frame, path)
            for _ in range(repeats[index]):
                yield picture_HWC


def _decoded(
    path: Path, info: VideoInfo, wanted: Sequence[int]
) -> Generator[tuple[int, av.VideoFrame]]:
    """The wanted frames, in order of presentation, each once, with their indices."""
    left = deque(dict.fromkeys(wanted))
    shape: tuple[int, int] | None = None
    earlier = [stamp for stamp in info.stamps[: left[0] + 1] if stamp in info.keys] if left else []
    # Then from the beginning: what a jump did not find, where the decoder needs what came before.
    for start in (*(stamp for stamp in earlier[-1:] if stamp != info.stamps[0]), None):
        if not left:
            return
        with open_film(path) as film:
            for index, frame in _shown(film, info, left, start):
                left.popleft()
                if shape is not None and (frame.height, frame.width) != shape:
                    raise damaged(path, "its frames differ in size")
                shape = frame.height, frame.width
                yield index, frame
    if left:
        raise damaged(path, f"frame {left[0]} of {len(info.times)} cannot be decoded")


def _shown(
    film: Film, info: VideoInfo, wanted: Iterable[int], start: int | None
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Wanted frames in order, for as long as none is missing; held only until their turn comes."""
    places: defaultdict[int, deque[int]] = defaultdict(deque)
    for index, stamp in enumerate(info.stamps):
        places[stamp].append(index)
    turn = deque(wanted)
    asked, waiting = set(turn), dict[int, av.VideoFrame]()
    if start is not None and not film.stamped:
        return
    done = 0
    for count, packet in enumerate(film.packets(start)):
        if start is not None and not count and packet.pts != start:
            return  # the container went elsewhere
        for frame in film.decode(packet):
            place = places[cast(int, frame.pts)] if film.stamped else deque((done,))
            done += 1
            if not place:
                continue
            index = place.popleft()
            if index not in asked:
                continue
            if frame.is_corrupt:
                if start is not None:
                    return
                raise damaged(film.path, f"frame {index} cannot be decoded")
            waiting[index] = frame
            while turn and turn[0] in waiting:
                yield turn[0], waiting.pop(turn[0])
                turn.popleft()
            if not turn:
                return


def first_frame(path: Path) -> NDArray[np.uint8]:
    """The frame uint8 [H,W,3] that is shown first; no other is held."""
    return next(frames(path, (0,)))


def read_video(path: Path) -> Video:
    """Decode every frame in order of presentation, turned as the container asks.

    Raises ``MatrixError`` naming the file when it is missing, is no video, has no frame, is
    damaged, holds fewer frames than its container declares, or more than ``MOST_PIXELS`` in all,
    which its header tells before anything is decoded.
    """
    info = probe_video(path)
    check_held(len(info.times), info.size, path)
    frames_THWC = np.empty((len(info.times), *info.size, 3), dtype=np.uint8)
    for index, frame_HWC in enumerate(frames(path, info=info)):
        frames_THWC[index] = frame_HWC
    return Video(frames_THWC, info.times, info.fps)


def check_video(path: Path) -> VideoInfo:
    """Decode all of it, one frame at a time; raises ``MatrixError`` for every kind of damage."""
    info = probe_video(path)
    for _ in _decoded(path, info, range(len(info.times))):
        pass
    return info


def check_held(num_frames: int, size: tuple[int, int], path: Path) -> None:
    """``MatrixError`` where so many frames of ``size`` (H, W) would not fit the limit."""
    if num_frames * size[0] * size[1] > MOST_PIXELS:
        raise MatrixError(
            f"{num_frames} frames of {size[0]}x{size[1]} (height x width) would be held at once, "
            f"more than {MOST_PIXELS:,} pixels",
            remedy="Take fewer or smaller frames (--num-frames, --fps, --height and --width), or "
            "cut the video into clips",
            file=path,
        )
