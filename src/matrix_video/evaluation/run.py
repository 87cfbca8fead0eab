"""An evaluation run: generated videos and their prompt set in, ``scores.json`` out.

Rows are judged one after the other and kept in ``rows/<row>.json``; a killed run goes on with the
row it was at. Shapes: B batch, T frames, H rows, W columns, C colours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.dataset import Dataset
from matrix_video.evaluation.config import EvaluateConfig
from matrix_video.evaluation.nulls import derangement, drifting, frozen
from matrix_video.evaluation.oracle import first_masks, judge
from matrix_video.evaluation.scoring import Estimate, Metric, VideoScore, score_video, summarise
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import read_json, write_json
from matrix_video.services.progress import progress
from matrix_video.services.run import RunFolder

SCORES: Final = "scores.json"
NULLS: Final = ("frozen_first_frame", "another_prompts_clip", "straight_drift")
CEILING: Final = "ceiling"
_OWN: Final = "videos"
_BATCH: Final = 8

Frames = NDArray[np.uint8]


def evaluate(config: EvaluateConfig) -> dict[Metric, Estimate]:
    """Judge every video and write ``scores.json``; returns the videos' own summary.

    Raises `MatrixError` for a video without a prompt, and for videos of another size or length than
    can be judged.
    """
    videos = open_videos(config.videos)
    prompts = Dataset(config.prompts)
    rows = _matching(videos, prompts)
    with RunFolder.open(config.out, config, command="evaluate") as run:
        own = _row(run, _OWN, prompts, rows, lambda i: videos.video(i).frames_THWC)
        others: dict[str, list[VideoScore]] = {}
        if config.nulls:
            others |= _null_rows(run, config, prompts, rows)
        if config.model is not None:
            others[CEILING] = _ceiling(run, config.model, prompts, rows)
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
        run.mark_done("evaluate", videos=len(own))
    return summary


def read_scores(folder: Path) -> list[VideoScore]:
    """The videos of a finished evaluation run."""
    stored = read_json(folder / SCORES)
    return [VideoScore.from_json(video) for video in stored["videos"]]


def open_videos(path: Path) -> Dataset:
    """A generation run's clips, or a data set itself."""
    inner = path / "dataset"
    return Dataset(inner if inner.is_dir() else path)


def _plain(summary: dict[Metric, Estimate]) -> dict[str, Any]:
    return {metric: asdict(found) for metric, found in summary.items()}


def _matching(videos: Dataset, prompts: Dataset) -> list[int]:
    """For each video the row of its prompt."""
    where = {sample.id: row for row, sample in enumerate(prompts.samples)}
    for sample in videos.samples:
        if sample.id not in where:
            raise MatrixError(
                f"video {sample.id!r} has no prompt in {prompts.path}",
                remedy="Give the prompt set that the videos were generated from",
                file=videos.path / "metadata.jsonl",
                field="id",
            )
    if not videos.samples:
        raise MatrixError("there are no videos", remedy="Generate some first", file=videos.path)
    return [where[sample.id] for sample in videos.samples]


def _row(
    run: RunFolder,
    name: str,
    prompts: Dataset,
    rows: Sequence[int],
    frames_of: Callable[[int], Frames],
) -> list[VideoScore]:
    """Scores of one row of the table; ``frames_of`` gives video i of it."""
    stored = run.path / "rows" / f"{name}.json"
    if stored.exists():
        return [VideoScore.from_json(video) for video in read_json(stored)]
    scores: list[VideoScore] = []
    with progress(f"judge {name.replace('_', ' ')}", len(rows)) as advance:
        for i, row in enumerate(rows):
            sample = prompts.samples[row]
            try:
                verdict = judge(frames_of(i), prompts.tracks(row), sample)
            except ValueError as error:
                raise MatrixError(
                    f"video {sample.id!r} cannot be judged: {error}",
                    remedy="Generate it at its prompt's own size and length",
                    file=run.path,
                    field=name,
                ) from error
            scores.append(score_video(sample.id, verdict))
            advance(1)
    write_json(stored, [score.to_json() for score in scores])
    return scores


def _null_rows(
    run: RunFolder, config: EvaluateConfig, prompts: Dataset, rows: Sequence[int]
) -> dict[str, list[VideoScore]]:
    def truth(i: int) -> Frames:
        return prompts.video(rows[i]).frames_THWC

    def drift(i: int) -> Frames:
        frames_THWC = truth(i)
        masks = first_masks(prompts.tracks(rows[i]), prompts.samples[rows[i]])
        return drifting(
            frames_THWC[0], list(masks.values()), len(frames_THWC), config.seed * 1_000_003 + i
        )

    makers: dict[str, Callable[[int], Frames]] = {NULLS[0]: lambda i: frozen(truth(i))}
    if len(rows) > 1:
        partner = derangement(len(rows), config.seed)
        makers[NULLS[1]] = lambda i: truth(partner[i])
    makers[NULLS[2]] = drift
    return {name: _row(run, name, prompts, rows, maker) for name, maker in makers.items()}


def _ceiling(run: RunFolder, model: str, prompts: Dataset, rows: Sequence[int]) -> list[VideoScore]:
    """Ground truth through the model's VAE and back: the best that the model could show."""
    import torch

    from matrix_video.backbones.loading import backbone_for, load_pipeline

    if (run.path / "rows" / f"{CEILING}.json").exists():
        return _row(run, CEILING, prompts, rows, lambda _: np.zeros(0, np.uint8))
    backbone = backbone_for(load_pipeline(model))
    done: dict[int, Frames] = {}

    def round_trip(i: int) -> Frames:
        if i not in done:
            done.clear()
            chunk = range(i, min(i + _BATCH, len(rows)))
            frames_BTHWC = np.stack([prompts.video(rows[j]).frames_THWC for j in chunk])
            with torch.no_grad():
                latents = backbone.encode_video(torch.from_numpy(frames_BTHWC))
                decoded_BTHWC = backbone.decode(latents).cpu().numpy()
            done.update(zip(chunk, decoded_BTHWC, strict=True))
        return done[i]

    return _row(run, CEILING, prompts, rows, round_trip)
