"""Order of samples and learning rate: no state, no rank."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.training.schedule import batch_indices, warmup_factor


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 5))
def test_every_epoch_shows_every_sample_once(samples: int, batch: int, seed: int) -> None:
    updates = -(-3 * samples // batch)
    pairs = [
        pair
        for step in range(updates)
        for pair in batch_indices(step, samples=samples, batch=batch, seed=seed)
    ]
    assert len(pairs) == updates * batch
    assert len(set(pairs)) == len(pairs)
    for epoch in range(3):
        assert Counter(i for i, e in pairs if e == epoch) == Counter(range(samples))
    assert [e for _, e in pairs] == sorted(e for _, e in pairs)


def test_order_depends_on_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [i for i, _ in batch_indices(epoch, samples=20, batch=20, seed=seed)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_warm_up() -> None:
    assert [warmup_factor(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert warmup_factor(0, 0) == 1
    assert warmup_factor(10**6, 20) == pytest.approx(1)
