"""The choice of layers from planted measurements.

Shapes: S samples, L layers, F token frames, h w token rows and columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from matrix_video.analysis.caveats import basis_text, caveats, follows
from matrix_video.analysis.choose import choose_layers
from matrix_video.analysis.layers import (
    DataFacts,
    GroupEvidence,
    LayerChoice,
    LayerEvidence,
    ModelFacts,
    read_choice,
    write_choice,
)
from matrix_video.analysis.records import KINDS, Row, Table, join_tables, to_table
from matrix_video.analysis.scores import score
from matrix_video.analysis.sink_records import SinkRow, to_sink_table
from matrix_video.attention.site import Kind
from matrix_video.backbones.fingerprint import Fingerprint
from matrix_video.data.sample import Role
from matrix_video.services.errors import MatrixError

_LAYERS = 12  # so three layers are influential
_SHAPE = (4, 6, 6)
_MODEL = ModelFacts(
    name="planted",
    family="none",
    num_layers=_LAYERS,
    fingerprint=Fingerprint(name="T", architecture="a", weights="w"),
)
_DATA = DataFacts(path="planted", samples=1, hash="h")
_ROLES: tuple[Role, ...] = ("subject", "object", "verb")

Follow = Mapping[tuple[Kind, Role, int], float]
"""How far a layer's map follows the mask, 0 (not at all) to 1, by kind, role and layer."""


def _planted(
    samples: int, follow: Follow, *, gain: Follow | None = None, seed: int = 0
) -> tuple[Table, dict[str, bool]]:
    """Scores of maps made to follow masks; ``gain`` is added in successful videos alone."""
    random = torch.Generator().manual_seed(seed)
    rows: list[Row] = []
    labels: dict[str, bool] = {}
    visible = torch.ones(_SHAPE[0], dtype=torch.bool)
    for s in range(samples):
        name = f"clip{s:03d}"
        labels[name] = s % 2 == 0
        mask, rival = _box(random), _box(random)
        rival &= ~mask
        for kind in KINDS:
            for phrase, role in enumerate(_ROLES):
                for layer in range(_LAYERS):
                    share = follow.get((kind, role, layer), 0.0)
                    if gain is not None and labels[name]:
                        share += gain.get((kind, role, layer), 0.0)
                    noise = torch.rand(_SHAPE, generator=random, dtype=torch.float64)
                    maps = (noise + 20 * share * mask)[None]
                    found = score(maps, mask, visible, [(rival, visible)])
                    rows.append(_row(name, layer, role, kind, phrase, found))
    return to_table(rows), labels


def _box(random: torch.Generator) -> torch.Tensor:
    mask = torch.zeros(_SHAPE, dtype=torch.bool)
    y, x = (int(torch.randint(0, 4, (1,), generator=random)) for _ in range(2))
    size = int(torch.randint(1, 3, (1,), generator=random))
    mask[:, y : y + size, x : x + size] = True
    return mask


def _row(sample: str, layer: int, role: Role, kind: Kind, phrase: int, found: object) -> Row:
    values = {
        name: float(getattr(found, name))
        for name in ("aas", "log_lift", "mean_in_mask", "average_precision", "binding", "area")
    }
    return Row(
        sample=sample,
        layer=layer,
        level=0,
        timestep=1.0,
        role=role,
        kind=kind,
        phrase=phrase,
        instance="id1",
        head=None,
        **values,
    )


def _rows_of(table: Table) -> list[Row]:
    return [Row(**{k: math.nan if v is None and k != "head" else v for k, v in row.items()})
            for row in table.data.to_pylist()]  # fmt: skip


def _choose(table: Table, labels: Mapping[str, bool] | None) -> LayerChoice:
    return choose_layers(
        table, num_layers=_LAYERS, model=_MODEL, data=_DATA, labels=labels, draws=400
    )


def _nouns(kind: Kind, layers: Mapping[int, float]) -> dict[tuple[Kind, Role, int], float]:
    nouns: tuple[Role, ...] = ("subject", "object")
    return {(kind, role, layer): v for role in nouns for layer, v in layers.items()}


def _verbs(kind: Kind, layers: Mapping[int, float]) -> dict[tuple[Kind, Role, int], float]:
    return {(kind, "verb", layer): v for layer, v in layers.items()}


