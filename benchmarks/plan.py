"""How near `matrix plan` comes to what a run allocates.

    python benchmarks/plan.py [--families CogVideoX Wan ...] [--out FILE]

Each row is one setting, planned for from the configuration alone and then really run: the shipped
tiny pipeline in a dozen ways, and a random tiny pipeline of every variant of every family. Bytes
are peaks of the whole run with its weights, without the gigabyte that a plan adds for libraries;
``updates`` are those of a training whose clip was encoded before. On a CPU the profiler's
allocation events are summed, on a GPU the caching allocator is asked.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import tyro

from matrix_video.backbones.base import Backbone
from matrix_video.backbones.loading import backbone_for, families, load_pipeline
from matrix_video.plan.config import PlanConfig
from matrix_video.plan.machine import machine
from matrix_video.plan.measure import measured
from matrix_video.plan.predict import RUNTIME, Planner
from matrix_video.plan.work import ONCE, STEP

SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"aligned": False},
    {"gradient_checkpointing": True},
    {"gradient_checkpointing": True, "aligned": False},
    {"lora_layers": "all", "id_map": False},
    {"v2t": (5, 6, 7), "v2v": (1,)},
    {"batch": 1},
    {"region": 0.4, "instances": 4},
    {"num_frames": 9, "height": 96, "width": 64},
    {"mode": "analyze"},
    {"mode": "analyze", "batch": 24},
    {"mode": "generate"},
    {"mode": "generate", "guidance": 1.0},
)
"""Of the shipped pipeline; batch 4 where none is given."""


@dataclass(frozen=True)
class PlanBenchmark:
    """Compare plans with runs."""

    families: tuple[str, ...] | None = None
    """Families of random pipelines, by their names; None: all."""
    threads: int = 1
    """CPU threads."""
    out: Path | None = None
    """JSON file for the result."""


@dataclass(frozen=True)
class Row:
    """One setting; bytes."""

    model: str
    setting: dict[str, Any]
    part: str
    predicted: int
    measured: int

    @property
    def ratio(self) -> float:
        return self.predicted / self.measured


def compare(
    planner: Planner, name: str, config: PlanConfig, setting: dict[str, Any], backbone: Backbone
) -> Iterator[Row]:
    """The whole run, and in training the updates alone."""
    plan = planner.predict(config)
    yield Row(name, setting, "run", plan.total - RUNTIME, measured(config, backbone, plan.clip))
    if config.mode == "train":
        step = max(phase.peak for phase in plan.phases if phase.name in (ONCE, STEP))
        found = measured(config, backbone, plan.clip, encoded=True)
        yield Row(name, setting, "updates", step - RUNTIME, found)


def shipped(planner: Planner) -> Iterator[Row]:
    for setting in SETTINGS:
        config = PlanConfig(**{"batch": 4, **setting})
        backbone = backbone_for(load_pipeline("tiny"))
        yield from compare(planner, "tiny", config, setting, backbone)


def random(planner: Planner, names: tuple[str, ...] | None) -> Iterator[Row]:
    for point in families().values():
        cls: Any = point.load()
        if names is not None and cls.family not in names:
            continue
        for variant in cls.variants:
            with tempfile.TemporaryDirectory() as folder:
                cls.tiny(variant).save_pretrained(folder)
                frames, height, width = cls.tiny_clip
                for mode in ("train", "analyze", "generate"):
                    config = PlanConfig(
                        model=folder,
                        mode=mode,
                        batch=1,
                        num_frames=frames,
                        height=height,
                        width=width,
                    )
                    backbone = backbone_for(cls.tiny(variant))
                    name = f"{cls.family} {variant}"
                    yield from compare(planner, name, config, {"mode": mode}, backbone)


def main(config: PlanBenchmark) -> None:
    torch.set_num_threads(config.threads)
    planner = Planner(machine("this", utilisation=0.4, tflops=1.0))
    rows: list[Row] = []
    for source in (shipped(planner), random(planner, config.families)):
        for row in source:
            rows.append(row)
            print(
                f"{row.model:22} {row.part:8} {row.predicted / 1e6:8.2f} {row.measured / 1e6:8.2f} "
                f"MB  {row.ratio:.3f}  {row.setting}",
                flush=True,
            )
    ratios = [row.ratio for row in rows]
    print(f"{len(rows)} rows: predicted / measured from {min(ratios):.3f} to {max(ratios):.3f}")
    if config.out is not None:
        result = {
            "benchmark": "plan",
            "threads": config.threads,
            "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
            "least": min(ratios),
            "most": max(ratios),
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "versions": {name: version(name) for name in ("torch", "diffusers", "matrix-video")},
        }
        config.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(PlanBenchmark))
