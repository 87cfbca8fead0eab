"""The choice of layers, and the file that carries it to training.

``layers.json`` holds the two lists of layers and everything that they rest on. Nouns and verbs,
V2T and V2V are ranked apart; the lists are made from the four rankings as `choose_layers` says.

Shapes: S samples, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from matrix_video.analysis.dominance import (
    ENOUGH,
    MINIMUM,
    Contrast,
    Dominance,
    contrast_layers,
)
from matrix_video.analysis.ranking import Group, Ranking, make_group, rank_layers, top_count
from matrix_video.analysis.records import KINDS, WORDS, Table, Words
from matrix_video.attention.site import Kind
from matrix_video.backbones.fingerprint import Fingerprint
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import write_json
from matrix_video.services.records import read_record

FEW_SAMPLES = 16
"""Samples below which a warning says that the ranking is thin."""

Basis = Literal["dominance", "influence", "binding"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelFacts(_Record):
    """Which pipeline was measured."""

    name: str
    family: str
    num_layers: int
    fingerprint: Fingerprint
    """Of the transformer."""


class DataFacts(_Record):
    """Which clips were measured."""

    path: str
    samples: int
    hash: str
    """Of the measured samples' descriptions, videos and tracks."""


class LayerEvidence(_Record):
    """One layer in one group; None where it could not be measured."""

    layer: int
    frequency: float
    """Share of samples in which the layer is among the top k."""
    aas: float
    log_lift: float
    binding: float | None


class GroupEvidence(_Record):
    """What one ranking rests on."""

    kind: Kind
    words: Words
    samples: int
    k: int
    order: tuple[int, ...]
    """All layers, most influential first."""
    influential: tuple[int, ...]
    layers: tuple[LayerEvidence, ...]
    dominance: Literal["measured", "not measured"]
    reason: str | None
    """Why dominance was not measured."""
    successes: int
    failures: int
    contrasts: tuple[Contrast, ...]
    dominant: tuple[int, ...]


class Evidence(_Record):
    """Everything behind the two lists."""

    basis: dict[Kind, Basis]
    groups: tuple[GroupEvidence, ...]
    warnings: tuple[str, ...]


class LayerChoice(_Record):
    """Contents of ``layers.json``."""

    format: Literal[1] = 1
    model: ModelFacts
    data: DataFacts
    v2t: tuple[int, ...]
    v2v: tuple[int, ...]
    evidence: Evidence


def write_choice(path: Path, choice: LayerChoice) -> None:
    """Write ``layers.json`` atomically."""
    write_json(path, choice.model_dump(mode="json"))


def read_choice(path: Path) -> LayerChoice:
    """Read ``layers.json``; `MatrixError` names the field that is wrong."""
    return read_record(
        path,
        LayerChoice,
        what="a choice of layers",
        remedy="Give the layers.json of a finished matrix analyze run",
    )


def choose_layers(
    table: Table,
    *,
    num_layers: int,
    model: ModelFacts,
    data: DataFacts,
    labels: Mapping[str, bool] | None = None,
    seed: int = 0,
    draws: int = 2000,
) -> LayerChoice:
    """Rank the layers of each group and choose.

    Kinds are decided apart. Where nouns or verbs have dominant layers, the kind takes all of these,
    nouns' first (basis "dominance"). Otherwise it takes at most k layers from the influential ones
    of nouns and verbs in turn: in their order of influence when dominance was tested and found in
    none ("influence"), by binding contrast when nothing could be tested ("binding").

    ``labels`` says of each sample whether its video succeeded; None: real videos, dominance is not
    measured. Raises `MatrixError` when the table holds nothing of a kind.
    """
    groups: list[GroupEvidence] = []
    for kind in KINDS:
        found = [make_group(table, kind, words, num_layers) for words in WORDS]
        if not any(group.samples for group in found):
            raise MatrixError(
                f"no sample has a {kind} map that could be scored",
                remedy="Give samples whose captions name instances with visible masks, for v2v "
                "in the first frame",
                field=kind,
            )
        groups += [_evidence(g, labels, seed, draws) for g in found if g.samples]
    chosen = {kind: _choose([g for g in groups if g.kind == kind], num_layers) for kind in KINDS}
    warnings = [warning for g in groups for warning in _warnings(g)]
    warnings += [
        f"{kind}: layer {layer} is chosen although its log-lift is at or below chance"
        for kind in KINDS
        for layer in chosen[kind][0]
        if all(g.layers[layer].log_lift <= 0 for g in groups if g.kind == kind)
    ]
    return LayerChoice(
        model=model,
        data=data,
        v2t=chosen["v2t"][0],
        v2v=chosen["v2v"][0],
        evidence=Evidence(
            basis={kind: chosen[kind][1] for kind in KINDS},
            groups=tuple(groups),
            warnings=tuple(warnings),
        ),
    )


