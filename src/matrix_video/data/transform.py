"""The one transform of a clip: frame rate, window, crop, size, on video and masks together.

Shapes: T frames, H W pixels, C colours. Source: paper section 6 resizes clips to the model's size;
the rules for masks (by area, cut at one half) are our choice, since label interpolation loses thin
instances.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from matrix_video.data.tracks import MaskTrack, State, resize_masks
from matrix_video.data.video import Video, VideoInfo, check_held, frames
from matrix_video.services.errors import MatrixError

_TIE = 1e-6
"""Seconds: differences below it are rounding of time stamps, not time."""
_SQUEEZED = 1.5
"""Change of aspect from which a clip counts as squeezed (our choice)."""


@dataclass(frozen=True)
class ClipShape:
    """What a clip will be, known before anything is decoded.

    ``squeeze``: how many times wider or narrower its things are shown than the video has them.
    """

    num_frames: int
    height: int
    width: int
    fps: float
    squeeze: float = 1.0

    @property
    def squeezed(self) -> str | None:
        """What to tell about a clip that is squeezed beyond 1.5 in aspect."""
        if self.squeeze <= _SQUEEZED:
            return None
        return (
            f"squeezed {self.squeeze:.2f} times in aspect to {self.height}x{self.width}; crop it "
            "before, or choose another --height and --width"
        )


@dataclass(frozen=True)
class ClipTransform:
    """What happens to a clip between disk and model; None leaves that part as it is.

    fps: frames per second, taken from the frames nearest in presentation time.
    start: seconds after the first frame. num_frames: frames of the window.
    crop: (top, left, height, width) in source pixels. size: (height, width) after the crop.

    Raises ``MatrixError`` for values that no clip can satisfy.
    """

    fps: float | None = None
    start: float = 0.0
    num_frames: int | None = None
    crop: tuple[int, int, int, int] | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.fps is not None and not (isfinite(self.fps) and self.fps > 0):
            raise _refused("fps", self.fps, "a number above 0")
        if not (isfinite(self.start) and self.start >= 0):
            raise _refused("start", self.start, "seconds from 0 up")
        if self.num_frames is not None and self.num_frames < 1:
            raise _refused("num_frames", self.num_frames, "at least 1")
        if self.crop is not None and (min(self.crop[:2]) < 0 or min(self.crop[2:]) < 1):
            raise _refused("crop", self.crop, "top, left from 0 up and height, width from 1 up")
        if self.size is not None and min(self.size) < 1:
            raise _refused("size", self.size, "height and width from 1 up")

    def frame_indices(self, times: NDArray[np.float64] | Sequence[float]) -> list[int]:
        """Indices of the frames to take; ``times``: one or more, in seconds, ascending.

        With ``fps``, output frame k is the one nearest to start + k / fps (the earlier of two
        equally near), up to half a frame past the last time stamp. ``MatrixError`` where the clip
        is too short for the window.
        """
        seconds = np.asarray(times, dtype=np.float64) - times[0]
        if self.fps is None:
            first = int(np.searchsorted(seconds, self.start - _TIE))
            found = list(range(first, len(seconds)))
        else:
            half = float(np.median(np.diff(seconds))) / 2 if len(seconds) > 1 else 2 * _TIE
            end = float(seconds[-1]) + half - self.start
            count = max(0, int(np.ceil((end - _TIE) * self.fps)))
            if self.num_frames is not None:
                count = min(count, self.num_frames)
            wanted = self.start + np.arange(count) / self.fps
            after = np.searchsorted(seconds, wanted).clip(1, max(1, len(seconds) - 1))
            before = after - 1
            after = np.minimum(after, len(seconds) - 1)
            later = np.abs(seconds[after] - wanted) < np.abs(seconds[before] - wanted) - _TIE
            found = [int(i) for i in np.where(later, after, before)]
        if len(found) < (self.num_frames or 1):
            raise MatrixError(
                f"the clip gives {len(found)} frames"
                + (f" at {self.fps:g} fps" if self.fps else "")
                + f" from {self.start:g} s on, but {self.num_frames or 1} are wanted",
                remedy="Ask for fewer frames, another frame rate or an earlier start, or leave "
                "this clip out",
                field="num_frames",
            )
        return found if self.num_frames is None else found[: self.num_frames]

    def shape(self, info: VideoInfo) -> ClipShape:
        """What becomes of a video, from its header; ``MatrixError`` where nothing can."""
        num_frames = len(self.frame_indices(info.times))
        _, _, *cut = self._box(info.size)
        height, width = self.size or cut
        squeeze = width * cut[0] / (height * cut[1])
        return ClipShape(num_frames, height, width, self.fps or info.fps, max(squeeze, 1 / squeeze))

    def load(self, path: Path, info: VideoInfo) -> Video:
        """Read a video file; no frame is held that is not wanted.

        ``info``: of this file. Frames keep the presentation times that they had, and are resized
        with Pillow's antialiased bilinear filter. ``MatrixError`` as for ``frame_indices`` and
        ``frames``, and for more pixels than may be held.
        """
        shape = self.shape(info)
        check_held(shape.num_frames, (shape.height, shape.width), path)
        indices = self.frame_indices(info.times)
        frames_THWC = np.empty((len(indices), shape.height, shape.width, 3), dtype=np.uint8)
        for place, frame_HWC in enumerate(frames(path, indices, info)):
            frames_THWC[place] = self._picture(frame_HWC)
        return Video(frames_THWC, info.times[indices], shape.fps)

    def first_frame(self, path: Path, info: VideoInfo) -> NDArray[np.uint8]:
        """The first frame uint8 [H,W,3] of `load`, and no other."""
        first = self.frame_indices(info.times)[:1]
        return self._picture(next(frames(path, first, info)))

    def track(self, track: MaskTrack, times: NDArray[np.float64] | Sequence[float]) -> MaskTrack:
        """The same window, crop and size for a mask track; ``times`` as for ``frame_indices``.

        Masks are resized by area and positive from half coverage on; a visible mask that reaches
        it nowhere keeps its best-covered pixel. A visible mask that lies wholly outside the crop
        becomes absent (out of frame); absent and unknown frames stay what they are.
        """
        indices = self.frame_indices(times)
        top, left, height, width = self._box(track.size)
        taken = track if indices == list(range(len(track))) else track.take(indices)
        size = self.size or (height, width)
        if (height, width) == track.size == size:
            return taken
        masks_THW = taken.masks()[:, top : top + height, left : left + width]
        if size != (height, width):
            masks_THW = resize_masks(masks_THW, size)
        unknown = [t for t, state in enumerate(taken.states) if state is State.UNKNOWN]
        return MaskTrack.from_masks(masks_THW, unknown)

    def key(self) -> str:
        """Canonical text: equal for equal transforms only. Part of every cache key."""
        values = asdict(self)
        values["fps"] = None if self.fps is None else float(self.fps)
        values["start"] = float(self.start) + 0.0  # -0.0 becomes 0.0
        return "clip-transform-1:" + json.dumps(values, sort_keys=True, separators=(",", ":"))

    def _box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """The crop in a frame of ``size``, or all of it."""
        top, left, height, width = self.crop or (0, 0, *size)
        if top + height > size[0] or left + width > size[1]:
            raise MatrixError(
                f"the crop (top {top}, left {left}, {height}x{width}) leaves the frame of "
                f"{size[0]}x{size[1]} (height x width)",
                remedy="Choose a crop inside the frame, or leave this clip out",
                field="crop",
            )
        return top, left, height, width

    def _picture(self, frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        top, left, height, width = self._box((frame_HWC.shape[0], frame_HWC.shape[1]))
        frame_HWC = frame_HWC[top : top + height, left : left + width]
        if self.size is None or self.size == (height, width):
            return frame_HWC
        picture = Image.fromarray(np.ascontiguousarray(frame_HWC))
        return np.asarray(picture.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR))


def _refused(field: str, value: object, wanted: str) -> MatrixError:
    return MatrixError(
        f"{value!r} is not possible", remedy=f"Give {wanted}", field=f"clip transform {field}"
    )
