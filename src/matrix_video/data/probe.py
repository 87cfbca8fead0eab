"""What video files say of themselves before they are decoded, and which a folder holds.

Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import av
import numpy as np
from numpy.typing import NDArray

from matrix_video.data.container import Film, damaged, display_matrix, open_film, picture
from matrix_video.services.errors import MatrixError

SUFFIXES: Final = (
    *(".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".3gp", ".ogv", ".mxf", ".gif"),
)
"""Of the videos that are looked for in a folder, in lower case."""


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """What a container says: display size, times float64 [T] seconds, rate, and its peculiarities.

    ``turned``: rows, columns or both of the stored picture are shown in another order.
    ``pixel_aspect``: width by height of a pixel; frames are never stretched by it.
    """

    height: int
    width: int
    times: NDArray[np.float64]
    fps: float
    codec: str = ""
    bits: int = 8
    variable: bool = False
    turned: bool = False
    alpha: bool = False
    interlaced: bool = False
    pixel_aspect: float = 1.0
    stamps: tuple[int, ...] = field(default=(), repr=False)
    """Presentation times in the stream's own unit."""
    keys: frozenset[int] = field(default=frozenset(), repr=False)
    """Those of them at which decoding can begin."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its pixels should know."""
        told = (
            (
                self.variable,
                f"frames come at varying intervals, {self.fps:.4g} a second on average",
            ),
            (self.interlaced, "frames are interlaced: two moments share each of them"),
            (self.alpha, "frames have an alpha channel, which is left out"),
            (self.pixel_aspect != 1, f"pixels are {self.pixel_aspect:.3g} times as wide as high"),
        )
        return tuple(text for holds, text in told if holds)


def probe_video(path: Path) -> VideoInfo:
    """Size, presentation times, rate and peculiarities, from the packets and the first frame alone.

    A container whose packets carry no times is decoded whole, one frame at a time. Raises
    ``MatrixError`` as ``read_video`` does, but cannot see damage inside later frames.
    """
    stamps: list[int] = []
    keys: set[int] = set()
    first: av.VideoFrame | None = None
    discarded = 0
    with open_film(path) as film:
        for packet in film.packets():
            if first is None:  # the one frame that tells size and way up
                first = next(film.decode(packet), None)
            if packet.size == 0:  # the flush packet that ends every stream
                continue
            if packet.is_discard:  # before the start that an edit list sets
                discarded += 1
            elif packet.pts is None:
                return _probe_decoded(path)
            else:
                stamps.append(packet.pts)
                if packet.is_keyframe:
                    keys.add(packet.pts)
        return _info(film, sorted(stamps), frozenset(keys), first, discarded)


def _probe_decoded(path: Path) -> VideoInfo:
    with open_film(path) as film:
        shown = (frame for packet in film.packets() for frame in film.decode(packet))
        first = next(shown, None)
        stamps = [cast(int, frame.pts) for frame in shown]
        stamps = stamps if first is None else [cast(int, first.pts), *stamps]
        return _info(film, sorted(stamps), frozenset(), first, discarded=0)


def _info(
    film: Film,
    stamps: list[int],
    keys: frozenset[int],
    first: av.VideoFrame | None,
    discarded: int,
) -> VideoInfo:
    if not stamps or first is None:
        raise MatrixError(
            "the video has no frames",
            remedy="Encode the file again, or remove its sample from the data set",
            file=film.path,
        )
    stream, found = film.stream, len(stamps) + discarded
    if found < stream.frames:
        problem = f"its container declares {stream.frames} frames but holds {found}"
        raise damaged(film.path, problem)
    times = np.array([float(stamp * film.base) for stamp in stamps], dtype=np.float64)
    steps = np.diff(times)
    slack = 2 * float(film.base) + 0.1 * float(np.median(steps)) if len(steps) else 0.0
    span = float(times[-1] - times[0])
    mean = (len(times) - 1) / span if span > 0 else 1.0
    height, width = picture(first, film.path).shape[:2]
    matrix = display_matrix(first)
    parts = first.format.components
    aspect = stream.sample_aspect_ratio
    return VideoInfo(
        height,
        width,
        times,
        float(stream.average_rate) if stream.average_rate else mean,
        codec=stream.codec_context.name,
        bits=max((part.bits for part in parts), default=8),
        variable=len(steps) > 0 and float(steps.max() - steps.min()) > slack,
        turned=matrix is not None and not (matrix[0] > 0 and matrix[3] > 0),
        alpha=any(p.is_alpha for p in parts) or stream.metadata.get("alpha_mode") == "1",
        interlaced=first.interlaced_frame,
        pixel_aspect=float(aspect) if aspect else 1.0,
        stamps=tuple(stamps),
        keys=keys,
    )


def find_videos(folder: Path) -> tuple[list[Path], list[Path]]:
    """The videos of a folder, sorted, and its other files; names that begin with a dot are hidden.

    ``MatrixError`` for no folder, and for no video in it.
    """
    if not folder.is_dir():
        raise MatrixError(
            "there is no such folder", remedy="Give a folder with videos", file=folder
        )
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    videos = [path for path in files if path.suffix.lower() in SUFFIXES]
    others = [path for path in files if path.suffix.lower() not in SUFFIXES]
    if not videos:
        kinds = sorted({path.suffix.lower() or path.name for path in others})
        kinds += sorted(f"{p.name}/" for p in folder.iterdir() if p.is_dir())
        raise MatrixError(
            f"0 videos are in this folder; it holds {', '.join(kinds[:8]) or 'nothing'}",
            remedy=f"Give a folder with videos ({', '.join(SUFFIXES)})",
            file=folder,
        )
    return videos, others
