"""Inside a video file: its film, the time and the way up of every frame, and its faults.

Shapes: H rows, W columns, C = 3 colour channels (RGB).
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Final, cast

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from matrix_video.services.errors import MatrixError

MOST_FRAME_PIXELS: Final = 1 << 26
"""Pixels of a frame (8192 x 8192) above which none is decoded: a header of a few bytes may claim
any size, and the decoder would ask for its memory at once."""
EXACT: Final = (
    Interpolation.BILINEAR
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT  # the same pixels on every machine
)
_LEADS_ELSEWHERE: Final = frozenset(
    {"concat", "dash", "hls", "image2", "imf", "rtp", "rtsp", "sdp", "vobsub"}
)
"""Formats of files that name other files or addresses, whatever these files are called."""
_PICTURE: Final = Disposition.attached_pic | Disposition.timed_thumbnails
_ONE = 1 << 16
_SMALL = 1 << 24
"""Pixels of a clip below which spawning decoder threads costs more than they save."""


@dataclass(frozen=True, eq=False)
class Film:
    """An open video stream. ``stamped``: frames carry their own times; an AVI's carry the times of
    decoding, which are not those of showing, but the decoder puts its frames in order."""

    path: Path
    container: InputContainer
    stream: VideoStream
    base: Fraction
    stamped: bool

    def packets(self, start: int | None = None) -> Generator[av.Packet[VideoStream]]:
        """Whole packets, from the key frame at ``start`` on where the container can go there."""
        if start is not None:
            self.container.seek(start, stream=self.stream)
        try:
            for index, packet in enumerate(self.container.demux(self.stream)):
                if packet.is_corrupt:
                    raise damaged(self.path, f"packet {index} is cut off")
                yield packet
        except FFmpegError as error:
            raise damaged(self.path, f"reading failed ({error.strerror})") from error

    def decode(self, packet: av.Packet[VideoStream]) -> Iterator[av.VideoFrame]:
        """The frames that the decoder gives for a packet."""
        try:
            found = self.stream.decode(packet)
        except FFmpegError as error:
            context = self.stream.codec_context
            _check_frame(self.path, context.height, context.width)
            raise damaged(self.path, f"decoding failed ({error.strerror})") from error
        for frame in found:
            if frame.pts is None:
                raise timeless(self.path)
            yield frame


@contextmanager
def open_film(path: Path) -> Generator[Film]:
    """The first video stream that is no cover picture.

    Raises ``MatrixError`` for a missing file, none that is a video, a list of other files
    (playlists), and frames above the limit.
    """
    if not path.is_file():
        raise MatrixError(
            "there is no such video file", remedy="Check the path or restore the file", file=path
        )
    try:
        # An absolute path, since a relative one may begin like an address ("concat:a.mp4").
        container = av.open(path.absolute(), "r", options=_only_itself())
    except FFmpegError as error:
        raise damaged(path, f"it cannot be opened as a video ({error.strerror})") from error
    with container:
        films = [one for one in container.streams.video if not one.disposition & _PICTURE]
        if not films:
            cover = "but a cover picture" if container.streams.video else "at all"
            raise MatrixError(
                f"the file holds no video stream {cover}",
                remedy="Give a file with a video stream",
                file=path,
            )
        stream = films[0]
        if stream.time_base is None:
            raise timeless(path)
        context = stream.codec_context
        _check_frame(path, context.height, context.width)
        pixels = stream.frames * context.height * context.width
        stream.thread_count = 1 if 0 < pixels < _SMALL else 0
        context.options = {"max_pixels": str(MOST_FRAME_PIXELS)}  # the stream may say otherwise
        yield Film(path, container, stream, stream.time_base, container.format.name != "avi")


@cache
def _only_itself() -> dict[str, str]:
    """Options under which opening a file reads that file and no other."""
    formats = ",".join(sorted(av.formats_available - _LEADS_ELSEWHERE))
    return {"format_whitelist": formats, "protocol_whitelist": "file"}


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int] | None:
    """The 2x2 part (a, b, c, d) of the display matrix; None where there is none.

    The pixel of column x and row y is shown at column a x + c y and row b x + d y, in units of
    2^16, and moved into view.
    """
    data = frame.side_data.get(Type.DISPLAYMATRIX)  # pyright: ignore  # keys typed as strings
    if data is None:
        return None
    a, b, _, c, d, *_ = struct.unpack("<9i", bytes(data))
    return a, b, c, d


def turned(
    picture_HWC: NDArray[np.uint8], matrix: tuple[int, int, int, int] | None, path: Path
) -> NDArray[np.uint8]:
    """The picture as it is to be shown, in one of its eight positions.

    Raises ``MatrixError`` for a matrix that shears, stretches or turns by less than 90 degrees.
    """
    if matrix is None or not any(matrix):
        return picture_HWC
    a, b, c, d = matrix
    if b == c == 0 and abs(a) == abs(d) != 0:
        columns, rows = a, d
    elif a == d == 0 and abs(b) == abs(c) != 0:
        picture_HWC = picture_HWC.swapaxes(0, 1)
        columns, rows = c, b
    else:
        shown = ", ".join(f"{value / _ONE:.3g}" for value in matrix)
        raise MatrixError(
            f"the container shows the video sheared, stretched or aslant (matrix {shown})",
            remedy="Encode it again as it is to be seen, such as with ffmpeg -i IN OUT.mp4",
            file=path,
        )
    return picture_HWC[:: -1 if rows < 0 else 1, :: -1 if columns < 0 else 1]


def picture(frame: av.VideoFrame, path: Path) -> NDArray[np.uint8]:
    """RGB [H,W,3] of a frame, the way up that the container asks for."""
    array = frame.to_ndarray(format="rgb24", interpolation=EXACT, threads=1)
    return turned(cast("NDArray[np.uint8]", array), display_matrix(frame), path)


def _check_frame(path: Path, height: int, width: int) -> None:
    if height * width > MOST_FRAME_PIXELS:
        raise MatrixError(
            f"its frames have {height}x{width} pixels (height x width)",
            remedy=f"Make it smaller: at most {MOST_FRAME_PIXELS:,} pixels a frame are decoded",
            file=path,
        )


def damaged(path: Path, what: str) -> MatrixError:
    return MatrixError(
        f"the video is damaged or truncated: {what}",
        remedy="Copy or encode the file again, or remove its sample from the data set",
        file=path,
    )


def timeless(path: Path) -> MatrixError:
    return MatrixError(
        "the video's frames carry no presentation times",
        remedy="Put the stream into a container that has them, such as MP4",
        file=path,
    )