_FOLLOW = {
    **_nouns("v2t", {5: 0.9, 6: 0.5, 7: 0.3}),
    **_verbs("v2t", {6: 0.8, 2: 0.6, 3: 0.4}),
    **_nouns("v2v", {0: 0.9, 1: 0.7, 2: 0.5}),
    **_verbs("v2v", {1: 0.9, 0: 0.7, 4: 0.5}),
}


def test_layers_that_follow_the_masks_are_influential() -> None:
    table, _ = _planted(20, _FOLLOW)
    choice = _choose(table, None)
    found = {(g.kind, g.words): g for g in choice.evidence.groups}
    assert all(g.stability is not None and g.stability.top_shared > 0.9 for g in found.values())
    assert found["v2t", "nouns"].influential == (5, 6, 7)
    assert found["v2t", "verbs"].influential == (6, 2, 3)
    assert found["v2v", "nouns"].influential == (0, 1, 2)
    assert found["v2v", "verbs"].influential == (1, 0, 4)


def test_without_labels_dominance_is_not_measured_and_binding_decides() -> None:
    table, _ = _planted(20, _FOLLOW)
    choice = _choose(table, None)
    for group in choice.evidence.groups:
        assert (group.dominance, group.contrasts, group.dominant) == ("not measured", (), ())
        assert group.reason == "no labels of success were given"
    assert choice.evidence.basis == {"v2t": "binding", "v2v": "binding"}
    # One of the nouns', one of the verbs', in turn, at most three, in order of binding contrast.
    assert choice.v2t == (5, 6, 2)
    assert choice.v2v == (0, 1, 2)
    assert any("dominance not measured" in warning for warning in choice.evidence.warnings)


def test_layers_that_tell_success_from_failure_are_dominant() -> None:
    gain = {**_nouns("v2t", {6: 0.5, 7: 1.0}), **_verbs("v2t", {2: 0.6})}
    table, labels = _planted(60, _FOLLOW, gain=gain)
    choice = _choose(table, labels)
    groups = {(g.kind, g.words): g for g in choice.evidence.groups}
    assert set(groups["v2t", "nouns"].dominant) == {6, 7}
    assert groups["v2t", "verbs"].dominant == (2,)
    assert (groups["v2t", "verbs"].successes, groups["v2t", "verbs"].failures) == (30, 30)
    text = "log-lift is higher in videos that succeed than in those that fail"
    assert basis_text(choice.evidence, "v2t") == text
    assert set(choice.v2t) == {2, 6, 7}
    assert choice.v2t[-1] == 2  # nouns first
    # Nothing separates the outcomes in V2V, so it stays with the influential ones.
    assert choice.evidence.basis["v2v"] == "influence"
    assert choice.v2v == (0, 1, 2)
    assert choice.evidence.warnings == ()


def test_a_dominant_layer_sees_in_successes_whatever_it_sees_in_failures() -> None:
    """Layer 5 follows instances, which go astray in failures: its mean over all is below chance.
    Layer 6 tells the outcomes apart and sees nothing in either."""
    table, labels = _planted(40, _FOLLOW)
    rows: list[Row] = []
    for i, row in enumerate(_rows_of(table)):
        if row.kind == "v2t" and row.role != "verb" and row.layer == 5 and not labels[row.sample]:
            row = replace(row, log_lift=row.log_lift - 5)
        if row.kind == "v2t" and row.role != "verb" and row.layer == 6:
            row = replace(row, log_lift=(0.02 if labels[row.sample] else -0.02) + i % 7 * 1e-4)
        rows.append(row)
    choice = _choose(to_table(rows), labels)
    nouns = choice.evidence.groups[0]
    assert nouns.layers[5].log_lift < 0
    assert {c.layer for c in nouns.contrasts if c.low > 0} == {5, 6}
    assert nouns.dominant == (5,)
    assert choice.v2t == (5,)
    assert not [w for w in choice.evidence.warnings if "does not follow" in w and "v2t" in w]


def test_labels_of_too_few_failures_are_not_tested() -> None:
    table, labels = _planted(20, _FOLLOW)
    few = {name: name not in ("clip001", "clip003") for name in labels}
    choice = _choose(table, few)
    reason = "18 successes and 2 failures; at least 3 of each are needed"
    assert {g.reason for g in choice.evidence.groups} == {reason}
    assert f"v2v verbs: dominance not measured ({reason})" in choice.evidence.warnings
    assert choice.evidence.basis["v2t"] == "binding"


