"""What a planned run really takes: the same run on a real pipeline, small enough to be run.

This is how predictions are checked (`benchmarks/plan.py`, tests). On a CPU PyTorch's profiler says
what is allocated and freed, on a GPU its caching allocator does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from matrix_video.analysis.collect import level_maps
from matrix_video.analysis.probe import Probe
from matrix_video.analysis.targets import clip_targets
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.text import Text
from matrix_video.data.clip import Clip
from matrix_video.generation.sampler import Prompt, Sampling, sample
from matrix_video.plan.clips import stand_in
from matrix_video.plan.config import PlanConfig
from matrix_video.plan.costs import batch_of
from matrix_video.plan.predict import chosen_layers, train_config
from matrix_video.training.batches import EncodedSet
from matrix_video.training.encode import encode_clip
from matrix_video.training.loop import Trainer
from matrix_video.training.parallel import Parallel, make_accelerator
from matrix_video.training.student import make_student


def measured(
    config: PlanConfig, backbone: Backbone, size: tuple[int, int, int], *, encoded: bool = False
) -> int:
    """Peak bytes of the run that ``config`` plans, weights included, without `RUNTIME`.

    Of a run over one clip of ``size`` pixels: all of it happens at least once. With ``encoded``
    the clip of a training is encoded before, so that its updates alone are measured.
    """
    clip = stand_in(size, config.instances, config.region)
    if config.mode == "train":
        return _trained(config, backbone, clip, encoded=encoded)
    run = {"analyze": _analyze, "generate": _generate}[config.mode]
    return _weights(backbone) + allocated(run(config, backbone, clip), backbone.device)


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


def _trained(config: PlanConfig, backbone: Backbone, clip: Clip, *, encoded: bool) -> int:
    """The peak of encoding or of updates, between which the encoders go, as in `training.run`.

    Weights are there before anything is watched, so each part is watched for itself.
    """
    layers, count, device = chosen_layers(config, backbone), batch_of(config), backbone.device
    changes = {"steps": 2, "batch": count, "caption_dropout": 0.0, "id_drop": 0.0}
    own = train_config(config, backbone).model_copy(update=changes)

    def encode() -> Text:
        if not encoded:
            encode_clip(backbone, clip, mentions=own.mentions, up=own.up)
        with torch.no_grad():
            return backbone.encode_text([""]).to("cpu")

    def update() -> None:
        student = make_student(backbone, own, layers, known.clip)
        try:
            data = EncodedSet([known.id], lambda _: known)
            parallel = Parallel(make_accelerator(own), shard=False)
            Trainer(student, data, empty, own, None, parallel).fit(lambda _: {})
        finally:
            student.detach()

    known = encode_clip(backbone, clip, mentions=own.mentions, up=own.up)
    empty = encode()
    encoding = _weights(backbone) + allocated(encode, device)
    parts = dict(backbone.pipe.components)
    backbone.release_encoders()
    try:
        with TemporaryDirectory() as folder:
            own = own.model_copy(update={"out": Path(folder)})
            updates = _weights(backbone) + allocated(update, device)
    finally:
        backbone.pipe.register_modules(**parts)
    return max(encoding, updates)


def _weights(backbone: Backbone) -> int:
    """Bytes of all parts that the pipeline has now."""
    modules = [m for m in backbone.pipe.components.values() if isinstance(m, nn.Module)]
    return sum(_stored(x) for m in modules for x in (*m.parameters(), *m.buffers()))


def _stored(tensor: Any) -> int:
    """Bytes of a tensor, or of those that a quantised one is made of."""
    if not is_traceable_wrapper_subclass(tensor):
        return tensor.nbytes
    names, _ = tensor.__tensor_flatten__()
    return sum(getattr(tensor, name).nbytes for name in names)


def _analyze(config: PlanConfig, backbone: Backbone, clip: Clip) -> Callable[[], object]:
    targets = clip_targets(backbone, clip, backbone.clip_grid(clip))
    count = batch_of(config)
    probe = Probe(levels=count, batch=count, precision=config.precision)
    layers = range(backbone.num_layers)
    return lambda: [*level_maps(backbone, clip, targets, probe, layers)]


def _generate(config: PlanConfig, backbone: Backbone, clip: Clip) -> Callable[[], object]:
    sampling = Sampling(steps=2, guidance=config.guidance, precision=config.precision)
    first = clip.video.frames_THWC[0]
    prompts = [Prompt(f"{i}", clip.sample.caption, first) for i in range(batch_of(config))]
    return lambda: sample(backbone, prompts, len(clip.video), sampling)
