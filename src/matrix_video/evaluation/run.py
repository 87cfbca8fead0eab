"""An evaluation run: generated videos and their prompt set in, ``scores.json`` out.

Rows are judged one after the other and kept in ``rows/<row>.json``; a killed run goes on with the
row it was at. Shapes: T frames, H rows, W columns, C colours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.data.tracks import first_masks
from matrix_video.data.video import probe_video
from matrix_video.evaluation.config import EvaluateConfig
from matrix_video.evaluation.nulls import derangement, drifting, frozen
from matrix_video.evaluation.oracle import Verdict, judge
from matrix_video.evaluation.scoring import Estimate, Metric, VideoScore, score_video, summarise
from matrix_video.evaluation.tracked import tracks_of
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import read_json, write_json
from matrix_video.services.progress import progress
from matrix_video.services.run import RunFolder

if TYPE_CHECKING:
    from matrix_video.backbones.base import Backbone

SCORES: Final = "scores.json"
TRACKED: Final = "tracked"
NULLS: Final = ("frozen_first_frame", "another_prompts_clip", "straight_drift")
CEILING: Final = "ceiling"
STAGE: Final = "evaluate"

Frames = NDArray[np.uint8]


def evaluate(config: EvaluateConfig, backbone: Backbone | None = None) -> dict[Metric, Estimate]:
    """Judge every video and write ``scores.json``; returns the videos' own summary.

    ``backbone`` saves loading ``config.model`` for the ceiling. A finished run returns at once.
    Raises `MatrixError` for a video without a prompt, and for videos of another size or length than
    can be judged.
    """
    with RunFolder.open(config.out, config, command="evaluate") as run:
        if run.done(STAGE):
            return summarise(read_scores(config.out))
        videos = open_videos(config.videos)
        if not len(videos):
            raise MatrixError("there are no videos", remedy="Generate some first", file=videos.path)
        prompts = Dataset(config.prompts).subset(sample.id for sample in videos.samples)
        own = _row(run, "videos", partial(_own, run, config, videos, prompts))
        others = {
            name: _row(run, name, make)
            for name, make in _reference_rows(config, prompts, backbone).items()
        }
        summary = summarise(own)
        write_json(
            run.path / SCORES,
            {
                "format": 1,
                "judge": "oracle",
                "videos": [video.to_json() for video in own],
                "summary": _plain(summary),
                "unscored": sum(video.unscored for video in own),
                "nulls": {name: _plain(summarise(row)) for name, row in others.items()},
            },
        )
        run.mark_done(STAGE, videos=len(own))
    return summary


def read_scores(folder: Path) -> list[VideoScore]:
    """The videos of a finished evaluation run; `MatrixError` where the file is none of ours."""
    file = folder / SCORES
    stored = read_json(file)
    try:
        return [VideoScore.from_json(video) for video in stored["videos"]]
    except (KeyError, TypeError) as error:
        raise MatrixError(
            f"these are no scores ({error})",
            remedy="Give the folder of a finished matrix evaluate run",
            file=file,
        ) from error


def open_videos(path: Path) -> Dataset:
    """A generation run's clips, or a data set itself."""
    inner = path / "dataset"
    return Dataset(inner if inner.is_dir() else path)


def _plain(summary: dict[Metric, Estimate]) -> dict[str, Any]:
    return {metric: asdict(found) for metric, found in summary.items()}


def _row(run: RunFolder, name: str, make: Callable[[], list[VideoScore]]) -> list[VideoScore]:
    """A row of the table, made unless an interrupted run has it already."""
    stored = run.path / "rows" / f"{name}.json"
    if stored.exists():
        return [VideoScore.from_json(video) for video in read_json(stored)]
    scores = make()
    write_json(stored, [score.to_json() for score in scores])
    return scores


