"""What SGA and SPA add to an update: LoRA alone against LoRA with both, on the same layers.

    python benchmarks/train_step.py [--rounds 7] [--models tiny large] [--out FILE]
    python benchmarks/train_step.py --models cogvideox-5b --device cuda [--blocks 42]

Whole updates of `training.loop.Trainer` on clips that were encoded before: batch from the cache,
id map, forward, losses, backward, clipping, AdamW. ``tiny`` is the shipped pipeline, ``large`` a
random CogVideoX of a few wide layers over more than 4,000 tokens, ``cogvideox-5b`` some or all
blocks of CogVideoX-5B-I2V with random weights in bfloat16, as its recipe trains it. LoRA alone runs
untapped.

The two are updated in turn, the median over rounds counts. ``peak_bytes`` is the largest sum of
live allocations of one update, with all weights but the text encoder's (which a run drops) and
AdamW's state; ``data_share`` the part of an update that is spent on reading samples from the cache.
Targets, at 4,000 tokens or more: at most 1.15 times the time and 1.10 times the memory, and a data
share below 5 %.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

import torch
import tyro
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from matrix_video.attention.tap import tap
from matrix_video.backbones.blueprint import blueprint
from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.plan.clips import stand_in
from matrix_video.plan.measure import allocated
from matrix_video.training.batches import EncodedSet
from matrix_video.training.config import TrainConfig
from matrix_video.training.encode import encode_clip
from matrix_video.training.loop import Trainer
from matrix_video.training.parallel import Parallel, make_accelerator
from matrix_video.training.student import Layers, make_student

Model = Literal["tiny", "large", "cogvideox-5b"]
Method = Literal["lora", "lora + sga + spa"]
METHODS: Final[tuple[Method, ...]] = ("lora", "lora + sga + spa")


@dataclass(frozen=True)
class TrainStepBenchmark:
    """Measure both methods."""

    models: tuple[Model, ...] = ("tiny", "large")
    """Models to train."""
    device: str = "cpu"
    """Where."""
    blocks: int = 42
    """Blocks of cogvideox-5b, which has 42."""
    clip: tuple[int, int, int] = (49, 480, 720)
    """Frames, rows and columns of its clips."""
    rounds: int = 7
    """Rounds; the median counts."""
    threads: int = 2
    """CPU threads."""
    instances: int = 2
    """Instances of a clip; each but the last interacts with the next."""
    region: float = 0.1
    """Part of a frame that an instance covers."""
    out: Path | None = None
    """JSON file for the result."""


@dataclass(frozen=True)
class Case:
    """A model and the batches that it trains on."""

    make: Callable[[], Any]
    clip: tuple[int, int, int]
    layers: Layers
    batch: int
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of `TrainConfig`."""