def test_labels_without_a_failure_are_not_tested() -> None:
    table, labels = _planted(4, _FOLLOW)
    choice = _choose(table, dict.fromkeys(labels, True))
    reason = "4 successes and 0 failures; at least 3 of each are needed"
    assert {g.reason for g in choice.evidence.groups} == {reason}
    assert f"v2t nouns: dominance not measured ({reason})" in choice.evidence.warnings


def test_thin_evidence_is_warned_of() -> None:
    table, labels = _planted(8, _FOLLOW)
    warnings = _choose(table, labels).evidence.warnings
    assert "v2t nouns: ranked on 8 samples only; the order may not hold" in warnings
    assert (
        "v2t nouns: dominance rests on 4 successes and 4 failures; with fewer than 16 of each it "
        "may not hold" in warnings
    )
    warnings = _choose(table, None).evidence.warnings
    assert "v2t nouns: dominance not measured (no labels of success were given)" in warnings
    alone = to_table(
        replace(row, binding=math.nan) for row in _rows_of(table) if row.sample == "clip000"
    )
    warnings = _choose(alone, None).evidence.warnings
    assert (
        "v2v verbs: too few samples to halve (1; at least 4 are needed), so that it is not known "
        "how stable the order is" in warnings
    )
    assert "v2v verbs: no sample has a rival instance, so binding is not measured" in warnings


def test_an_order_that_halves_do_not_share_is_warned_of() -> None:
    table, _ = _planted(6, {}, seed=1)  # all layers look at nothing
    choice = _choose(table, None)
    for group in choice.evidence.groups:
        assert group.stability is not None
        assert group.stability.unstable
    halves = choice.evidence.groups[0].stability
    assert halves is not None
    assert (
        "v2t nouns: the order is unstable: between random halves of the samples its rank "
        f"correlation is {halves.mean:.2f} ({halves.low:.2f} to {halves.high:.2f}; below 0.5 the "
        f"top is in doubt), and of the top 3 layers {halves.top_shared:.0%} are the same; measure "
        "more samples" in choice.evidence.warnings
    )


@pytest.fixture(scope="module")
def followed() -> GroupEvidence:
    return _choose(_planted(2, _FOLLOW)[0], None).evidence.groups[0]


@pytest.mark.parametrize(
    ("lift", "error", "told"),
    [
        (-0.52, 0.04, "nouns -0.52 (13 standard errors below chance)"),
        (-0.05, 0.04, "nouns -0.05 (within 3 standard errors of chance)"),
        (0.05, 0.04, "nouns +0.05 (within 3 standard errors of chance)"),
        (0.06, 0.01, "nouns +0.06 (above chance, by less than 0.1)"),
        (0.05, None, "nouns +0.05"),
        (0.3, 0.01, None),
    ],
)
def test_a_chosen_layer_that_follows_nothing_is_told_with_its_side_of_chance(
    followed: GroupEvidence, lift: float, error: float | None, told: str | None
) -> None:
    group = followed
    layer = group.layers[0].model_copy(update={"log_lift": lift, "log_lift_error": error})
    group = group.model_copy(update={"layers": (layer, *group.layers[1:])})
    found = [w for w in caveats([group], {"v2t": (0,), "v2v": ()}, []) if "is chosen" in w][:-1]
    assert found == (
        []
        if told is None
        else [f"v2t: layer 0 is chosen although it does not follow the masks: log-lift of {told}"]
    )


def test_the_basis_names_layers_that_separate_the_other_way_round() -> None:
    table, labels = _planted(24, _FOLLOW, gain=_nouns("v2t", {6: 1.5}))
    failed = {name: not gained for name, gained in labels.items()}  # the gain goes to failures
    evidence = _choose(table, failed).evidence
    text = basis_text(evidence, "v2t")
    contrast = next(c for c in evidence.groups[0].contrasts if c.layer == 6)
    assert contrast.high < 0
    figures = f"nouns {contrast.difference:+.3f} [{contrast.low:+.3f}, {contrast.high:+.3f}]"
    assert f"; layer 6 ({figures}) separates them the other way round" in text
    assert "the other way round" not in basis_text(evidence, "v2v")


