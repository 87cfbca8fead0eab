"""Judge one video at a time and keep each verdict under the content that it was made from."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from math import isnan, nan
from typing import Final

from pydantic import TypeAdapter

from matrix_video.data.video import Video
from matrix_video.evaluation.prompts import PromptSet
from matrix_video.evaluation.questions import with_foils
from matrix_video.evaluation.scores import METRICS, Numbers, VideoScore
from matrix_video.evaluation.scoring import score_video
from matrix_video.evaluation.verdict import Judge, Verdict
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_text
from matrix_video.services.progress import progress
from matrix_video.services.store import Result, Stage, Store, work_key

_JUDGED: Final = Stage("judge", 1)
_VERDICT: Final = TypeAdapter(Verdict)


@dataclass(frozen=True)
class Source:
    """A video to judge: what it is made from, and how to get its frames."""

    content: tuple[str, ...]
    video: Callable[[], Video]


@dataclass
class Row:
    """Scores of one row of the table, as flat numbers: a run may have many thousand videos."""

    ids: list[str] = field(default_factory=list[str])
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, numbers: Numbers) -> None:
        self.ids.append(numbers.id)
        found = (numbers.value(metric) for metric in METRICS)
        self.values.extend(nan if value is None else value for value in found)

    def __iter__(self) -> Iterator[Numbers]:
        width = len(METRICS)
        for index, name in enumerate(self.ids):
            values = self.values[index * width : (index + 1) * width]
            known = {m: v for m, v in zip(METRICS, values, strict=True) if not isnan(v)}
            yield Numbers.model_validate({"id": name, **known})


class Judging:
    """The verdicts of one judge on one prompt set.

    A video that cannot be read or judged is quarantined with its reason, and tried again by the
    next run; all other verdicts are used again wherever the same video meets the same prompt.
    """

    def __init__(self, store: Store, judge: Judge, prompts: PromptSet) -> None:
        self._store, self._judge, self._prompts = store, judge, prompts
        self.broken: dict[int, str] = {}
        """Prompts that cannot be read, by index, with the reason."""
        self.hashes: list[str] = []
        for index, sample in enumerate(prompts.clips.samples):
            try:
                self.hashes.append(prompts.load(index).hash)
            except MatrixError as error:
                self.broken[index] = str(error)
                self.hashes.append(sha256_text(sample.model_dump_json()))

    def row(
        self, title: str, source: Callable[[int], Source | None], *, tracks: bool = False
    ) -> Iterator[tuple[int, str, Result]]:
        """Judge the prompts' videos, in order; yields index, key and result of each.

        ``tracks``: keep the judge's tracks with the verdict.
        """
        with progress(f"judge {title.replace('_', ' ')}", len(self._prompts)) as advance:
            for index in range(len(self._prompts)):
                made = source(index)
                if made is not None and index not in self.broken:
                    key = self._key(index, made, tracks)
                    work = partial(self._work, index, made, tracks)
                    yield index, key, self._store.once(_JUDGED, key, work, retry=True)
                advance(1)

    def _key(self, index: int, source: Source, tracks: bool) -> str:
        """Of all that a verdict depends on."""
        asked = [foil.interaction.model_dump(mode="json") for foil in self._prompts.foils(index)]
        judge = [self._judge.name, self._judge.version]
        settings = {"judge": judge, "foils": asked, "tracks": tracks}
        return work_key([self.hashes[index], *source.content], settings)

    def _work(self, index: int, source: Source, tracks: bool) -> Result:
        prompt, video = self._prompts.load(index), source.video()
        for name, mask_HW in prompt.first_masks.items():
            if mask_HW.shape != video.size:
                raise MatrixError(
                    f"the video has {video.size[0]}x{video.size[1]} pixels (height x width), the "
                    f"first-frame mask of {name} {mask_HW.shape[0]}x{mask_HW.shape[1]}",
                    remedy="Generate it at its prompt's own size",
                )
        sample = with_foils(prompt.sample, prompt.foils)
        verdict = self._judge.judge(video, sample, prompt.first_masks)
        asked = len(prompt.sample.interactions)
        plain = tuple(  # foils are many, and nobody looks at their measurements
            ten if number < asked else tuple(replace(answer, evidence={}) for answer in ten)
            for number, ten in enumerate(verdict.answers)
        )
        kept = replace(verdict, answers=plain, tracks=verdict.tracks if tracks else {})
        answered = any(answer.reply != "unscored" for ten in plain[:asked] for answer in ten)
        state = "ok" if answered else "unscored"
        return Result(state, _VERDICT.dump_python(kept, mode="json", exclude_defaults=True))

    def result(self, key: str) -> Result | None:
        return self._store.get(_JUDGED, key)

    def verdict(self, result: Result) -> Verdict:
        return _VERDICT.validate_python(result.value)

    def score(self, index: int, result: Result, video: str = "") -> VideoScore:
        """Of a result that is not failed; ``video`` is the hash of its file."""
        return score_video(
            self._prompts.clips.sample(index),
            self.verdict(result),
            self._prompts.foils(index),
            self._prompts.wording,
            video=video,
            prompt=self.hashes[index],
        )
