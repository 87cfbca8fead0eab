"""From a question to bytes and seconds, by part, layer and phase.

A model that is deep is run shortened (`plan.depth`), and its timeline stretched to the whole. Bytes
that stay (weights, AdamW's state) are counted on the whole model.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from matrix_video.backbones.base import Backbone
from matrix_video.backbones.blueprint import Blueprint, blueprint
from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.precision import dtype_of
from matrix_video.plan.clips import stand_in
from matrix_video.plan.config import PlanConfig
from matrix_video.plan.costs import LayerCost, PhaseCost, batch_of, layer_costs, phase_costs
from matrix_video.plan.depth import Depth, shortened
from matrix_video.plan.machine import Machine
from matrix_video.plan.meter import (
    Meter,
    peak_of,
    stretched,
)
from matrix_video.plan.phantom import Phantom
from matrix_video.plan.stored8 import store8
from matrix_video.plan.work import Phase, Stage, analysis, generation, training
from matrix_video.services.errors import MatrixError
from matrix_video.training.config import TrainConfig
from matrix_video.training.encode import Encoded
from matrix_video.training.student import Layers, Student, make_student

ADAMW: Final = 2
"""Tensors that AdamW keeps of each trained one, float32 as it."""
RUNTIME: Final = 1_000_000_000
"""Bytes of Python, libraries and, on a GPU, its context and workspaces; our assumption."""


@dataclass(frozen=True)
class Prediction:
    """What one run needs. Bytes are at its peak."""

    config: PlanConfig
    clip: tuple[int, int, int]
    tokens: tuple[int, int]
    """Video and text tokens."""
    source: str
    parts: Mapping[str, int]
    """They sum up to ``total``."""
    total: int
    where: str
    """What runs at the peak."""
    phases: tuple[PhaseCost, ...]
    layers: tuple[LayerCost, ...]

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return sum(phase.seconds * phase.times for phase in self.phases)


class Planner:
    """Predicts for one machine; encoding a clip, which few changes touch, is run once."""

    def __init__(self, machine: Machine, *, shorten: bool = True) -> None:
        """``shorten`` False runs every layer, which changes nothing but the time it takes."""
        self.machine, self.shorten = machine, shorten
        self._phantom = Phantom(Meter(machine), flash=False)
        self._known: dict[Hashable, Backbone] = {}
        self._encoded: dict[Hashable, tuple[Encoded, Phase]] = {}

    def predict(self, config: PlanConfig) -> Prediction:
        """Raises `MatrixError` for a model, size or layer that there is not."""
        plan = blueprint(config.model)
        dtype = dtype_of(config.weights)
        whole = backbone_for(plan.build(dtype, config.text_tokens))
        clip = _clip(config, plan)
        grid = whole.grid(*clip)
        layers = chosen_layers(config, whole)
        depth = _depth(config, whole, layers, self.shorten)
        short = replace(plan, transformer=depth.config).build(dtype, config.text_tokens)
        backbone = backbone_for(short)
        if config.tiling:
            backbone.tile()
        if config.quantize != "none":
            for one in (whole, backbone):
                store8(one.transformer)
        phases, trained = self._run(config, backbone, clip, layers, depth)
        parts = _weights(whole)
        static = sum(parts.values()) + RUNTIME
        timeline = [segment for phase in phases for segment in phase.segments]
        peak = peak_of(timeline)
        if config.mode == "train" and any(peak.segment is one for one in phases[-1].segments):
            whole.release_encoders()
            parts = _weights(whole)
            parts["LoRA, id map, decoder"] = trained
            parts["AdamW's state"] = ADAMW * trained
            parts["gradients"] = peak.gradients
        parts["libraries, context"] = RUNTIME
        parts["activations"] = static + peak.bytes - sum(parts.values())
        return Prediction(
            config=config,
            clip=clip,
            tokens=(grid.num_tokens, whole.num_text_tokens),
            source=plan.source,
            parts=parts,
            total=static + peak.bytes,
            where=_place(peak.segment.name, peak.segment.layer),
            phases=phase_costs(config, phases, static, whole.num_layers),
            layers=layer_costs(config, phases, whole.num_layers, layers),
        )

    def takes(self, config: PlanConfig) -> bool:
        """Whether the model takes clips of this size."""
        plan = blueprint(config.model)
        key = (config.model, config.text_tokens)
        if key not in self._known:
            self._known[key] = backbone_for(plan.build(torch.float32, config.text_tokens))
        try:
            self._known[key].grid(*_clip(config, plan))
        except MatrixError:
            return False
        return True

    def _run(
        self,
        config: PlanConfig,
        backbone: Backbone,
        clip: tuple[int, int, int],
        layers: Layers,
        depth: Depth,
    ) -> tuple[list[Phase], int]:
        """Phases of the whole model, and bytes of its trained parameters."""
        phantom = self._phantom
        phantom.meter = Meter(self.machine)
        phantom.flash = config.engine == "auto" and not self.machine.gpu
        student: Student | None = None
        if config.mode == "train":
            own = Layers(depth.short(layers.v2t), depth.short(layers.v2v))
            student = make_student(backbone, train_config(config, backbone), own, clip)
        trained = 0 if student is None else _trained(student, backbone, depth)
        # By name, so that nothing but the pipeline holds what is dropped later.
        for name in backbone.pipe.components:
            part = getattr(backbone.pipe, name)
            if isinstance(part, nn.Module):
                phantom.adopt(part)
            del part
        if student is not None:
            for part in (student.decoder, student.condition and student.condition.projection):
                if part is not None:
                    phantom.adopt(part)
            student = student.current()
        stage = Stage(
            backbone, phantom, stand_in(clip, config.instances, config.region), config,
            batch_of(config),
        )  # fmt: skip
        if config.mode == "analyze":
            phases = analysis(stage, depth.short(layers.union))
        elif config.mode == "generate":
            phases = generation(stage)
        else:
            assert student is not None
            text = config.text_tokens
            key = (config.model, clip, config.weights, text, config.instances, config.region)
            key = (*key, config.tiling)
            known = self._encoded.get(key)
            own_bytes = (1 + ADAMW) * trained
            phases, encoded = training(stage, student, known and known[0], own_bytes)
            if known is None:
                self._encoded[key] = encoded, phases[0]
            else:
                phases = [known[1], *phases]
        return [replace(p, segments=stretched(p.segments, depth.runs)) for p in phases], trained


def chosen_layers(config: PlanConfig, backbone: Backbone) -> Layers:
    """Layers of SGA and SPA (without alignment, those that carry LoRA alone), or those that an
    analysis reads in its first forward pass."""
    if config.mode == "analyze":
        read = tuple(range(min(backbone.num_layers, config.layers_at_once or backbone.num_layers)))
        return Layers(read, read)
    middle = backbone.num_layers // 2
    v2t = config.v2t or (max(0, middle - 1), middle)
    v2v = config.v2v or v2t[-1:]
    for layer in (*v2t, *v2v):
        backbone.check_layer(layer)
    return Layers(tuple(dict.fromkeys(v2t)), tuple(dict.fromkeys(v2v)))


def _clip(config: PlanConfig, plan: Blueprint) -> tuple[int, int, int]:
    given = (config.num_frames, config.height, config.width)
    known = plan.clip or (None, None, None)
    clip = [one or other for one, other in zip(given, known, strict=True)]
    frames, height, width = clip
    if frames is None or height is None or width is None:
        raise MatrixError(
            f"the size of the clips is not known: {config.model} does not say what it is made for",
            remedy="give --num-frames, --height and --width",
            field="num_frames",
        )
    return frames, height, width


def _depth(config: PlanConfig, backbone: Backbone, layers: Layers, shorten: bool) -> Depth:
    kinds: list[str | None] = ["plain"] * backbone.num_layers
    if config.mode == "train":
        for layer in layers.union:
            kinds[layer] = None
    elif config.mode == "analyze":
        for layer in layers.union:
            kinds[layer] = "read"
    transformer: Any = backbone.transformer
    known = dict(transformer.config) if shorten else {}
    return shortened(backbone.layer_names(), kinds, known)


def train_config(config: PlanConfig, backbone: Backbone) -> TrainConfig:
    """The training that is planned, without data, folder and layers."""
    own = TrainConfig(data=Path(), out=Path())
    weight = {} if config.aligned else {"sga": 0.0, "spa": 0.0}
    changes = {
        "lora_layers": config.lora_layers,
        "lora_projections": config.lora_projections,
        "lora_rank": config.lora_rank,
        "id_map": config.id_map and backbone.takes_image,
        "gradient_checkpointing": config.gradient_checkpointing,
        "precision": config.precision,
        "weights": config.weights,
        "quantize": config.quantize,
    }
    return own.model_copy(update=changes | weight)


def _trained(student: Student, backbone: Backbone, depth: Depth) -> int:
    total = sum(parameter.nbytes for parameter in student.new.values())
    for run, layer in zip(depth.runs, backbone.layer_names(), strict=True):
        own = sum(p.nbytes for name, p in student.lora.items() if name.startswith(f"{layer}."))
        total += own * len(run)
    return total


def _weights(whole: Backbone) -> dict[str, int]:
    parts: dict[str, int] = {}
    for name, part in whole.pipe.components.items():
        if isinstance(part, nn.Module):
            tensors = (*part.parameters(), *part.buffers())
            parts[f"weights: {name.replace('_', ' ')}"] = sum(x.nbytes for x in tensors)
    return parts


def _place(name: str, layer: int | None) -> str:
    return name if layer is None else f"{name} of layer {layer}"