def case_of(config: TrainStepBenchmark, model: Model) -> Case:
    if model == "tiny":
        make = partial(load_pipeline, "tiny", device=config.device)
        return Case(make, (17, 64, 64), Layers((3, 4), (4,)), 8)
    if model == "large":  # 17 frames of 232 x 232 pixels are 5 x 29 x 29 tokens of that VAE
        shape = {"layers": 4, "heads": 8, "head_dim": 64, "size": 232, "num_frames": 17}
        make = partial(tiny_pipeline, **shape, text_length=226)
        return Case(make, (17, 232, 232), Layers((1, 2), (2,)), 1)
    middle = config.blocks // 2
    options = {"gradient_checkpointing": True, "precision": "bf16", "weights": "bf16"}
    layers = Layers((middle // 2, middle), (middle,))
    return Case(partial(five_b, config.blocks, config.clip), config.clip, layers, 1, options)


def five_b(blocks: int, clip: tuple[int, int, int]) -> DiffusionPipeline:
    """CogVideoX-5B-I2V with so many blocks and random weights, for clips of (T, H, W) pixels.

    Its text encoder has one layer: it is gone before anything is measured.
    """
    plan = blueprint("cogvideox-5b-i2v")

    def read(path: str) -> dict[str, Any]:
        shorter = {"num_layers": 1} if path == "text_encoder/config.json" else {}
        return {**plan.read(path), **shorter}

    frames, height, width = clip
    learned = {"sample_frames": frames, "sample_height": height // 8, "sample_width": width // 8}
    changes = {"num_layers": blocks, **learned}
    pipe = replace(plan, read=read, transformer=changes).build(torch.bfloat16)
    torch.manual_seed(0)
    for module in modules(pipe):
        module.to_empty(device="cpu")
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
            else:
                nn.init.constant_(parameter, float(name.endswith("weight")))
        for buffer in module.buffers():
            buffer.zero_()
    return pipe


def modules(pipe: DiffusionPipeline) -> list[nn.Module]:
    return [part for part in pipe.components.values() if isinstance(part, nn.Module)]


@dataclass(frozen=True)
class Row:
    """One measurement. Bytes and seconds of one update."""

    model: Model
    tokens: int
    batch: int
    method: Method
    seconds: float
    data_share: float
    peak_bytes: int
    seconds_over_lora: float = 1.0
    peak_over_lora: float = 1.0


class Trained:
    """A model in training by one method."""

    def __init__(
        self, config: TrainStepBenchmark, case: Case, method: Method, cache: Path, stack: ExitStack
    ) -> None:
        aligned = method != "lora"
        own = TrainConfig(
            **case.options,
            data=cache,
            out=cache / "unused",
            batch=case.batch,
            id_drop=0.0,
            caption_dropout=0.0,
            sga=0.01 if aligned else 0.0,
            spa=0.005 if aligned else 0.0,
        )
        self.backbone = backbone_for(case.make().to(config.device))
        clip = stand_in(case.clip, config.instances, config.region)
        encoded = encode_clip(self.backbone, clip, mentions=own.mentions, up=own.up)
        names = [f"{i}" for i in range(2 * case.batch)]
        data = EncodedSet(names, lambda i: replace(encoded, id=names[i]), cache / method)
        with torch.no_grad():
            empty = self.backbone.encode_text([""]).to("cpu")
        self.backbone.release_encoders()
        student = make_student(self.backbone, own, case.layers, case.clip)
        parallel = Parallel(make_accelerator(own), shard=False)
        self.trainer = Trainer(student, data, empty, own, None, parallel)
        view = self.trainer.views[case.clip]
        self.tokens = view.grid.num_tokens
        self.captures: Any = {}
        if aligned:
            self.captures = stack.enter_context(tap(self.backbone.transformer, view.sites))
        self.step = 0

    def update(self) -> dict[str, float]:
        self.step += 1
        return self.trainer.update(self.step, lambda _: self.captures)

    def held(self) -> int:
        """Bytes that lie between updates."""
        parts = modules(self.backbone.pipe)
        kept = [x for part in parts for x in (*part.parameters(), *part.buffers())]
        states: list[dict[str, Any]] = [*self.trainer.optimizer.state.values()]
        kept += [x for state in states for x in state.values() if isinstance(x, Tensor)]
        kept += self.trainer.student.new.values()
        return sum(x.nbytes for x in kept)


def measure(config: TrainStepBenchmark, model: Model) -> Iterator[Row]:
    """Both methods on one model, in turn."""
    case = case_of(config, model)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        trained = {m: Trained(config, case, m, Path(folder), stack) for m in METHODS}
        found: dict[Method, list[dict[str, float]]] = {method: [] for method in METHODS}
        for turn in range(config.rounds + 1):
            for method, one in trained.items():
                values = one.update()
                if turn:  # the first warms up, and checks that losses reach attention
                    found[method].append(values)
        plain: Row | None = None
        for method, one in trained.items():
            one.trainer.optimizer.zero_grad(set_to_none=True)
            peak = one.held() + allocated(one.update, one.backbone.device)
            seconds = statistics.median(values["seconds"] for values in found[method])
            waited = statistics.median(
                values["data_seconds"] / values["seconds"] for values in found[method]
            )
            row = Row(model, one.tokens, case.batch, method, seconds, waited, peak)
            plain = plain or row
            yield replace(
                row,
                seconds_over_lora=row.seconds / plain.seconds,
                peak_over_lora=row.peak_bytes / plain.peak_bytes,
            )


def device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def main(config: TrainStepBenchmark) -> None:
    torch.set_num_threads(config.threads)
    rows: list[Row] = []
    for model in config.models:
        for row in measure(config, model):
            rows.append(row)
            print(
                f"{row.model:12} {row.tokens:6} tokens  {row.method:18} {row.seconds:8.3f} s "
                f"({row.seconds_over_lora:.3f})  {row.peak_bytes / 1e6:8.1f} MB "
                f"({row.peak_over_lora:.3f})  data {row.data_share:.1%}",
                flush=True,
            )
    if config.out is not None:
        result = {
            "benchmark": "train_step",
            "rounds": config.rounds,
            "threads": config.threads,
            "instances": config.instances,
            "region": config.region,
            "rows": [asdict(row) for row in rows],
            "blocks": config.blocks,
            "machine": device_name(config.device),
            "versions": {name: version(name) for name in ("torch", "diffusers", "matrix-video")},
        }
        config.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(TrainStepBenchmark))
