"""An evaluation run: generated videos and their prompt set in, ``scores.json`` out.

Verdicts are kept video by video in ``work.sqlite`` under the content of video and prompt: a killed
run goes on with the video it was at, a repeated one judges the videos that changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from matrix_video.data.dataset import DatasetWriter
from matrix_video.data.video import read_video
from matrix_video.evaluation.config import EvaluateConfig
from matrix_video.evaluation.judging import Judging, Row, Source
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
    without a prompt, for questions that the judge does not answer, and where not one video could be
    judged.
    """
    judge = OracleJudge() if judge is None else judge
    known = read_config(config.out)
    # What lies in these folders may change: its verdicts are kept by content.
    open_to = [n for n in ("videos", "prompts") if known.get(n) == str(getattr(config, n))]
    with RunFolder.open(config.out, config, command="evaluate", may_change=open_to) as run:
        prompts = PromptSet(config.prompts, config.videos, config.limit, judge)
        with Store(run.path / WORK) as store:
            judging = Judging(store, judge, prompts)
            own = _Own(prompts, judging, tracks=config.tracked)
            references = _references(config, prompts, judging, backbone)
            if config.tracked:
                own.write_tracked(run)
            head = Scores(
                judge=JudgeFacts(name=judge.name, version=judge.version),
                prompts=sha256_text(*judging.hashes),
                seed=config.seed,
                video_seed=prompts.video_seed,
                asked=len(prompts),
                delivered=len(own.files),
                scored=own.summary["if"].n,
                unscored=own.judged - own.summary["if"].n,
                quarantined=len(own.files) - own.judged,
                summary=own.summary,
                references={
                    name: ReferenceRow(
                        kind="null" if name in NULLS else "ceiling",
                        summary=summarise(row),
                        videos=(),
                    )
                    for name, row in references.items()
                },
                videos=(),
            )
            before = sha256_file(run.path / SCORES) if run.done(STAGE) else None
            write_scores(run.path, head, references, own.scores())
            if sha256_file(run.path / SCORES) != before:
                run.mark_done(STAGE, videos=own.judged)
    return own.summary


class _Own:
    """The generated videos: judged once, scored from the store whenever they are read."""

    def __init__(self, prompts: PromptSet, judging: Judging, *, tracks: bool) -> None:
        self._prompts, self._judging = prompts, judging
        self._keys: dict[int, str] = {}
        self.files: dict[int, str] = {}
        """Hashes of the delivered files, by prompt."""
        row, reason = Row(), ""
        for index, key, result in judging.row("videos", self._source, tracks=tracks):
            self._keys[index] = key
            reason = reason or result.reason
            if result.state != "failed":
                row.add(judging.score(index, result, self.files[index]))
        self.judged = len(row.ids)
        if not self.judged:
            reason = reason or next(iter(judging.broken.values()))
            raise MatrixError(
                f"not one of {len(self.files)} videos could be judged; the first: {reason}",
                remedy="Correct what it says, then run the command again",
                file=prompts.clips.path,
            )
        self.summary = summarise(row)

    def _source(self, index: int) -> Source | None:
        path = self._prompts.videos.get(self._prompts.clips.sample(index).id)
        if path is None:
            return None
        self.files[index] = sha256_file(path)
        return Source((self.files[index],), partial(read_video, path))

    def scores(self) -> Iterator[VideoScore]:
        """Of every video that was asked for, one at a time."""
        for index, sample in enumerate(self._prompts.clips.samples):
            file, result = self.files.get(index), self._result(index)
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
        return self._judging.result(self._keys[index]) if index in self._keys else None

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
    sources: dict[str, Callable[[int], Source | None]] = {}
    if config.nulls:
        sources[GROUND_TRUTH] = references.ground_truth
        sources |= {name: partial(references.pixels, name) for name in PIXELS}
    if config.model is not None:
        content = _content(config.model)
        sources[CEILING] = references.ceiling(config.model, content, backbone)
    rows = {name: Row() for name in (*NULLS, GROUND_TRUTH, CEILING)}
    for name, source in sources.items():
        for index, _, result in judging.row(name, source):
            if result.state == "failed":
                continue
            score = judging.score(index, result)
            rows[name].add(score)
            for foiled, kind in FOILED.items() if name == GROUND_TRUTH else ():
                if (numbers := foil_numbers(score, kind)) is not None:
                    rows[foiled].add(numbers)
    means = {name: summarise(rows[name])["if"].mean or 0.0 for name in NULLS}
    order = (*sorted(NULLS, key=lambda name: -means[name]), GROUND_TRUTH, CEILING)
    return {name: rows[name] for name in order if rows[name].ids}


def _content(model: str) -> str:
    """Hash of a pipeline's VAE where it is a folder, as the shipped one is; the name of another
    stands for itself."""
    from matrix_video.backbones.loading import TINY, shipped

    folder = Path(shipped() if model == TINY else model) / "vae"
    files = [sha256_file(file) for file in sorted(folder.glob("*")) if file.is_file()]
    return sha256_text(*(files or [model]))
