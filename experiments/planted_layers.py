"""Does the analysis name the layers that were made to follow the masks, and only those?

    python experiments/planted_layers.py --out out/planted [--results FILE]

Tiny models are made in which chosen layers follow the masks and the others do not (`planting`). The
project's analysis (`measure_clip`, `choose_layers`) sees clips that no model was trained on. Arms:

    planted    k layers of each kind, k as the analysis itself takes, by the losses SGA and SPA
    few        fewer than k, so that the rest of what is chosen has to be recognised as nothing
    weak       k layers, trained to a small log-lift instead
    chance     no layer planted, all trained to chance
    untrained  random weights

Dominance: a failure is a clip whose tracks jump by half a frame after the first, so that attention
which follows the instances misses the mask. Labels drawn at random give the rate of false alarms.

One JSON line a model in ``models.jsonl``; a run that was stopped goes on with the next.

Shapes: L layers, S samples.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import tyro
from planting import (
    LAYERS,
    Job,
    Planted,
    Settings,
    displaced,
    make_backbone,
    start_from_base,
    train,
    training_clips,
    world_clip,
)

from matrix_video.analysis.choose import choose_layers
from matrix_video.analysis.collect import Probe, measure_clip
from matrix_video.analysis.layers import DataFacts, LayerChoice, ModelFacts
from matrix_video.analysis.ranking import make_group, top_count
from matrix_video.analysis.records import KINDS, WORDS, Row, Table, to_table
from matrix_video.attention.site import Kind
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.fingerprint import fingerprint
from matrix_video.data.clip import Clip
from matrix_video.services.files import write_atomic

LEAST_LIFT: Final = 0.1
"""Proposed rule: mean log-lift below which a layer does not count as following anything."""
ERRORS: Final = 3.0
"""Proposed rule: standard errors by which the mean log-lift has to lie above 0."""


@dataclass(frozen=True)
class PlantedTest:
    """Plant layers, analyse, count."""

    out: Path
    """Folder for models.jsonl; models that it holds are not made again."""
    results: Path | None = None
    """JSON file for the summary and a line for each model; results.json in ``out`` by default."""
    planted: int = 20
    few: int = 6
    weak: int = 4
    chance: int = 10
    untrained: int = 6
    """Models in each arm."""
    samples: int = 24
    """Clips that are analysed without labels (split analysis)."""
    outcomes: int = 16
    """Successes, and as many failures, in the test of dominance."""
    labelings: int = 10
    """Random labels of success, for the rate of false alarms."""
    planting: Settings = field(default_factory=Settings)
    seed: int = 0


def make_jobs(config: PlantedTest) -> tuple[Job, ...]:
    """All models; a model depends on the seed, its arm and its place in the arm alone."""
    k = top_count(LAYERS)
    jobs: list[Job] = []
    for number, arm in enumerate(("planted", "few", "weak", "chance", "untrained")):
        for index in range(int(asdict(config)[arm])):
            random = np.random.default_rng([config.seed, number, index])
            planted: Planted = {}
            for kind in KINDS:
                size = {"planted": k, "weak": k, "few": int(random.integers(1, k))}.get(arm, 0)
                planted[kind] = tuple(sorted(random.permutation(LAYERS)[:size].tolist()))
            jobs.append(Job(f"{arm}-{index:02d}", arm, int(random.integers(2**31)), planted))
    return tuple(jobs)


def decide(backbone: Backbone, table: Table, labels: Mapping[str, bool] | None) -> LayerChoice:
    """What ``matrix analyze`` makes of a table of measurements."""
    return choose_layers(
        table,
        num_layers=LAYERS,
        model=ModelFacts(
            name="planted",
            family=backbone.family,
            num_layers=LAYERS,
            fingerprint=fingerprint(backbone.transformer),
        ),
        data=DataFacts(path="tiny world", samples=0, hash=""),
        labels=labels,
    )


def unwarned(choice: LayerChoice, kind: Kind) -> list[int]:
    """Chosen layers about which the analysis does not itself warn that they are at chance."""
    warnings = choice.evidence.warnings
    layers = choice.v2t if kind == "v2t" else choice.v2v
    return [i for i in layers if not any(w.startswith(f"{kind}: layer {i} ") for w in warnings)]


def dominant(choice: LayerChoice, kind: Kind) -> list[int]:
    """Layers that separate success from failure for nouns or for verbs."""
    groups = [group for group in choice.evidence.groups if group.kind == kind]
    return sorted({layer for group in groups for layer in group.dominant})


def examine(
    backbone: Backbone, clips: Sequence[Clip], job: Job, config: PlantedTest
) -> dict[str, Any]:
    """The analysis of one model, as the values of its JSON line."""
    half = config.outcomes
    found = [measure_clip(backbone, clip, Probe()).rows for clip in clips[: config.samples]]
    missed = [
        measure_clip(backbone, displaced(clip), Probe()).rows for clip in clips[half : 2 * half]
    ]
    names = [clip.sample.id for clip in clips]
    table = to_table(_joined(found))
    free = decide(backbone, table, None)
    outcome = {name: i < half for i, name in enumerate(names[: 2 * half])}
    labelled = decide(backbone, to_table(_joined([*found[:half], *missed])), outcome)
    alarms: list[list[bool]] = []
    for draw in range(config.labelings):
        order = np.random.default_rng([job.seed, draw]).permutation(config.samples)
        labels = {names[i]: bool(place < config.samples // 2) for place, i in enumerate(order)}
        chosen = decide(backbone, table, labels)
        alarms.append([bool(group.dominant) for group in chosen.evidence.groups])
    evidence: dict[str, Any] = {}
    for kind in KINDS:
        for words in WORDS:
            lift_SL = make_group(table, kind, words, LAYERS).log_lift_SL
            error_L = lift_SL.std(axis=0, ddof=1) / math.sqrt(len(lift_SL))
            (group,) = [g for g in free.evidence.groups if (g.kind, g.words) == (kind, words)]
            evidence[f"{kind} {words}"] = {
                "log_lift": np.round(lift_SL.mean(axis=0), 4).tolist(),
                "error": np.round(error_L, 4).tolist(),
                "frequency": [round(layer.frequency, 3) for layer in group.layers],
                "unstable": group.stability is not None and group.stability.unstable,
            }
    return {
        "chosen": {"v2t": list(free.v2t), "v2v": list(free.v2v)},
        "unwarned": {kind: unwarned(free, kind) for kind in KINDS},
        "dominant": {kind: dominant(labelled, kind) for kind in KINDS},
        "alarms": alarms,
        "evidence": evidence,
    }


def _joined(parts: Iterable[Sequence[Row]]) -> list[Row]:
    return [row for part in parts for row in part]


def lifts(record: Mapping[str, Any], kind: Kind) -> list[float]:
    """Mean log-lift of each layer over the samples, of nouns or of verbs, whichever is higher."""
    found = [record["evidence"][f"{kind} {words}"]["log_lift"] for words in WORDS]
    return [max(pair) for pair in zip(*found, strict=True)]


def above_chance(record: Mapping[str, Any], kind: Kind, rule: str = "chosen") -> list[int]:
    """The rule that we propose: layers that lie `ERRORS` standard errors above chance and reach
    `LEAST_LIFT`, for nouns or for verbs, of those that the analysis names by ``rule``."""

    def holds(layer: int) -> bool:
        found = [record["evidence"][f"{kind} {words}"] for words in WORDS]
        return any(
            group["log_lift"][layer] >= max(LEAST_LIFT, ERRORS * group["error"][layer])
            for group in found
        )

    return [layer for layer in record[rule][kind] if holds(layer)]


def precision_recall(pairs: Iterable[tuple[Sequence[int], Sequence[int]]]) -> dict[str, Any]:
    """Counts over (named, planted) pairs, pooled; None where nothing was named or planted."""
    sets = [(set(named), set(planted)) for named, planted in pairs]
    hits = sum(len(named & planted) for named, planted in sets)
    named, planted = (sum(len(pair[i]) for pair in sets) for i in (0, 1))
    return {
        "sets": len(sets),
        "planted": planted,
        "named": named,
        "hits": hits,
        "precision": hits / named if named else None,
        "recall": hits / planted if planted else None,
        "exact": sum(named == planted for named, planted in sets),
    }


RULES: Final[dict[str, Callable[[Mapping[str, Any], Kind], Sequence[int]]]] = {
    "chosen": lambda record, kind: record["chosen"][kind],
    "unwarned": lambda record, kind: record["unwarned"][kind],
    "above chance": above_chance,
    "dominant": lambda record, kind: record["dominant"][kind],
    "dominant above chance": lambda record, kind: above_chance(record, kind, "dominant"),
}
"""What may count as named."""


def summarise(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each arm: precision and recall by rule and kind, false alarms of random labels, and the
    least, the median and the greatest log-lift of layers that were planted and of the others."""
    arms: dict[str, Any] = {}
    for arm in dict.fromkeys(record["arm"] for record in records):
        of_arm = [record for record in records if record["arm"] == arm]
        arms[arm] = {
            rule: {
                kind: precision_recall((named(r, kind), r["planted"][kind]) for r in of_arm)
                for kind in KINDS
            }
            for rule, named in RULES.items()
        }
        drawn = [alarm for record in of_arm for draw in record["alarms"] for alarm in draw]
        arms[arm]["alarms"] = {"tests": len(drawn), "dominant": sum(drawn)}
        arms[arm]["log_lift"] = {kind: _spread(of_arm, kind) for kind in KINDS}
    return arms


