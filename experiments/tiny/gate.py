"""``python -m tiny.gate``: what a base must show before anything is built on it (docs/log.md).

Everything is measured on `val` by the package's own commands. Thresholds are our choice, made
before the base was trained: nouns ground in text attention, instances in video attention, and roles
are seen but not well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import tyro

from matrix_video.analysis.config import AnalyzeConfig
from matrix_video.analysis.layers import GroupEvidence, LayerChoice
from matrix_video.analysis.run import analyze
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.data.dataset import Dataset
from matrix_video.evaluation.config import EvaluateConfig
from matrix_video.evaluation.estimates import Estimate
from matrix_video.evaluation.run import evaluate
from matrix_video.evaluation.scores import Scores, read_scores
from matrix_video.generation.config import GenerateConfig
from matrix_video.generation.run import generate
from matrix_video.services.files import write_json
from matrix_video.services.progress import progress
from matrix_video.world.write import write_split
from tiny.__main__ import frames_of
from tiny.vae import psnr

NOUN_LIFT: Final = 0.7
BINDING: Final = 0.03
VIDEO_LIFT: Final = 1.0
LAYERS: Final = 2
ROLE_GAP: Final = (0.05, 0.35)
PSNR: Final = 30.0


@dataclass(frozen=True)
class Gate:
    """Measure a tiny base and say which conditions it meets."""

    model: Path
    """Pipeline folder."""
    out: Path
    """Run folders of every stage, and gate.json; a gate that was stopped goes on."""
    clips: int = 160
    """Prompts of val."""
    sampling_steps: int = 20
    guidance: float = 5.0
    """Wan's own default."""
    threads: int = 1


@dataclass(frozen=True)
class Condition:
    """One line of the gate."""

    name: str
    wanted: str
    found: str
    met: bool


def layers_of(group: GroupEvidence) -> str:
    """Log-lift and binding contrast, layer by layer."""
    return " ".join(
        f"{layer.log_lift:+.2f}" + ("" if layer.binding is None else f"/{layer.binding:+.3f}")
        for layer in sorted(group.layers, key=lambda one: one.layer)
    )


def attention(choice: LayerChoice) -> list[Condition]:
    """Of real clips: nouns in V2T, first-frame instances in V2V."""
    groups = {(g.kind, g.words): g for g in choice.evidence.groups}
    nouns, regions = groups["v2t", "nouns"], groups["v2v", "nouns"]
    bound = [x for x in nouns.layers if x.log_lift >= NOUN_LIFT and (x.binding or 0) >= BINDING]
    followed = [x for x in regions.layers if x.log_lift >= VIDEO_LIFT]
    return [
        Condition(
            "V2T nouns, log-lift/binding by layer",
            f"≥ {NOUN_LIFT}/{BINDING} in {LAYERS}",
            layers_of(nouns),
            len(bound) >= LAYERS,
        ),
        Condition(
            "V2V, log-lift/binding by layer",
            f"≥ {VIDEO_LIFT} in {LAYERS}",
            layers_of(regions),
            len(followed) >= LAYERS,
        ),
    ]


def videos(scores: Scores) -> list[Condition]:
    """IF against motion that asks no prompt, and room for roles to become better."""
    own, roles = scores.summary["if"], scores.summary["role_gap"]
    drift = scores.references["straight_drift"].summary["if"]
    above = own.low is not None and drift.mean is not None and own.low > drift.mean
    low, high = ROLE_GAP
    room = roles.mean is not None and low <= roles.mean <= high
    told = f"{_told(roles)}; verb gap {_told(scores.summary['verb_gap'])}"
    return [
        Condition("IF", f"interval above drift's {_told(drift)}", _told(own), above),
        Condition("role gap", f"{low} to {high}", told, room),
    ]


def separation(choice: LayerChoice) -> Condition:
    """Of the base's own videos: does text attention tell success from failure?"""
    (group,) = (g for g in choice.evidence.groups if (g.kind, g.words) == ("v2t", "nouns"))
    return Condition(
        f"V2T layers that separate success ({group.successes}) from failure ({group.failures})",
        "≥ 1",
        " ".join(map(str, group.dominant)) or (group.reason or "none"),
        bool(group.dominant),
    )


def measure(gate: Gate) -> list[Condition]:
    """Every condition of the gate, from val alone."""
    backbone: Backbone = backbone_for(load_pipeline(str(gate.model)))
    data, made, scored = gate.out / "val", gate.out / "videos", gate.out / "scores"
    with progress("render val", gate.clips) as advance:
        write_split(data, gate.clips, 0, "val", advance)
    clips = analyze(
        AnalyzeConfig(model=str(gate.model), data=data, out=gate.out / "real", overlays=4),
        backbone,
    )
    generate(
        GenerateConfig(
            model=str(gate.model),
            prompts=data,
            out=made,
            steps=gate.sampling_steps,
            guidance=gate.guidance,
        ),
        backbone,
    )
    evaluate(EvaluateConfig(videos=made, prompts=data, out=scored, tracked=True))
    own = analyze(
        AnalyzeConfig(
            model=str(gate.model),
            data=scored / "tracked",
            out=gate.out / "own",
            labels=scored / "scores.json",
            overlays=0,
        ),
        backbone,
    )
    pipe: Any = backbone.pipe
    with torch.no_grad():
        decibel = psnr(pipe.vae, frames_of("val", min(128, len(Dataset(data)))))
    return [
        *attention(clips),
        *videos(read_scores(scored)),
        Condition("VAE, dB", f"≥ {PSNR}", f"{decibel:.2f}", decibel >= PSNR),
        separation(own),
    ]


def _told(value: Estimate) -> str:
    if value.mean is None or value.low is None or value.high is None:
        return f"no interval, n {value.n}"
    return f"{value.mean:+.3f} [{value.low:+.3f}, {value.high:+.3f}], n {value.n}"


def run(gate: Gate) -> int:
    torch.set_num_threads(gate.threads)
    conditions = measure(gate)
    write_json(gate.out / "gate.json", [vars(condition) for condition in conditions])
    for condition in conditions:
        mark = "met" if condition.met else "NOT MET"
        print(f"{mark:8}{condition.name}: {condition.found} (wanted: {condition.wanted})")
    return 0 if all(condition.met for condition in conditions) else 1


if __name__ == "__main__":
    raise SystemExit(run(tyro.cli(Gate)))
