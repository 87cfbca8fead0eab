"""The best heads of layers."""

from __future__ import annotations

import math

import pytest

from matrix_video.analysis.heads import HeadEvidence, best_heads
from matrix_video.analysis.records import Row, to_table
from matrix_video.data.sample import Role


def _row(sample: str, layer: int, head: int | None, aas: float, **changes: float | str) -> Row:
    role: Role = "verb" if changes.get("role") == "verb" else "subject"
    return Row(
        sample,
        layer,
        int(changes.get("level", 0)),
        1.0,
        role,
        "v2t",
        0,
        "id1",
        head,
        aas=aas,
        log_lift=2 * aas,
        mean_in_mask=0.1,
        average_precision=0.1,
        binding=float(changes.get("binding", math.nan)),
        area=0.25,
    )


def test_heads_are_means_over_levels_then_samples_best_first() -> None:
    rows = [
        _row("a", 3, None, 0.9),
        _row("a", 3, 0, 0.1),
        _row("a", 3, 1, 0.6, binding=0.5),
        _row("a", 3, 1, 0.4, level=1),
        _row("a", 3, 2, 0.3),
        _row("b", 3, 0, 0.3),
        _row("b", 3, 1, 0.1),
        _row("b", 3, 2, 0.7),
        _row("a", 3, 0, 1.0, role="verb"),
        _row("a", 4, 0, 1.0),
    ]
    found = best_heads(to_table(rows), "v2t", "nouns", (3,), count=2)
    assert [(h.layer, h.head) for h in found] == [(3, 2), (3, 1)]
    assert [h.aas for h in found] == pytest.approx([0.5, 0.3])
    assert [h.log_lift for h in found] == pytest.approx([1.0, 0.6])
    assert [h.binding for h in found] == [None, 0.5]
    assert best_heads(to_table(rows), "v2t", "verbs", (3,)) == (
        HeadEvidence("v2t", "verbs", 3, 0, 1.0, 2.0, None),
    )


def test_layers_come_in_the_order_asked_for_and_without_heads_there_are_none() -> None:
    rows = [_row("a", layer, head, 0.5) for layer in (0, 1, 2) for head in (None, 0)]
    assert [h.layer for h in best_heads(to_table(rows), "v2t", "nouns", (2, 0))] == [2, 0]
    assert best_heads(to_table(rows[::2]), "v2t", "nouns", (2, 0)) == ()
    assert best_heads(to_table(rows), "v2v", "nouns", (2, 0)) == ()
