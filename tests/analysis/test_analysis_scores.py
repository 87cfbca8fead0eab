"""Scores against loops written from their definitions.

Shapes: P levels, F frames, h w rows and columns.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from matrix_video.analysis.scores import (
    area_share,
    average_precision,
    binding_contrast,
    counted_frames,
    lift,
    score,
)
from matrix_video.data.tracks import State

_FRAMES, _ROWS, _COLUMNS = 4, 3, 5


def _case(seed: int, levels: int = 2, distinct: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Maps [P,F,h,w], mask [F,h,w], visible [F] with at least one visible frame with a mask."""
    random = torch.Generator().manual_seed(seed)
    size = (_FRAMES, _ROWS, _COLUMNS)
    maps = torch.rand(levels, *size, generator=random, dtype=torch.float64)
    if distinct:
        maps = (maps * distinct).floor() / distinct
    mask = torch.rand(size, generator=random) < 0.3
    visible = torch.rand(_FRAMES, generator=random) < 0.6
    visible[int(torch.randint(_FRAMES, (1,), generator=random))] = True
    mask[:, 1, 1] = True
    return maps, mask, visible


def _naive_aas(map_Fhw: Tensor, mask: Tensor, visible: Tensor) -> float:
    shares = []
    for f in range(_FRAMES):
        if not visible[f]:
            continue
        inside = total = 0.0
        for y in range(_ROWS):
            for x in range(_COLUMNS):
                value = float(map_Fhw[f, y, x])
                total += value
                inside += value if mask[f, y, x] else 0.0
        shares.append(inside / total if total else 0.0)
    return sum(shares) / len(shares)


def _naive_average_precision(map_Fhw: Tensor, mask: Tensor, visible: Tensor) -> float:
    pairs = [
        (float(map_Fhw[f, y, x]), bool(mask[f, y, x]))
        for f in range(_FRAMES)
        if visible[f]
        for y in range(_ROWS)
        for x in range(_COLUMNS)
    ]
    positives = sum(label for _, label in pairs)
    total = recall_before = 0.0
    for threshold in sorted({value for value, _ in pairs}, reverse=True):
        taken = [label for value, label in pairs if value >= threshold]
        recall = sum(taken) / positives
        total += (recall - recall_before) * sum(taken) / len(taken)
        recall_before = recall
    return total


@given(seed=st.integers(0, 2**20), distinct=st.sampled_from([0, 3]))
def test_every_measure_equals_its_loop(seed: int, distinct: int) -> None:
    maps, mask, visible = _case(seed, distinct=distinct)
    rival = _case(seed + 1)[1] & ~mask
    seen = _case(seed + 2)[2]
    found = score(maps, mask, visible, [(rival, seen)])
    area = np.mean([float(mask[f].double().mean()) for f in range(_FRAMES) if visible[f]])
    assert found.area == pytest.approx(area)
    for p, map_Fhw in enumerate(maps):
        own = _naive_aas(map_Fhw, mask, visible)
        assert float(found.aas[p]) == pytest.approx(own, abs=1e-12)
        floored = max(own, area * math.exp(-6.0))
        assert float(found.log_lift[p]) == pytest.approx(math.log(floored / area), abs=1e-12)
        inside = [float(map_Fhw[f][mask[f]].sum()) for f in range(_FRAMES) if visible[f]]
        tokens = sum(int(mask[f].sum()) for f in range(_FRAMES) if visible[f])
        assert float(found.mean_in_mask[p]) == pytest.approx(sum(inside) / tokens, abs=1e-12)
        precision = _naive_average_precision(map_Fhw, mask, visible)
        assert float(found.average_precision[p]) == pytest.approx(precision, abs=1e-12)
        both = visible & seen
        if both.any():
            expected = _naive_aas(map_Fhw, mask, both) - _naive_aas(map_Fhw, rival, both)
            assert float(found.binding[p]) == pytest.approx(expected, abs=1e-12)
        else:
            assert math.isnan(float(found.binding[p]))


