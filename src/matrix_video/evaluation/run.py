"""An evaluation run: generated videos and their prompt set in, ``scores.json`` out.

Verdicts are kept video by video in ``work.sqlite`` under the content of video and prompt: a killed
run goes on with the video it was at, a repeated one judges the videos that changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from matrix_video.data.dataset import DatasetWriter
from matrix_video.data.video import read_video
from matrix_video.evaluation.config import EvaluateConfig
from matrix_video.evaluation.judging import JUDGED, Judging, Row, Source
from matrix_video.evaluation.oracle import OracleJudge
from matrix_video.evaluation.prompts import PromptSet
from matrix_video.evaluation.references import (
    CEILING,
    FOILED,
    GROUND_TRUTH,
    NULLS,
    PIXELS,
    References,
)
from matrix_video.evaluation.scores import (
    SCORES,
    JudgeFacts,
    ReferenceRow,
    Scores,
    Summary,
    VideoScore,
    read_scores,
    write_scores,
)
from matrix_video.evaluation.scoring import foil_numbers, summarise
from matrix_video.evaluation.verdict import Judge
from matrix_video.services.config import read_config
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import atomic_dir, sha256_file, sha256_text
from matrix_video.services.run import RunFolder
from matrix_video.services.store import Result, Store

if TYPE_CHECKING:
    from matrix_video.backbones.base import Backbone

__all__ = ["EvaluateConfig", "evaluate", "read_scores"]

TRACKED: Final = "tracked"
WORK: Final = "work.sqlite"
STAGE: Final = "evaluate"


def evaluate(
    config: EvaluateConfig, backbone: Backbone | None = None, judge: Judge | None = None
) -> Summary:
    """Judge every video and write ``scores.json``; returns the videos' own summary.

    ``backbone`` saves loading ``config.model`` for the ceiling; ``judge`` takes the place of
    ``config.judge``. Videos that cannot be judged are quarantined. Raises `MatrixError` for a video
    without a prompt, and where not one video could be judged.
    """
    judge = OracleJudge() if judge is None else judge
    known = read_config(config.out)
    # What lies in these folders may change: its verdicts are kept by content.
    open_to = [n for n in ("videos", "prompts") if known.get(n) == str(getattr(config, n))]
    with RunFolder.open(config.out, config, command="evaluate", may_change=open_to) as run:
        prompts = PromptSet(config.prompts, config.videos, config.limit, judge.verbs)
        with Store(run.path / WORK) as store:
            judging = Judging(store, judge, prompts)
            own = _Own(prompts, judging, store, tracks=config.tracked)
            references = _references(config, prompts, judging, backbone)
            if config.tracked:
                own.write_tracked(run)
            summaries = {name: summarise(row) for name, row in references.items()}
            head = Scores(
                judge=JudgeFacts(name=judge.name, version=judge.version),
                prompts=sha256_text(*judging.hashes),
                seed=config.seed,
                video_seed=prompts.video_seed,
                asked=len(prompts),
                delivered=own.delivered,
                scored=own.summary["if"].n,
                unscored=own.judged - own.summary["if"].n,
                quarantined=own.delivered - own.judged,
                summary=own.summary,
                references={
                    name: ReferenceRow(
                        kind="null" if name in NULLS else "ceiling", summary=found, videos=()
                    )
                    for name, found in summaries.items()
                },
                videos=(),
            )
            known = sha256_file(run.path / SCORES) if run.done(STAGE) else None
            write_scores(run.path, head, references, own.scores())
            if sha256_file(run.path / SCORES) != known:
                run.mark_done(STAGE, videos=own.judged)
    return own.summary


class _Own:
    """The generated videos: judged once, scored from the store whenever they are read."""

    def __init__(self, prompts: PromptSet, judging: Judging, store: Store, *, tracks: bool) -> None:
        self._prompts, self._judging, self._store = prompts, judging, store
        self._keys: dict[int, str] = {}
        self._files: dict[int, str] = {}
        row, reason = Row(), ""
        for index, key, result in judging.row("videos", self._sources(), tracks=tracks):
            self._keys[index] = key
            reason = reason or result.reason
            if result.state != "failed":
                row.add(judging.score(index, result, self._files[index]))
        self.delivered, self.judged = len(self._files), len(row.ids)
        if not self.judged:
            reason = reason or next(iter(judging.broken.values()))
            raise MatrixError(
                f"not one of {self.delivered} videos could be judged; the first: {reason}",
                remedy="Correct what it says, then run the command again",
                file=prompts.clips.path,
            )
        self.summary = summarise(row)

    def _sources(self) -> Iterator[tuple[int, Source]]:
        for index, sample in enumerate(self._prompts.clips.samples):
            path = self._prompts.videos.get(sample.id)
            if path is not None:
                self._files[index] = sha256_file(path)
                yield index, Source((self._files[index],), lambda path=path: read_video(path))

    def scores(self) -> Iterator[VideoScore]:
        """Of every video that was asked for, one at a time."""
        for index, sample in enumerate(self._prompts.clips.samples):
            file, result = self._files.get(index), self._result(index)
            if file is not None and result is not None and result.state != "failed":
                yield self._judging.score(index, result, file)
                continue
            told = self._judging.broken.get(index) or (result.reason if result else None)
            yield VideoScore(
                id=sample.id,
                state="missing" if file is None else "quarantined",
                reason="the video was not delivered" if file is None else told,
                video=file,
                prompt=self._judging.hashes[index],
            )

    def _result(self, index: int) -> Result | None:
        return self._store.get(JUDGED, self._keys[index]) if index in self._keys else None

    def write_tracked(self, run: RunFolder) -> None:
        """The judged videos with the tracks that the judge followed, unless they are there."""
        contents = sha256_text(*self._keys.values())
        if run.done(TRACKED) and run.facts(TRACKED)["contents"] == contents:
            return
        with atomic_dir(run.path / TRACKED) as folder, DatasetWriter(folder) as writer:
            for index in self._keys:
                sample, result = self._prompts.clips.sample(index), self._result(index)
                if result is not None and result.state != "failed":
                    tracks = self._judging.verdict(result).tracks
                    made = sample.model_copy(update={"file_name": f"videos/{sample.id}.mp4"})
                    writer.add_file(made, self._prompts.videos[sample.id], tracks)
        run.mark_done(TRACKED, contents=contents)


def _references(
    config: EvaluateConfig, prompts: PromptSet, judging: Judging, backbone: Backbone | None
) -> dict[str, Row]:
    """Rows by name: nulls, the strongest first, then ceilings."""
    if not config.nulls and config.model is None:
        return {}
    references = References(prompts, config.seed)
    nulls: dict[str, Row] = {}
    ceilings: dict[str, Row] = {}

    def row(name: str, sources: Iterator[tuple[int, Source]]) -> Row:
        found = Row()
        for index, _, result in judging.row(name, sources):
            if result.state != "failed":
                found.add(judging.score(index, result, ""))
        return found

    if config.nulls:
        truth = {name: Row() for name in (GROUND_TRUTH, *FOILED)}
        for index, _, result in judging.row(GROUND_TRUTH, references.ground_truth()):
            if result.state != "failed":
                score = judging.score(index, result, "")
                truth[GROUND_TRUTH].add(score)
                for name, kind in FOILED.items():
                    if (numbers := foil_numbers(score, kind)) is not None:
                        truth[name].add(numbers)
        ceilings[GROUND_TRUTH] = truth.pop(GROUND_TRUTH)
        nulls |= truth
        for name in PIXELS:
            nulls[name] = row(name, references.pixels(name))
    if config.model is not None:
        sources = references.ceiling(config.model, _content(config.model), backbone)
        ceilings[CEILING] = row(CEILING, sources)
    strongest = sorted(nulls, key=lambda name: -(summarise(nulls[name])["if"].mean or 0.0))
    rows = {name: nulls[name] for name in strongest} | ceilings
    return {name: found for name, found in rows.items() if found.ids}


def _content(model: str) -> str:
    """Hash of a pipeline's VAE where it is a folder; a name stands for itself."""
    weights = sorted((Path(model) / "vae").glob("*"))
    return sha256_text(model, *(sha256_file(file) for file in weights if file.is_file()))
