"""Ranking by frequency and mean AAS. Shapes: S samples, L layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matrix_video.analysis.ranking import make_group, rank_layers, top_count
from matrix_video.analysis.records import Row, Table, to_table


def _row(sample: str, layer: int, aas: float, **changes: object) -> Row:
    values: dict[str, object] = {
        "sample": sample,
        "layer": layer,
        "level": 0,
        "timestep": 1.0,
        "role": "subject",
        "kind": "v2t",
        "phrase": 0,
        "instance": "id1",
        "head": None,
        "aas": aas,
        "log_lift": aas / 2,
        "mean_in_mask": aas,
        "average_precision": aas,
        "binding": math.nan,
        "area": 0.25,
    }
    return Row(**{**values, **changes})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("layers", "count"), [(42, 10), (30, 7), (40, 10), (8, 2), (12, 3), (2, 2), (1, 1)]
)
def test_number_of_influential_layers(layers: int, count: int) -> None:
    assert top_count(layers) == count


def test_frequency_and_mean_count_alike() -> None:
    # Layer 2 leads in one sample by far, layer 0 a little in the two others, 1 is second always.
    aas_SL = np.array(
        [[0.5, 0.4, 0.1, 0.0], [0.5, 0.4, 0.1, 0.0], [0.1, 0.4, 0.9, 0.0]], dtype=np.float64
    )
    ranking = rank_layers(aas_SL)
    np.testing.assert_allclose(ranking.frequency_L, [2 / 3, 1.0, 1 / 3, 0.0])
    # Ranks of frequency 2 1 3 4, of the mean (0.367 0.4 0.367 0) 2 1 2 4.
    assert ranking.order == (1, 0, 2, 3)
    assert ranking.influential == (1, 0)


def test_equal_rank_sums_go_to_the_higher_mean() -> None:
    # Layer 0 is always among the top two but has the lower mean; layer 1 the other way round.
    aas_SL = np.array([[0.3, 0.9, 0.0], [0.3, 0.9, 0.0], [0.3, 0.0, 0.4]])
    ranking = rank_layers(aas_SL)
    np.testing.assert_allclose(ranking.frequency_L, [1.0, 2 / 3, 1 / 3])
    assert ranking.mean_aas_L[1] > ranking.mean_aas_L[0]
    assert ranking.order[:2] == (1, 0)


@given(
    st.integers(1, 6).flatmap(
        lambda layers: st.lists(
            st.lists(st.floats(0, 1, width=16), min_size=layers, max_size=layers),
            min_size=1,
            max_size=8,
        )
    )
)
@settings(deadline=None, max_examples=60)
def test_order_is_a_permutation_and_ignores_the_order_of_samples(rows: list[list[float]]) -> None:
    aas_SL = np.array(rows)
    ranking = rank_layers(aas_SL)
    assert sorted(ranking.order) == list(range(aas_SL.shape[1]))
    assert len(ranking.influential) == top_count(aas_SL.shape[1])
    assert ranking.frequency_L.sum() == pytest.approx(ranking.count)
    turned = rank_layers(aas_SL[::-1])
    np.testing.assert_allclose(turned.frequency_L, ranking.frequency_L)


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        rank_layers(np.zeros((0, 4)))


def test_a_group_averages_levels_and_phrases_of_its_own_words() -> None:
    rows = [
        _row("a", 0, 0.2, level=0),
        _row("a", 0, 0.4, level=1),
        _row("a", 0, 0.9, phrase=1, role="object", instance="id2", binding=0.5, area=0.75),
        _row("a", 1, 0.1),
        _row("a", 0, 0.8, role="verb", phrase=2),
        _row("a", 0, 0.7, kind="v2v"),
        _row("a", 0, 0.6, head=3),
        _row("b", 0, 0.3),
        _row("b", 1, 0.5),
    ]
    group = make_group(to_table(rows), "v2t", "nouns", 2)
    assert group.samples == ("a", "b")
    np.testing.assert_allclose(group.aas_SL, [[0.5, 0.1], [0.3, 0.5]])
    np.testing.assert_allclose(group.log_lift_SL, group.aas_SL / 2)
    np.testing.assert_allclose(group.binding_SL, [[0.5, math.nan], [math.nan, math.nan]])
    # mean over the layers of the mean over rows: ((0.25 + 0.25 + 0.75) / 3 + 0.25) / 2
    np.testing.assert_allclose(group.area_S, [(1.25 / 3 + 0.25) / 2, 0.25])
    verbs = make_group(to_table(rows[4:5]), "v2t", "verbs", 1)
    np.testing.assert_allclose(verbs.aas_SL, [[0.8]])


def test_an_incomplete_sample_is_refused() -> None:
    table: Table = to_table([_row("a", 0, 0.1), _row("a", 1, 0.1), _row("b", 0, 0.2)])
    with pytest.raises(ValueError, match="sample b was not measured in all 2 layers"):
        make_group(table, "v2t", "nouns", 2)
