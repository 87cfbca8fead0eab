"""What the oracle judge says of videos that do not show what was asked: the table of the docs.

    python benchmarks/judge.py [--clips 160] [--out FILE]

Every row has videos of tiny world's split ``val``: ``truth`` as rendered; ``roles exchanged`` and
``another verb``, whose prompts ask for subject and object the other way round, or for another of
the eight verbs in turn; ``always push``, whose videos all show a push, whatever is asked; and
``truth`` damaged from frame 6 on: a ``stranger`` (a black square from nowhere), ``noise`` in place
of the background, and a ``melted`` object, of whose area a third is left.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count, islice, repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy import ndimage

from matrix_video.analysis.labels import SUCCESS_AT
from matrix_video.data.sample import Interaction, Sample
from matrix_video.data.tracks import first_masks
from matrix_video.data.video import Video
from matrix_video.evaluation.oracle import OracleJudge
from matrix_video.evaluation.questions import foils, with_foils
from matrix_video.evaluation.scores import METRIC_NAMES, METRICS, VideoScore
from matrix_video.evaluation.scoring import score_video, summarise
from matrix_video.world.clips import WorldClip, make_clip
from matrix_video.world.palette import FPS
from matrix_video.world.scene import VERBS

_FROM: Final = 6
"""Frame from which a damage shows."""
_SIDE: Final = 10
Frames = NDArray[np.uint8]
Damage = Callable[[WorldClip, Frames, np.random.Generator], None]


@dataclass(frozen=True)
class JudgeBenchmark:
    """Judge planted videos."""

    clips: int = 160
    """Clips a row."""
    processes: int = 2
    """Rows judged at once."""
    out: Path | None = None
    """JSON file for the result."""


def _clips() -> Iterator[WorldClip]:
    return (make_clip(0, "val", index) for index in count())


def _asked(clip: WorldClip, **change: Any) -> Sample:
    """The sample with another interaction asked for."""
    (one,) = clip.sample.interactions
    fields = {"subject": one.subject, "verb": one.verb, "object": one.object, **change}
    both = VERBS[fields["verb"]].bidirectional
    asked = Interaction(**fields, bidirectional=both)
    return clip.sample.model_copy(update={"interactions": (asked,)})


def _another_verb(number: int, clip: WorldClip) -> Sample:
    others = [verb for verb in VERBS if verb != clip.sample.interactions[0].verb]
    return _asked(clip, verb=others[number % len(others)])


def _stranger(clip: WorldClip, frames_THWC: Frames, random: np.random.Generator) -> None:
    taken_HW = clip.masks_RTHW.any(axis=(0, 1))
    free = [
        (y, x)
        for y in range(64 - _SIDE)
        for x in range(64 - _SIDE)
        if not taken_HW[y : y + _SIDE, x : x + _SIDE].any()
    ]
    y, x = free[random.integers(len(free))] if free else (0, 0)
    frames_THWC[_FROM:, y : y + _SIDE, x : x + _SIDE] = 0


def _noise(clip: WorldClip, frames_THWC: Frames, random: np.random.Generator) -> None:
    background_THW = ~clip.masks_RTHW.any(axis=0)
    background_THW[:_FROM] = False
    shape = frames_THWC[background_THW].shape
    frames_THWC[background_THW] = random.integers(0, 256, shape, dtype=np.uint8)


def _melted(clip: WorldClip, frames_THWC: Frames, random: np.random.Generator) -> None:
    ids = [instance.id for instance in clip.sample.instances]
    object_ = ids.index(clip.sample.interactions[0].object)
    bare_3 = np.median(frames_THWC[0][~clip.masks_RTHW[:, 0].any(axis=0)], axis=0)
    for t in range(_FROM, len(frames_THWC)):
        mask_HW = clip.masks_RTHW[object_, t]
        depth_HW = np.asarray(ndimage.distance_transform_edt(mask_HW))
        if mask_HW.any():
            kept = np.quantile(depth_HW[mask_HW], 2 / 3)
            frames_THWC[t][mask_HW & (depth_HW < kept)] = bare_3


def _rows() -> dict[str, Iterator[tuple[Sample, WorldClip, Damage | None]]]:
    directed = (c for c in _clips() if not c.sample.interactions[0].bidirectional)
    pushes = (c for c in _clips() if c.sample.interactions[0].verb == "push")
    verbs = list(VERBS)
    return {
        "truth": ((c.sample, c, None) for c in _clips()),
        "roles exchanged": (
            (_asked(c, subject=one.object, object=one.subject), c, None)
            for c in directed
            for one in c.sample.interactions
        ),
        "another verb": ((_another_verb(i, c), c, None) for i, c in enumerate(_clips())),
        "always push": (
            (_asked(c, verb=verbs[i % len(verbs)]), c, None) for i, c in enumerate(pushes)
        ),
        "stranger": _damaged(_stranger),
        "noise": _damaged(_noise),
        "melted": _damaged(_melted),
    }


def _damaged(damage: Damage) -> Iterator[tuple[Sample, WorldClip, Damage]]:
    return ((clip.sample, clip, damage) for clip in _clips())


def _score(sample: Sample, clip: WorldClip, damage: Damage | None) -> VideoScore:
    judge, frames_THWC = OracleJudge(), clip.frames_THWC.copy()
    if damage is not None:
        damage(clip, frames_THWC, np.random.default_rng(len(sample.caption)))
    asked = foils(sample, judge.verbs or ())
    video = Video(frames_THWC, np.arange(len(frames_THWC)) / FPS, FPS)
    verdict = judge.judge(video, with_foils(sample, asked), first_masks(clip.tracks()))
    return score_video(sample, verdict, asked)


def _row(name: str, clips: int) -> dict[str, Any]:
    scores = [_score(*case) for case in islice(_rows()[name], clips)]
    high = [(score.sgi_raw or 0) >= SUCCESS_AT for score in scores]
    success = [h and (s.margin or 0) > 0 for h, s in zip(high, scores, strict=True)]
    return {
        **{metric: one.model_dump(exclude={"p"}) for metric, one in summarise(scores).items()},
        "sgi_raw_high": float(np.mean(high)),
        "success": float(np.mean(success)),
    }


def main(config: JudgeBenchmark) -> None:
    began, names = time.perf_counter(), list(_rows())
    with ProcessPoolExecutor(config.processes) as pool:
        found = pool.map(_row, names, repeat(config.clips))
        rows = dict(zip(names, found, strict=True))
    lines = [["videos", "n", *(METRIC_NAMES[m] for m in METRICS), "SGI_raw ≥ 0.75", "success"]]
    for name, row in rows.items():
        means = [row[metric]["mean"] for metric in METRICS]
        lines.append(
            [name, str(config.clips)]
            + ["–" if mean is None else f"{mean:.3f}" for mean in means]
            + [f"{row['sgi_raw_high']:.0%}", f"{row['success']:.0%}"]
        )
    lines.insert(1, ["---"] * len(lines[0]))
    print("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    result = {
        "benchmark": "judge",
        "judge": f"oracle {OracleJudge.version}",
        "clips": config.clips,
        "seconds": round(time.perf_counter() - began),
        "rows": rows,
        "versions": {name: version(name) for name in ("numpy", "matrix-video")},
    }
    if config.out is not None:
        config.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(JudgeBenchmark))
