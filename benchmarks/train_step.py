"""What SGA and SPA add to an update: LoRA alone against LoRA with both, on the same layers.

    python benchmarks/train_step.py [--rounds 7] [--models tiny large] [--out FILE]

Whole updates of `training.loop.Trainer` on clips that were encoded before: batch from the cache,
id map, forward, losses, backward, clipping, AdamW. ``tiny`` is the shipped pipeline, ``large`` a
random CogVideoX of a few wide layers over more than 4,000 tokens. LoRA alone runs untapped.

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
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

import torch
import tyro
from torch import Tensor, nn

from matrix_video.attention.tap import tap
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

Model = Literal["tiny", "large"]
Method = Literal["lora", "lora + sga + spa"]
METHODS: Final[tuple[Method, ...]] = ("lora", "lora + sga + spa")


@dataclass(frozen=True)
class TrainStepBenchmark:
    """Measure both methods."""

    models: tuple[Model, ...] = ("tiny", "large")
    """Models to train."""
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


CASES: Final[dict[Model, Case]] = {
    "tiny": Case(partial(load_pipeline, "tiny"), (17, 64, 64), Layers((3, 4), (4,)), 8),
    "large": Case(
        partial(
            tiny_pipeline, layers=4, heads=8, head_dim=64, size=232, num_frames=17, text_length=226
        ),
        (17, 232, 232),
        Layers((1, 2), (2,)),
        1,
    ),
}
"""17 frames of 232 x 232 pixels are 5 x 29 x 29 tokens of that VAE."""


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
            data=cache,
            out=cache / "unused",
            batch=case.batch,
            id_drop=0.0,
            caption_dropout=0.0,
            sga=0.01 if aligned else 0.0,
            spa=0.005 if aligned else 0.0,
        )
        self.backbone = backbone_for(case.make())
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
        pipe = self.backbone.pipe
        modules = [m for m in pipe.components.values() if isinstance(m, nn.Module)]
        kept = [x for m in modules for x in (*m.parameters(), *m.buffers())]
        states: list[dict[str, Any]] = [*self.trainer.optimizer.state.values()]
        kept += [x for state in states for x in state.values() if isinstance(x, Tensor)]
        kept += self.trainer.student.new.values()
        return sum(x.nbytes for x in kept)


def measure(config: TrainStepBenchmark, model: Model) -> Iterator[Row]:
    """Both methods on one model, in turn."""
    case = CASES[model]
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


def main(config: TrainStepBenchmark) -> None:
    torch.set_num_threads(config.threads)
    rows: list[Row] = []
    for model in config.models:
        for row in measure(config, model):
            rows.append(row)
            print(
                f"{row.model:6} {row.tokens:6} tokens  {row.method:18} {row.seconds:8.3f} s "
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
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "versions": {name: version(name) for name in ("torch", "diffusers", "matrix-video")},
        }
        config.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(TrainStepBenchmark))
