"""Counting storages, and putting a timeline together."""

import torch

from matrix_video.plan.machine import Machine, Work
from matrix_video.plan.meter import (
    AFTER,
    BACKWARD,
    FORWARD,
    Meter,
    Segment,
    by_layer,
    peak_of,
    stretched,
)

MACHINE = Machine(
    "m", 10, {("matmul", torch.float32): 100.0}, bandwidth=10.0, gpu=False, assumption=""
)


def test_a_storage_counts_once_and_until_it_is_freed() -> None:
    meter = Meter(MACHINE)
    meter.mark("a")
    x = torch.zeros(10)
    assert meter.saw(x)
    assert not meter.saw(x[2:])
    meter.mark("b")
    y = torch.zeros(5)
    meter.saw(y)
    del x
    meter.needed(12)
    (a, b) = meter.take()
    assert (a.grew, a.peak) == (40, 40)
    assert (b.grew, b.peak) == (20 - 40, 20)
    assert meter.live == 20
    assert meter.take() == ()


def test_work_takes_as_long_as_its_slower_half() -> None:
    assert MACHINE.seconds(Work("matmul", 200, 10, torch.float32)) == 2
    assert MACHINE.seconds(Work("matmul", 200, 50, torch.bfloat16)) == 5
    assert MACHINE.seconds(Work("memory", 0, 20, torch.float32)) == 2


def test_stretched_segments_peak_where_the_whole_would() -> None:
    segments = (
        Segment(FORWARD, 0, grew=14, peak=16),
        Segment(AFTER, 0, grew=-4),
        Segment("losses", None, grew=1, peak=3),
        Segment(BACKWARD, 0, grew=-9, peak=30, gradients=1),
    )
    whole = stretched(segments, [(0, 1, 2)])
    assert [(s.name, s.layer) for s in whole if s.name != AFTER] == [
        (FORWARD, 0), (FORWARD, 1), (FORWARD, 2), ("losses", None),
        (BACKWARD, 2), (BACKWARD, 1), (BACKWARD, 0),
    ]  # fmt: skip
    assert [s.layer for s in whole if s.name == AFTER] == [0, 1, 2]
    peak = peak_of(whole)
    assert (peak.bytes, peak.segment.layer, peak.gradients) == (31 + 30, 2, 0)


def test_several_segments_of_a_layer_are_added() -> None:
    twice = (Segment(FORWARD, 0, grew=4, peak=5, flops=1), Segment(FORWARD, 0, grew=1, peak=3))
    found = by_layer(twice, FORWARD)[0]
    assert (found.grew, found.peak, found.flops) == (5, 7, 1)