def _choose(groups: Sequence[GroupEvidence], num_layers: int) -> tuple[tuple[int, ...], Basis]:
    dominant = [layer for group in groups for layer in group.dominant]
    if dominant:
        return tuple(dict.fromkeys(dominant)), "dominance"
    measured = any(group.dominance == "measured" for group in groups)
    lists = [group.influential if measured else _by_binding(group) for group in groups]
    turns = [layers[i] for i in range(max(map(len, lists))) for layers in lists if i < len(layers)]
    unique = tuple(dict.fromkeys(turns))[: top_count(num_layers)]
    return unique, "influence" if measured else "binding"


def _by_binding(group: GroupEvidence) -> tuple[int, ...]:
    """Influential layers, highest binding contrast first; the unmeasured keep their order, last."""

    def key(layer: int) -> float:
        binding = group.layers[layer].binding
        return math.inf if binding is None else -binding

    return tuple(sorted(group.influential, key=key))


def _evidence(
    group: Group, labels: Mapping[str, bool] | None, seed: int, draws: int
) -> GroupEvidence:
    ranking = rank_layers(group.aas_SL)
    tested, reason, successes, failures = _dominance(group, ranking, labels, seed, draws)
    return GroupEvidence(
        kind=group.kind,
        words=group.words,
        samples=len(group.samples),
        k=ranking.count,
        order=ranking.order,
        influential=ranking.influential,
        layers=tuple(_layer(group, ranking, layer) for layer in range(group.num_layers)),
        dominance="not measured" if tested is None else "measured",
        reason=reason,
        successes=successes,
        failures=failures,
        contrasts=() if tested is None else tested.contrasts,
        dominant=() if tested is None else tested.dominant,
    )


def _layer(group: Group, ranking: Ranking, layer: int) -> LayerEvidence:
    binding_S = group.binding_SL[:, layer]
    present_S = binding_S[~np.isnan(binding_S)]
    return LayerEvidence(
        layer=layer,
        frequency=float(ranking.frequency_L[layer]),
        aas=float(ranking.mean_aas_L[layer]),
        log_lift=float(group.log_lift_SL[:, layer].mean()),
        binding=float(present_S.mean()) if len(present_S) else None,
    )


def _dominance(
    group: Group, ranking: Ranking, labels: Mapping[str, bool] | None, seed: int, draws: int
) -> tuple[Dominance | None, str | None, int, int]:
    if labels is None:
        return None, "no labels of success were given", 0, 0
    rows = [i for i, sample in enumerate(group.samples) if sample in labels]
    success_S = np.array([labels[group.samples[i]] for i in rows], dtype=bool)
    successes, failures = int(success_S.sum()), int((~success_S).sum())
    if min(successes, failures) < MINIMUM:
        reason = (
            f"{successes} successes and {failures} failures; at least {MINIMUM} of each are needed"
        )
        return None, reason, successes, failures
    tested = contrast_layers(
        group.log_lift_SL[rows],
        group.area_S[rows],
        success_S,
        ranking.influential,
        seed=seed,
        draws=draws,
    )
    return tested, None, successes, failures


def _warnings(group: GroupEvidence) -> list[str]:
    where = f"{group.kind} {group.words}"
    found: list[str] = []
    if group.samples < FEW_SAMPLES:
        found.append(f"{where}: ranked on {group.samples} samples only; the order may not hold")
    if group.dominance == "not measured":
        found.append(f"{where}: dominance not measured ({group.reason})")
    elif min(group.successes, group.failures) < ENOUGH:
        found.append(
            f"{where}: dominance rests on {group.successes} successes and {group.failures} "
            f"failures; with fewer than {ENOUGH} of each it may not hold"
        )
    if all(layer.binding is None for layer in group.layers):
        found.append(f"{where}: no sample has a rival instance, so binding is not measured")
    return found
