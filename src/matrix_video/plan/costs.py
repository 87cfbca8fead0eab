"""What layers and phases of a run cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matrix_video.analysis.config import AnalyzeConfig
from matrix_video.generation.config import GenerateConfig
from matrix_video.plan.config import PlanConfig
from matrix_video.plan.meter import AFTER, BACKWARD, FORWARD, MAPS, by_layer, peak_of
from matrix_video.plan.work import FINISH, ONCE, SETUP, STEP, Phase
from matrix_video.training.config import TrainConfig
from matrix_video.training.student import Layers


@dataclass(frozen=True)
class LayerCost:
    """One layer of one step."""

    layer: int
    read: str
    """Maps that are read of it: "", "v2t", "v2v" or "v2t v2v"."""
    kept: int
    """Bytes that its forward leaves behind, for its backward or for its maps."""
    working: int
    """Bytes above what was live that its forward or backward needs at most."""
    flops: float
    seconds: float


@dataclass(frozen=True)
class PhaseCost:
    """``peak`` is that of the whole run in this phase."""

    name: str
    title: str
    times: float
    seconds: float
    """Of one time."""
    flops: float
    peak: int


def batch_of(config: PlanConfig) -> int:
    """Samples of one forward pass."""
    owners = {"train": TrainConfig, "analyze": AnalyzeConfig, "generate": GenerateConfig}
    return config.batch or int(owners[config.mode].model_fields["batch"].default)


def phase_costs(
    config: PlanConfig, phases: Sequence[Phase], static: int, layers: int
) -> tuple[PhaseCost, ...]:
    steps = config.steps
    if config.mode == "train":
        train = TrainConfig.model_fields
        each = (config.update_batch or int(train["batch"].default)) / batch_of(config)
        updates = (steps or train["steps"].default) * max(1.0, each)
        times = {SETUP: config.clips, ONCE: 1, STEP: updates}
    elif config.mode == "analyze":
        levels = int(AnalyzeConfig.model_fields["levels"].default)
        groups = -(-layers // (config.layers_at_once or layers))
        times = {SETUP: config.clips, STEP: config.clips * -(-levels // batch_of(config)) * groups}
    else:
        calls = -(-config.clips // batch_of(config))
        each = steps or int(GenerateConfig.model_fields["steps"].default)
        times = {SETUP: calls, STEP: calls * each, FINISH: calls}
    costs: list[PhaseCost] = []
    live = 0
    for phase in phases:
        costs.append(
            PhaseCost(
                phase.name,
                phase.title,
                float(times[phase.name]),
                sum(segment.seconds for segment in phase.segments),
                sum(segment.flops for segment in phase.segments),
                static + live + peak_of(phase.segments).bytes,
            )
        )
        live += sum(segment.grew for segment in phase.segments)
    return tuple(costs)


def layer_costs(
    config: PlanConfig, phases: Sequence[Phase], count: int, layers: Layers
) -> tuple[LayerCost, ...]:
    step = next(phase for phase in phases if phase.name == STEP)
    ways = [by_layer(step.segments, name) for name in (FORWARD, BACKWARD, MAPS)]
    freed = by_layer(step.segments, AFTER)
    costs: list[LayerCost] = []
    for layer in range(count):
        found = [way[layer] for way in ways if layer in way]
        read = [k for k, of in (("v2t", layers.v2t), ("v2v", layers.v2v)) if layer in of]
        if config.mode == "generate" or (config.mode == "train" and not config.aligned):
            read = []
        costs.append(
            LayerCost(
                layer,
                " ".join(read),
                ways[0][layer].grew + freed[layer].grew,
                max(segment.peak for segment in found),
                sum(segment.flops for segment in found),
                sum(segment.seconds for segment in found),
            )
        )
    return tuple(costs)
