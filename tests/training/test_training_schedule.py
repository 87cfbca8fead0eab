"""Order of samples and learning rate: no rank, and no state but the step."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.training.schedule import Order, rate_factor


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 5))
def test_every_epoch_shows_every_sample_once(samples: int, batch: int, seed: int) -> None:
    updates = -(-3 * samples // batch)
    order = Order(["one"] * samples, batch=batch, seed=seed)
    pairs = [pair for step in range(updates) for pair in order.update(step)]
    assert len(pairs) == updates * batch
    assert len(set(pairs)) == len(pairs)
    for epoch in range(3):
        assert Counter(i for i, e in pairs if e == epoch) == Counter(range(samples))
    assert [e for _, e in pairs] == sorted(e for _, e in pairs)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), st.integers(1, 5))
def test_an_update_is_of_one_bucket_and_buckets_take_turns(buckets: list[str], batch: int) -> None:
    order, updates = Order(buckets, batch=batch, seed=0), 40
    taken: Counter[str] = Counter()
    for step in range(updates):
        of = {buckets[i] for i, _ in order.update(step)}
        assert len(of) == 1
        taken.update(of)
    sizes = Counter(buckets)
    for bucket, size in sizes.items():
        assert abs(taken[bucket] - updates * size / len(buckets)) < len(sizes)
    # A resumed run asks for later updates first.
    assert Order(buckets, batch=batch, seed=0).update(updates - 1) == order.update(updates - 1)


def test_order_depends_on_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [i for i, _ in Order(["one"] * 20, batch=20, seed=seed).update(epoch)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_warm_up_and_decay() -> None:
    assert [rate_factor(step, warmup=4, steps=9) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert rate_factor(0, warmup=0, steps=5) == 1
    falling = [rate_factor(step, warmup=2, steps=6, decay="cosine") for step in range(6)]
    assert falling[:3] == [0.5, 1, 1]
    assert falling[4] == pytest.approx(0.5)
    assert falling[5] == pytest.approx(0.1464, abs=1e-4)
    assert rate_factor(3, warmup=5, steps=4, decay="cosine") == pytest.approx(0.8)
