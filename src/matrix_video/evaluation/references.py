"""The rows that videos are read against, made from the prompt set's own clips.

Null rows that are other pixels (see `nulls`) are judged as asked. *Another verb* and *roles
exchanged* are the prompts' own clips judged for foils: a clip that shows the right pair doing
something else than was asked. A prompt set of pictures has no clips: its rows are the frozen
picture and the straight drift, as long as the generated video.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.video import Video, VideoInfo, first_frame, probe_video, read_video
from matrix_video.evaluation.judging import Source
from matrix_video.evaluation.nulls import derangement, drifting, frozen
from matrix_video.evaluation.prompts import PromptSet
from matrix_video.evaluation.scores import FoilKind
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_file

if TYPE_CHECKING:
    from matrix_video.backbones.base import Backbone

GROUND_TRUTH: Final = "ground_truth"
CEILING: Final = "ceiling"
PIXELS: Final = ("straight_drift", "frozen_first_frame", "another_prompts_clip")
FOILED: Final[dict[str, FoilKind]] = {
    "another_verb": "another verb",
    "roles_exchanged": "roles exchanged",
}
NULLS: Final = (*FOILED, *PIXELS)
Sources = Iterator[tuple[int, Source]]
Frames = NDArray[np.uint8]


class References:
    """Sources of the rows' videos. Clips that cannot be opened are left out of every row."""

    def __init__(self, prompts: PromptSet, seed: int) -> None:
        self._prompts, self._seed = prompts, seed
        self._clips: dict[int, VideoInfo] = {}
        for index in range(len(prompts)):
            try:
                self._clips[index] = probe_video(prompts.clips.video_path(index))
            except MatrixError:
                continue
        self._hashes: dict[int, str] = {}

    def ground_truth(self) -> Sources:
        """The prompts' own clips."""
        for index in self._moving():
            yield index, Source((self._hash(index),), partial(read_video, self._path(index)))

    def pixels(self, name: str) -> Sources:
        """The videos of a row of `PIXELS`."""
        if name == "another_prompts_clip":
            for index, partner in sorted(self._partners().items()):
                path = self._path(partner)
                yield index, Source((self._hash(partner),), partial(read_video, path))
            return
        make = self._frozen if name == "frozen_first_frame" else self._drifting
        for index in self._clips:
            length = self._length(index)
            if length is not None:
                content = (self._hash(index), name, str(length), str(self._seed))
                yield index, Source(content, partial(make, index, length))

    def ceiling(self, model: str, content: str, backbone: Backbone | None) -> Sources:
        """Ground truth through a model's VAE and back: the best that the model could show.

        ``content`` stands for the model's files. The pipeline is loaded when it is first needed.
        """
        decoder = _RoundTrip(model, backbone)
        for index in self._moving():
            read = partial(read_video, self._path(index))
            yield index, Source((self._hash(index), CEILING, content), partial(decoder, read))

    def _moving(self) -> list[int]:
        return [index for index, info in self._clips.items() if len(info.times) > 1]

    def _path(self, index: int) -> Path:
        return self._prompts.clips.video_path(index)

    def _hash(self, index: int) -> str:
        if index not in self._hashes:
            self._hashes[index] = sha256_file(self._path(index))
        return self._hashes[index]

    def _length(self, index: int) -> int | None:
        """Frames of a null video: those of the own clip; of a picture, those of the generated."""
        if len(self._clips[index].times) > 1:
            return len(self._clips[index].times)
        made = self._prompts.videos.get(self._prompts.clips.sample(index).id)
        try:
            return None if made is None else len(probe_video(made).times)
        except MatrixError:
            return None

    def _frozen(self, index: int, length: int) -> Video:
        first_HWC = first_frame(self._path(index))
        return _lasting(self._clips[index], frozen(first_HWC[None], length))

    def _drifting(self, index: int, length: int) -> Video:
        first_HWC, prompt = first_frame(self._path(index)), self._prompts.load(index)
        masks = list(prompt.first_masks.values())
        key = f"{self._seed} {prompt.sample.id}"
        return _lasting(self._clips[index], drifting(first_HWC, masks, length, key))

    def _partners(self) -> dict[int, int]:
        """For each prompt with a clip another one of the same size, where there is one."""
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index in self._moving():
            info = self._clips[index]
            alike[info.height, info.width].append(index)
        return {
            index: group[partner]
            for group in alike.values()
            if len(group) > 1
            for index, partner in zip(group, derangement(len(group), self._seed), strict=True)
        }


def _lasting(own: VideoInfo, frames_THWC: Frames) -> Video:
    count = len(frames_THWC)
    times = own.times if len(own.times) == count else np.arange(count) / own.fps
    return Video(frames_THWC, times, own.fps)


class _RoundTrip:
    """Encode and decode with a pipeline that is loaded once, when it is needed."""

    def __init__(self, model: str, backbone: Backbone | None) -> None:
        self._model, self._backbone = model, backbone

    def __call__(self, read: Callable[[], Video]) -> Video:
        import torch

        from matrix_video.backbones.loading import backbone_for, load_pipeline

        if self._backbone is None:
            self._backbone = backbone_for(load_pipeline(self._model))
        video = read()
        with torch.no_grad():
            latents = self._backbone.encode_video(torch.from_numpy(video.frames_THWC)[None])
            return replace(video, frames_THWC=self._backbone.decode(latents)[0].cpu().numpy())