def _own(
    run: RunFolder, config: EvaluateConfig, videos: Dataset, prompts: Dataset
) -> list[VideoScore]:
    def frames_of(i: int) -> Frames:
        return videos.video(i).frames_THWC

    if not config.tracked:
        return _judged("videos", prompts, range(len(prompts)), frames_of)
    with DatasetWriter(run.path / TRACKED) as writer:

        def keep(i: int, verdict: Verdict) -> None:
            if not writer.has(videos.samples[i].id):
                writer.add_file(videos.samples[i], videos.video_path(i), tracks_of(verdict))

        return _judged("videos", prompts, range(len(prompts)), frames_of, keep)


def _judged(
    title: str,
    prompts: Dataset,
    rows: Iterable[int],
    frames_of: Callable[[int], Frames],
    keep: Callable[[int, Verdict], None] | None = None,
) -> list[VideoScore]:
    """Scores of one video for each prompt in ``rows``; ``keep`` is shown every verdict."""
    scores: list[VideoScore] = []
    rows = list(rows)
    with progress(f"judge {title.replace('_', ' ')}", len(rows)) as advance:
        for i in rows:
            sample, tracks, frames_THWC = prompts.samples[i], prompts.tracks(i), frames_of(i)
            try:
                verdict = judge(frames_THWC, tracks, sample)
            except ValueError as error:
                raise MatrixError(
                    f"video {sample.id!r} cannot be judged: {error}",
                    remedy="Generate it at its prompt's own size and length",
                    file=prompts.path,
                    field=title,
                ) from error
            scores.append(score_video(sample.id, verdict))
            if keep is not None:
                keep(i, verdict)
            advance(1)
    return scores


def _reference_rows(
    config: EvaluateConfig, prompts: Dataset, backbone: Backbone | None
) -> dict[str, Callable[[], list[VideoScore]]]:
    """What a table is read against, by row name; a clip may have no partner of its own shape."""
    every = range(len(prompts))

    def truth(i: int) -> Frames:
        return prompts.video(i).frames_THWC

    def drift(i: int) -> Frames:
        frames_THWC, sample = truth(i), prompts.samples[i]
        masks = list(first_masks(prompts.tracks(i)).values())
        return drifting(frames_THWC[0], masks, len(frames_THWC), f"{config.seed} {sample.id}")

    rows: dict[str, Callable[[], list[VideoScore]]] = {}
    if config.nulls:
        partner = _partners(prompts, config.seed)
        makers: tuple[tuple[Iterable[int], Callable[[int], Frames]], ...] = (
            (every, lambda i: frozen(truth(i))),
            (sorted(partner), lambda i: truth(partner[i])),
            (every, drift),
        )
        for name, (chosen, maker) in zip(NULLS, makers, strict=True):
            rows[name] = partial(_judged, name, prompts, chosen, maker)
    if config.model is not None:
        rows[CEILING] = partial(_ceiling, config.model, backbone, prompts, truth)
    return rows


def _partners(prompts: Dataset, seed: int) -> dict[int, int]:
    """For each prompt another one of the same size, where there is one."""
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i in range(len(prompts)):
        info = probe_video(prompts.video_path(i))
        alike[info.height, info.width].append(i)
    return {
        i: group[j]
        for group in alike.values()
        if len(group) > 1
        for i, j in zip(group, derangement(len(group), seed), strict=True)
    }


def _ceiling(
    model: str, backbone: Backbone | None, prompts: Dataset, truth: Callable[[int], Frames]
) -> list[VideoScore]:
    """Ground truth through the model's VAE and back: the best that the model could show."""
    import torch

    from matrix_video.backbones.loading import backbone_for, load_pipeline

    loaded = backbone_for(load_pipeline(model)) if backbone is None else backbone

    def round_trip(i: int) -> Frames:
        with torch.no_grad():
            latents = loaded.encode_video(torch.from_numpy(truth(i))[None])
            return loaded.decode(latents)[0].cpu().numpy()

    return _judged(CEILING, prompts, range(len(prompts)), round_trip)
