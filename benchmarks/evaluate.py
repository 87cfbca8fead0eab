"""Evaluation of a large set of small clips: seconds and memory of the protocol without its judge.

    python benchmarks/evaluate.py [--clips 11000] [--out FILE]

Clips of 5 frames of 32 x 32 are judged by a stub that answers at once, as videos and as prompt set.
``memory`` has the process's resident megabytes by videos judged; ``growth_mib`` is what it gains
from the tenth part of the clips to the last. ``again`` is the same command on the finished run.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import tyro
from numpy.typing import NDArray

from matrix_video.data.sample import Instance, Interaction, Sample
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.video import Video
from matrix_video.data.writer import DatasetWriter
from matrix_video.evaluation.config import EvaluateConfig
from matrix_video.evaluation.run import evaluate
from matrix_video.evaluation.verdict import Answer, Propagation, Verdict


@dataclass(frozen=True)
class EvaluateBenchmark:
    """Measure an evaluation of many clips."""

    clips: int = 11_000
    """Clips to judge."""
    nulls: bool = False
    """With null rows."""
    folder: Path | None = None
    """Where the clips lie or are written; None: a temporary folder."""
    out: Path | None = None
    """JSON file for the result."""


@dataclass
class Stub:
    """Says yes to everything, and notes the process's memory now and then."""

    every: int
    name: str = "stub"
    version: str = "1"
    verbs: tuple[str, ...] | None = ("push", "pull", "hit", "hug")
    seen: int = 0
    memory: dict[int, float] = field(default_factory=dict[int, float])

    def judge(
        self, video: Video, sample: Sample, first_masks: Mapping[str, NDArray[np.bool_]]
    ) -> Verdict:
        self.seen += 1
        if self.seen % self.every == 0:
            self.memory[self.seen] = round(resident_mib(), 1)
        ten = tuple(Answer(q, "yes", 1, {"number": 1.0}) for q in range(1, 11))
        frames = range(1, len(video))
        return Verdict(
            tuple(ten for _ in sample.interactions),
            tuple(Propagation(t, "no", "no") for t in frames),
        )


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def write_clips(folder: Path, clips: int) -> None:
    """Write one clip, and copies of it under other names: each is a prompt of its own."""
    mask_THW = np.zeros((2, 5, 32, 32), dtype=bool)
    mask_THW[0, :, 4:12, 4:12] = mask_THW[1, :, 20:28, 20:28] = True
    tracks = {f"id{i + 1}": MaskTrack.from_masks(mask_THW[i]) for i in range(2)}
    sample = Sample(
        id="clip-000000",
        file_name="videos/clip-000000.mp4",
        caption="a ball pushes a box",
        instances=tuple(
            Instance(id=f"id{i}", noun=noun, phrase=noun) for i, noun in ((1, "ball"), (2, "box"))
        ),
        interactions=(Interaction(subject="id1", verb="push", object="id2"),),
    )
    with DatasetWriter(folder) as writer:
        random = np.random.default_rng(0)
        frames_THWC = random.integers(0, 256, (5, 32, 32, 3), np.uint8)
        writer.add(sample, frames_THWC, 8.0, tracks, lossless=True)
    with (folder / "metadata.jsonl").open("a") as metadata:
        for index in range(1, clips):
            name = f"clip-{index:06d}"
            change = {"id": name, "file_name": f"videos/{name}.mp4"}
            metadata.write(sample.model_copy(update=change).model_dump_json() + "\n")
            for place, kind in (("videos", "mp4"), ("tracks", "json")):
                first = folder / place / f"{sample.id}.{kind}"
                shutil.copyfile(first, folder / place / f"{name}.{kind}")


def main(config: EvaluateBenchmark) -> None:
    root = config.folder or Path(mkdtemp())
    data, run = root / "clips", root / "run"
    if not (data / "metadata.jsonl").exists():
        write_clips(data, config.clips)
    shutil.rmtree(run, ignore_errors=True)
    stub = Stub(max(config.clips // 10, 1))
    asked = EvaluateConfig(videos=data, prompts=data, out=run, nulls=config.nulls)
    seconds: dict[str, float] = {}
    for name in ("judge", "again"):
        began = time.perf_counter()
        evaluate(asked, judge=stub)
        seconds[name] = round(time.perf_counter() - began, 1)
    memory = list(stub.memory.values())
    result = {
        "benchmark": "evaluate",
        "clips": config.clips,
        "nulls": config.nulls,
        "judged": stub.seen,
        "seconds": seconds,
        "clips_per_second": round(config.clips / seconds["judge"], 1),
        "memory": stub.memory,
        "growth_mib": round(memory[-1] - memory[0], 1),
        "resident_after_mib": round(resident_mib(), 1),
        "work_mib": round(sum(f.stat().st_size for f in run.glob("work.sqlite*")) / 2**20, 1),
        "scores_mib": round((run / "scores.json").stat().st_size / 2**20, 1),
        "machine": platform.processor() or platform.machine(),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if config.out is not None:
        config.out.write_text(text + "\n")
    if config.folder is None:
        shutil.rmtree(root)


if __name__ == "__main__":
    main(tyro.cli(EvaluateBenchmark))
