"""The prompts of an evaluation: what is asked of each video, and which video answers it.

Shapes: H rows, W columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.dataset import Dataset
from matrix_video.data.sample import Sample
from matrix_video.data.trackfile import read_tracks
from matrix_video.data.tracks import first_masks
from matrix_video.evaluation.questions import (
    QUESTIONS,
    AskedFoil,
    foils,
    read_questions,
    texts,
)
from matrix_video.evaluation.verdict import Judge
from matrix_video.services.config import read_config
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_text

_ASKED: Final = {"id", "caption", "instances", "interactions"}
"""Fields of a sample that a judge may look at."""


@dataclass(frozen=True)
class Prompt:
    """What is asked of one video. ``hash`` changes with the sample, the masks and the questions."""

    sample: Sample
    first_masks: Mapping[str, NDArray[np.bool_]]
    foils: tuple[AskedFoil, ...]
    hash: str


class PromptSet:
    """The prompts that a judge is asked about, in their order, and the videos that were delivered.

    Raises `MatrixError` for a video that no prompt asks for, where there is no video, and for
    questions in words of their own where the judge answers the template's alone.
    """

    def __init__(self, folder: Path, videos: Path, limit: int | None, judge: Judge) -> None:
        run = read_config(videos)
        asked = limit if limit is not None else _count(run.get("limit"))
        every = Dataset(folder)
        self.clips: Dataset = every if asked is None else every[:asked]
        """The prompt set's own clips or pictures."""
        self.wording = read_questions(folder, every.samples)
        if self.wording and judge.verbs is not None:
            name, *words = next(iter(self.wording))
            raise MatrixError(
                f"{len(self.wording)} interactions have questions in words of their own, such as "
                f"{' '.join(words)!r} of sample {name!r}; the judge {judge.name!r} answers the "
                "template's questions alone",
                remedy="Delete the file, or give a judge that reads questions",
                file=folder / QUESTIONS,
            )
        self.video_seed = _count(run.get("seed"))
        used = {one.verb: None for sample in self.clips.samples for one in sample.interactions}
        self._verbs = tuple(used) if judge.verbs is None else judge.verbs
        inner = videos / "dataset"
        made = Dataset(inner if inner.is_dir() else videos)
        known = {sample.id for sample in every.samples}
        strangers = [sample.id for sample in made.samples if sample.id not in known]
        if strangers:
            raise MatrixError(
                f"{len(strangers)} of its {len(made)} videos are of prompts that {folder} does not "
                f"have, such as {strangers[0]!r}",
                remedy="Give --prompts the prompt set that they were generated from",
                file=made.path,
            )
        self.videos: Mapping[str, Path] = {
            sample.id: path
            for index, sample in enumerate(made.samples)
            if (path := made.video_path(index)).is_file()
        }
        """The files that were delivered, by sample id."""
        if not self.videos.keys() & {sample.id for sample in self.clips.samples}:
            raise MatrixError("there are no videos", remedy="Generate some first", file=made.path)

    def __len__(self) -> int:
        return len(self.clips)

    def foils(self, index: int) -> tuple[AskedFoil, ...]:
        return foils(self.clips.sample(index), self._verbs)

    def load(self, index: int) -> Prompt:
        """`MatrixError` for a broken track file; a prompt without one has no masks."""
        sample, file = self.clips.sample(index), self.clips.track_path(index)
        masks = first_masks(read_tracks(file).tracks) if file.is_file() else {}
        words = [texts(sample, one, self.wording) for one in sample.interactions]
        fields: dict[str, Any] = sample.model_dump(mode="json", include=_ASKED)
        parts = [json.dumps([fields, words], sort_keys=True)]
        for name, mask_HW in sorted(masks.items()):
            parts += [name, str(mask_HW.shape), np.packbits(mask_HW).tobytes().hex()]
        return Prompt(sample, masks, self.foils(index), sha256_text(*parts))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None
