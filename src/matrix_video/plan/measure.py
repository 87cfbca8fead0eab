"""What a planned run really takes: the same run on a real pipeline, small enough to be run.

This is how predictions are checked (`benchmarks/plan.py`, tests). On a CPU PyTorch's profiler says
what is allocated and freed, on a GPU its caching allocator does.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count as count_up
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from matrix_video.analysis.collect import level_maps
from matrix_video.analysis.probe import Probe
from matrix_video.analysis.targets import clip_targets
from matrix_video.backbones.base import Backbone
from matrix_video.data.clip import Clip
from matrix_video.data.dataset import DatasetWriter
from matrix_video.generation.sampler import Prompt, Sampling, sample
from matrix_video.plan.clips import stand_in
from matrix_video.plan.config import PlanConfig
from matrix_video.plan.costs import batch_of
from matrix_video.plan.predict import chosen_layers, train_config
from matrix_video.training.run import train


def measured(
    config: PlanConfig, backbone: Backbone, size: tuple[int, int, int], *, encoded: bool = False
) -> int:
    """Peak bytes of the run that ``config`` plans, weights included, without `RUNTIME`.

    Of a run over one clip of ``size`` pixels: all of it happens at least once. With ``encoded``
    the clip of a training is encoded before, so that its updates alone are measured.
    """
    clip = stand_in(size, config.instances, config.region)
    modules = [m for m in backbone.pipe.components.values() if isinstance(m, nn.Module)]
    weights = sum(x.nbytes for m in modules for x in (*m.parameters(), *m.buffers()))
    run = {"train": _train, "analyze": _analyze, "generate": _generate}[config.mode]
    with TemporaryDirectory() as folder:
        prepared = run(config, backbone, clip, Path(folder))
        if encoded:
            prepared()
        return weights + allocated(prepared, backbone.device)


def allocated(run: Callable[[], object], device: torch.device) -> int:
    """Largest sum of live allocations that ``run`` adds to what there was."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    result: Any = profiler.profiler
    events = [e for e in result.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def _train(
    config: PlanConfig, backbone: Backbone, clip: Clip, folder: Path
) -> Callable[[], object]:
    with DatasetWriter(folder / "data") as writer:
        frames = clip.video.frames_THWC
        writer.add(clip.sample, frames, clip.video.fps, clip.tracks, lossless=True)
    layers = chosen_layers(config, backbone)
    count = batch_of(config)
    own = train_config(config, backbone).model_copy(
        update={
            "data": folder / "data",
            "cache": folder / "cache",
            "v2t": layers.v2t,
            "v2v": layers.v2v,
            "steps": 2,
            "batch": count,
            "heldout_samples": 0,
            "caption_dropout": 0.0,
            "id_drop": 0.0,
        }
    )
    runs = count_up()
    return lambda: train(own.model_copy(update={"out": folder / f"run{next(runs)}"}), backbone.pipe)


def _analyze(
    config: PlanConfig, backbone: Backbone, clip: Clip, folder: Path
) -> Callable[[], object]:
    del folder
    targets = clip_targets(backbone, clip, backbone.clip_grid(clip))
    count = batch_of(config)
    probe = Probe(levels=count, batch=count, precision=config.precision)
    layers = range(backbone.num_layers)
    return lambda: [*level_maps(backbone, clip, targets, probe, layers)]


def _generate(
    config: PlanConfig, backbone: Backbone, clip: Clip, folder: Path
) -> Callable[[], object]:
    del folder
    sampling = Sampling(steps=2, guidance=config.guidance, precision=config.precision)
    first = clip.video.frames_THWC[0]
    prompts = [Prompt(f"{i}", clip.sample.caption, first) for i in range(batch_of(config))]
    return lambda: sample(backbone, prompts, len(clip.video), sampling)