def _spread(records: Sequence[Mapping[str, Any]], kind: Kind) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"planted": [], "other": []}
    for record in records:
        for layer, lift in enumerate(lifts(record, kind)):
            found["planted" if layer in record["planted"][kind] else "other"].append(lift)
    return {
        name: [round(float(value), 3) for value in np.quantile(values, [0, 0.5, 1])]
        for name, values in found.items()
        if values
    }


def write_results(
    file: Path, config: PlantedTest, records: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Write settings, summary and one short entry a model; the summary."""
    settings = {k: v for k, v in asdict(config).items() if k not in ("out", "results")}
    models = [
        {
            **{
                name: record[name] for name in ("name", "planted", "chosen", "unwarned", "dominant")
            },
            "above chance": {kind: above_chance(record, kind) for kind in KINDS},
            "log_lift": {kind: [round(lift, 2) for lift in lifts(record, kind)] for kind in KINDS},
        }
        for record in records
    ]
    summary = summarise(records)
    lines = ",\n".join(json.dumps(model) for model in models)
    head = json.dumps({"settings": settings, "arms": summary}, indent=1)
    write_atomic(file, f'{head[:-2]},\n "models": [\n{lines}\n]}}\n')
    return summary


def run(config: PlantedTest) -> list[dict[str, Any]]:
    """Make the models that are missing; all lines of ``models.jsonl`` in the order of the jobs."""
    file = config.out / "models.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    done = {line["name"]: line for line in map(json.loads, lines)}
    jobs = make_jobs(config)
    missing = [job for job in jobs if job.name not in done]
    if missing:
        config.out.mkdir(parents=True, exist_ok=True)
        data = training_clips(config.planting)
        clips = [world_clip("analysis", i) for i in range(max(config.samples, 2 * config.outcomes))]
        for job in missing:
            start = time.process_time()
            backbone = make_backbone(job.seed)
            distance = None
            if job.arm != "untrained":
                number = int(job.name[-2:]) % config.planting.bases
                start_from_base(backbone, data, number, config.out, config.planting)
                distance = train(backbone, data, job, config.planting)
            record = {**asdict(job), "held": distance, **examine(backbone, clips, job, config)}
            record["seconds"] = round(time.process_time() - start, 1)
            line = json.dumps(record)
            with file.open("a") as stream:
                stream.write(line + "\n")
            print(job.name, job.planted, record["chosen"], record["seconds"], flush=True)
            done[job.name] = json.loads(line)
    return [done[job.name] for job in jobs]


if __name__ == "__main__":
    torch.set_num_threads(1)
    test = tyro.cli(PlantedTest)
    records = run(test)
    summary = write_results(test.results or test.out / "results.json", test, records)
    print(json.dumps(summary, indent=1))
