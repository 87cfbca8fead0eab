"""Choosing layers from the table of measurements.

Nouns and verbs, V2T and V2V are ranked apart; the two lists are made from the four rankings as
`choose_layers` says.

Shapes: S samples, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from matrix_video.analysis.caveats import caveats, follows
from matrix_video.analysis.dominance import MINIMUM, Dominance, contrast_layers
from matrix_video.analysis.heads import best_heads
from matrix_video.analysis.layers import (
    Basis,
    DataFacts,
    Evidence,
    GroupEvidence,
    LayerChoice,
    LayerEvidence,
    LayerSinks,
    ModelFacts,
)
from matrix_video.analysis.ranking import Group, Ranking, make_group, rank_layers, top_count
from matrix_video.analysis.records import KINDS, WORDS, Table
from matrix_video.analysis.sink_records import SinkTable
from matrix_video.analysis.stability import half_stability
from matrix_video.attention.site import Kind
from matrix_video.services.errors import MatrixError


def choose_layers(
    table: Table,
    *,
    num_layers: int,
    model: ModelFacts,
    data: DataFacts,
    labels: Mapping[str, bool] | None = None,
    sinks: SinkTable | None = None,
    seed: int = 0,
    draws: int = 2000,
) -> LayerChoice:
    """Rank the layers of each group and choose.

    Kinds are decided apart. Where nouns or verbs have dominant layers, the kind takes all of these,
    nouns' first (basis "dominance"). Otherwise it takes at most k layers from the influential ones
    of nouns and verbs in turn: in their order of influence when dominance was tested and found in
    none ("influence"), by binding contrast when nothing could be tested ("binding"). A kind of
    which no sample could be scored gets no layer ("none") and a warning.

    ``labels`` says of each sample whether its video succeeded; None: real videos, dominance is not
    measured. ``sinks`` changes nothing in the choice: they are shown, and warned of. Raises
    `MatrixError` when nothing of either kind could be scored.
    """
    groups: list[GroupEvidence] = []
    for kind in KINDS:
        found = [make_group(table, kind, words, num_layers) for words in WORDS]
        groups += [_evidence(g, labels, seed, draws) for g in found if g.samples]
    if not groups:
        raise MatrixError(
            "no sample has a map that could be scored: in none is an instance that the caption "
            "names visible",
            remedy="Give samples whose captions name instances with visible masks, for v2v in "
            "the first frame",
            field="data",
        )
    chosen = {kind: _choose([g for g in groups if g.kind == kind], num_layers) for kind in KINDS}
    found_sinks = () if sinks is None else _sinks(sinks, num_layers)
    lists: dict[Kind, tuple[int, ...]] = {kind: chosen[kind][0] for kind in KINDS}
    return LayerChoice(
        model=model,
        data=data,
        v2t=lists["v2t"],
        v2v=lists["v2v"],
        evidence=Evidence(
            basis={kind: chosen[kind][1] for kind in KINDS},
            groups=tuple(groups),
            warnings=caveats(groups, lists, found_sinks),
            sinks=found_sinks,
            heads=tuple(
                head
                for kind in KINDS
                for words in WORDS
                for head in best_heads(table, kind, words, lists[kind])
            ),
        ),
    )


def _choose(groups: Sequence[GroupEvidence], num_layers: int) -> tuple[tuple[int, ...], Basis]:
    if not groups:
        return (), "none"
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
    layers = tuple(_layer(group, ranking, layer) for layer in range(group.num_layers))
    tested, reason, successes, failures = _dominance(group, ranking, labels, seed, draws)
    dominant = () if tested is None else _following(group, ranking, tested, labels or {})
    return GroupEvidence(
        kind=group.kind,
        words=group.words,
        samples=len(group.samples),
        k=ranking.count,
        order=ranking.order,
        influential=ranking.influential,
        layers=layers,
        dominance="not measured" if tested is None else "measured",
        reason=reason,
        successes=successes,
        failures=failures,
        contrasts=() if tested is None else tested.contrasts,
        dominant=dominant,
        stability=half_stability(group.aas_SL, ranking.count, seed=seed),
    )


def _layer(group: Group, ranking: Ranking, layer: int) -> LayerEvidence:
    binding_S = group.binding_SL[:, layer]
    present_S = binding_S[~np.isnan(binding_S)]
    lift_S = group.log_lift_SL[:, layer]
    several = len(lift_S) > 1
    return LayerEvidence(
        layer=layer,
        frequency=float(ranking.frequency_L[layer]),
        aas=float(ranking.mean_aas_L[layer]),
        log_lift=float(lift_S.mean()),
        binding=float(present_S.mean()) if len(present_S) else None,
        log_lift_error=float(lift_S.std(ddof=1) / math.sqrt(len(lift_S))) if several else None,
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


def _following(
    group: Group, ranking: Ranking, tested: Dominance, labels: Mapping[str, bool]
) -> tuple[int, ...]:
    """Dominant layers that see anything: a difference can be real and tiny in one that does not.

    Asked of successes alone: where the instances go astray, a layer that follows them misses the
    mask, and the better it follows the lower its mean over all videos.
    """
    rows = [i for i, sample in enumerate(group.samples) if labels.get(sample, False)]
    succeeded = replace(
        group,
        samples=tuple(group.samples[i] for i in rows),
        aas_SL=group.aas_SL[rows],
        log_lift_SL=group.log_lift_SL[rows],
        binding_SL=group.binding_SL[rows],
        area_S=group.area_S[rows],
    )
    return tuple(i for i in tested.dominant if follows(_layer(succeeded, ranking, i)))


def _sinks(table: SinkTable, num_layers: int) -> tuple[LayerSinks, ...]:
    shares = table.layer_shares(num_layers)
    return tuple(
        LayerSinks(layer=i, shares={name: float(share_L[i]) for name, share_L in shares.items()})
        for i in range(num_layers)
    )