@pytest.mark.parametrize(
    ("lift", "error", "found"),
    [(0.5, 0.1, True), (0.5, 0.2, False), (0.09, 0.0, False), (0.11, None, True)],
)
def test_following_is_more_than_noise_and_more_than_little(
    lift: float, error: float | None, found: bool
) -> None:
    layer = LayerEvidence(
        layer=0, frequency=1, aas=0.2, log_lift=lift, binding=None, log_lift_error=error
    )
    assert follows(layer) is found


def test_heads_and_sinks_are_kept_as_evidence() -> None:
    table, _ = _planted(4, _FOLLOW)
    heads = to_table(
        replace(row, head=head, aas=row.aas * (1 + head)) for row in _rows_of(table)
        for head in range(5)
    )  # fmt: skip
    rows = [
        SinkRow("clip000", layer, 0, 1.0, tokens, 4, share)
        for layer in range(_LAYERS)
        for tokens, share in (("word", 0.1), ("padding", 0.3), ("video", 0.6))
    ]
    plain = _choose(table, None)
    choice = choose_layers(
        join_tables([table, heads]),
        num_layers=_LAYERS,
        model=_MODEL,
        data=_DATA,
        sinks=to_sink_table(rows),
    )
    # They are shown, and choose nothing.
    assert (choice.v2t, choice.v2v) == (plain.v2t, plain.v2v)
    assert choice.evidence.groups == plain.evidence.groups
    assert [s.layer for s in choice.evidence.sinks] == list(range(_LAYERS))
    assert choice.evidence.sinks[3].shares == {"word": 0.1, "padding": 0.3, "video": 0.6}
    assert choice.evidence.warnings[:-1] == plain.evidence.warnings
    assert choice.evidence.warnings[-1].startswith("v2t: more than 50% of the attention to text")
    found = [h for h in choice.evidence.heads if (h.kind, h.words) == ("v2t", "verbs")]
    expected = [(layer, head) for layer in choice.v2t for head in (4, 3, 2)]
    assert [(h.layer, h.head) for h in found] == expected
    assert plain.evidence.heads == plain.evidence.sinks == ()


@pytest.mark.parametrize("lost", ["v2t", "v2v"])
def test_a_kind_without_measurements_gets_no_layer_and_nothing_at_all_is_refused(
    lost: Kind,
) -> None:
    table, _ = _planted(4, _FOLLOW)
    choice = _choose(Table(table.data.filter(table.text("kind") != lost)), None)
    assert {"v2t": choice.v2t, "v2v": choice.v2v}[lost] == ()
    assert basis_text(choice.evidence, lost) == "no sample could be scored"
    assert {g.kind for g in choice.evidence.groups} == {"v2t", "v2v"} - {lost}
    warning = f"{lost}: no layer is chosen, because no sample has a map that could be scored"
    assert any(line.startswith(warning) for line in choice.evidence.warnings)
    with pytest.raises(MatrixError, match="data: no sample has a map that could be scored"):
        _choose(Table(table.data.slice(0, 0)), None)


def test_file_round_trip_and_contract(tmp_path: Path) -> None:
    table, labels = _planted(20, _FOLLOW)
    choice = _choose(table, labels)
    path = tmp_path / "layers.json"
    write_choice(path, choice)
    assert read_choice(path) == choice
    stored = json.loads(path.read_text())
    assert set(stored) == {"format", "model", "data", "v2t", "v2v", "evidence"}
    assert stored["format"] == 1
    for group in stored["evidence"]["groups"]:
        assert group["stability"].pop("top_shared") <= 1
        del group["stability"]
    del stored["evidence"]["sinks"], stored["evidence"]["heads"]
    path.write_text(json.dumps(stored))  # as format 1 was first written
    assert read_choice(path).v2t == choice.v2t
    assert stored["v2t"] == list(choice.v2t)


def test_a_broken_file_names_the_field(tmp_path: Path) -> None:
    table, _ = _planted(4, _FOLLOW)
    path = tmp_path / "layers.json"
    write_choice(path, _choose(table, None))
    stored = json.loads(path.read_text())
    stored["v2t"] = ["five"]
    path.write_text(json.dumps(stored))
    with pytest.raises(MatrixError, match=r"layers.json: v2t\.0: not a choice of layers"):
        read_choice(path)
