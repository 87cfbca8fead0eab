"""The rows that videos are read against, made from the prompt set's own clips.

Null rows show nothing that was asked for. Those that are other pixels are judged as asked. *Another
verb* and *roles exchanged* are the prompts' own clips judged for foils: a clip that shows the right
pair doing something else than was asked. A prompt set of pictures has no clips: its rows are the
frozen picture and the straight drift, as long as the generated video.

Shapes: T frames, H rows, W columns, R instances.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from matrix_video.data.video import Video, VideoInfo, first_frame, probe_video, read_video
from matrix_video.evaluation.judging import Source
from matrix_video.evaluation.prompts import PromptSet
from matrix_video.evaluation.questions import FoilKind
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_file, sha256_text

if TYPE_CHECKING:
    from matrix_video.backbones.base import Backbone

GROUND_TRUTH: Final = "ground_truth"
CEILING: Final = "ceiling"
_DRIFT, _FROZEN, _ANOTHER = "straight_drift", "frozen_first_frame", "another_prompts_clip"
PIXELS: Final = (_DRIFT, _FROZEN, _ANOTHER)
FOILED: Final[dict[str, FoilKind]] = {
    "another_verb": "another verb",
    "roles_exchanged": "roles exchanged",
}
NULLS: Final = (*FOILED, *PIXELS)
Frames = NDArray[np.uint8]

_SPEED = (0.5, 1.6)  # pixels a frame: the range in which acting instances move


@dataclass(frozen=True)
class _Clip:
    path: Path
    sha256: str
    info: VideoInfo

    @property
    def moves(self) -> bool:
        return len(self.info.times) > 1


class References:
    """Sources of the rows' videos. Clips that cannot be opened are left out of every row."""

    def __init__(self, prompts: PromptSet, seed: int) -> None:
        self._prompts, self._seed = prompts, seed
        self._clips: dict[int, _Clip] = {}
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index in range(len(prompts)):
            path = prompts.clips.video_path(index)
            try:
                info = probe_video(path)
            except MatrixError:
                continue
            self._clips[index] = _Clip(path, sha256_file(path), info)
            if self._clips[index].moves:
                alike[info.height, info.width].append(index)
        self._partners = {
            index: group[partner]
            for group in alike.values()
            if len(group) > 1
            for index, partner in zip(group, derangement(len(group), seed), strict=True)
        }
        """For each prompt with a clip another one of the same size, where there is one."""

    def ground_truth(self, index: int) -> Source | None:
        """The prompt's own clip; None for a picture."""
        clip = self._clips.get(index)
        if clip is None or not clip.moves:
            return None
        return Source((clip.sha256,), partial(read_video, clip.path))

    def pixels(self, name: str, index: int) -> Source | None:
        """The prompt's video in a row of `PIXELS`; None where there is none."""
        if name == _ANOTHER:
            return self.ground_truth(self._partners.get(index, -1))
        clip, length = self._clips.get(index), self._length(index)
        if clip is None or length is None:
            return None
        content = (clip.sha256, name, str(length), str(self._seed))
        return Source(content, partial(self._still, name, index, clip, length))

    def ceiling(
        self, model: str, content: str, backbone: Backbone | None
    ) -> Callable[[int], Source | None]:
        """Ground truth through a model's VAE and back: the best that the model could show.

        ``content`` stands for the model's files. The pipeline is loaded when it is first needed.
        """

        @cache
        def loaded() -> Backbone:
            from matrix_video.backbones.loading import backbone_for, load_pipeline

            return backbone_for(load_pipeline(model)) if backbone is None else backbone

        def source(index: int) -> Source | None:
            truth = self.ground_truth(index)
            if truth is None:
                return None
            return Source(
                (*truth.content, CEILING, content),
                lambda: _round_trip(loaded(), truth.video()),
            )

        return source

    def _length(self, index: int) -> int | None:
        """Frames of a null video: those of the own clip; of a picture, those of the generated."""
        clip = self._clips.get(index)
        if clip is None or clip.moves:
            return None if clip is None else len(clip.info.times)
        made = self._prompts.videos.get(self._prompts.clips.sample(index).id)
        try:
            return None if made is None else len(probe_video(made).times)
        except MatrixError:
            return None

    def _still(self, name: str, index: int, clip: _Clip, length: int) -> Video:
        """The first frame held, or its instances adrift."""
        first_HWC = first_frame(clip.path)
        if name == _FROZEN:
            frames_THWC = np.repeat(first_HWC[None], length, axis=0)
        else:
            prompt = self._prompts.load(index)
            masks = list(prompt.first_masks.values())
            key = f"{self._seed} {prompt.sample.id}"
            frames_THWC = drifting(first_HWC, masks, length, key)
        times = clip.info.times if clip.moves else np.arange(length) / clip.info.fps
        return Video(frames_THWC, times, clip.info.fps)


def _round_trip(backbone: Backbone, video: Video) -> Video:
    import torch

    with torch.no_grad():
        latents = backbone.encode_video(torch.from_numpy(video.frames_THWC)[None])
        return replace(video, frames_THWC=backbone.decode(latents)[0].cpu().numpy())


def derangement(count: int, seed: int) -> list[int]:
    """A cyclic shuffle: a partner for each of ``count`` prompts, never itself (count ≥ 2)."""
    order = np.random.default_rng(seed).permutation(count)
    partner = np.empty(count, dtype=int)
    partner[order] = np.roll(order, 1)
    return partner.tolist()


def drifting(
    first_HWC: Frames, masks_R: Sequence[NDArray[np.bool_]], num_frames: int, key: str
) -> Frames:
    """Every instance of the first frame slides straight on at its own random pace.

    Instances are cut out by their masks and pasted over a background filled in from the nearest
    free pixels; they stop at the frame's border. Their paths follow from ``key`` alone.
    """
    rng = np.random.default_rng(int(sha256_text(key)[:16], 16))
    height, width = first_HWC.shape[:2]
    taken_HW = np.zeros((height, width), dtype=bool)
    for mask_HW in masks_R:
        taken_HW |= mask_HW
    rim_HW = ndimage.binary_dilation(taken_HW, iterations=2)  # soft edges are no background
    rows_HW, columns_HW = np.asarray(
        ndimage.distance_transform_edt(rim_HW, return_distances=False, return_indices=True)
    )
    frames_THWC = np.repeat(first_HWC[rows_HW, columns_HW][None], num_frames, axis=0)
    for mask_HW in masks_R:
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(*_SPEED)
        rows, columns = np.nonzero(mask_HW)
        for t in range(num_frames):
            dy = round(float(np.sin(angle) * speed * t))
            dx = round(float(np.cos(angle) * speed * t))
            dy = min(max(dy, -int(rows.min())), height - 1 - int(rows.max()))
            dx = min(max(dx, -int(columns.min())), width - 1 - int(columns.max()))
            frames_THWC[t, rows + dy, columns + dx] = first_HWC[rows, columns]
    return frames_THWC