@given(seed=st.integers(0, 2**20), factor=st.floats(1e-6, 1e6))
@settings(max_examples=30, deadline=None)
def test_scale_free_measures_ignore_the_maps_mass(seed: int, factor: float) -> None:
    maps, mask, visible = _case(seed)
    one, other = score(maps, mask, visible), score(maps * factor, mask, visible)
    torch.testing.assert_close(one.aas, other.aas)
    torch.testing.assert_close(one.log_lift, other.log_lift)
    torch.testing.assert_close(one.average_precision, other.average_precision)
    torch.testing.assert_close(one.mean_in_mask * factor, other.mean_in_mask)


def test_uniform_map_is_chance_and_perfect_map_is_one() -> None:
    _, mask, visible = _case(3)
    uniform = score(torch.ones(_FRAMES, _ROWS, _COLUMNS), mask, visible)
    assert float(uniform.log_lift) == pytest.approx(0.0, abs=1e-12)
    assert float(uniform.aas) == pytest.approx(uniform.area)
    perfect = score(mask.double(), mask, visible)
    assert float(perfect.aas) == 1.0
    assert float(perfect.average_precision) == 1.0
    assert float(perfect.log_lift) == pytest.approx(-math.log(perfect.area))


def test_uncounted_frames_change_nothing() -> None:
    maps, mask, visible = _case(5)
    visible[1] = False
    spoiled_maps, spoiled_mask = maps.clone(), mask.clone()
    spoiled_maps[:, 1] = 1e3
    spoiled_mask[1] = ~mask[1]
    one, other = score(maps, mask, visible), score(spoiled_maps, spoiled_mask, visible)
    for name in ("aas", "log_lift", "mean_in_mask", "average_precision"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name))
    assert one.area == other.area


def test_states_decide_which_frames_count() -> None:
    states = (State.VISIBLE, State.ABSENT, State.UNKNOWN, State.VISIBLE)
    assert counted_frames(states).tolist() == [True, False, False, True]
    assert counted_frames(states, after=0).tolist() == [False, False, False, True]


def test_nothing_to_count_is_not_a_number() -> None:
    maps, mask, _ = _case(7)
    nowhere = torch.zeros(_FRAMES, dtype=torch.bool)
    found = score(maps, mask, nowhere)
    assert math.isnan(area_share(mask, nowhere))
    for name in ("aas", "log_lift", "mean_in_mask", "average_precision", "binding"):
        assert bool(getattr(found, name).isnan().all()), name


def test_no_attention_at_all_stays_a_number() -> None:
    assert float(lift(torch.tensor(0.0), 0.25)) == pytest.approx(-6.0)


def test_the_strongest_rival_counts() -> None:
    mask = torch.zeros(1, 1, 4, dtype=torch.bool)
    mask[0, 0, 0] = True
    weak, strong = mask.roll(1, -1), mask.roll(2, -1)
    seen = torch.ones(1, dtype=torch.bool)
    map_Fhw = torch.tensor([[[0.5, 0.1, 0.4, 0.0]]])
    contrast = binding_contrast(map_Fhw, mask, seen, [(weak, seen), (strong, seen)])
    assert float(contrast) == pytest.approx(0.1, abs=1e-7)


def test_heads_and_levels_are_scored_at_once() -> None:
    maps, mask, visible = _case(11, levels=6)
    together = average_precision(maps.reshape(2, 3, *maps.shape[1:]), mask, visible)
    apart = torch.stack([average_precision(m, mask, visible) for m in maps]).reshape(2, 3)
    torch.testing.assert_close(together, apart)


def test_parts_that_do_not_belong_together_are_refused() -> None:
    maps, mask, visible = _case(13)
    with pytest.raises(ValueError, match="do not belong together"):
        score(maps, mask[:-1], visible[:-1])
