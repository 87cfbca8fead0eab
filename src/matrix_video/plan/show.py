"""A plan as tables for people, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

from matrix_video.plan.costs import LayerCost, batch_of
from matrix_video.plan.machine import GB, Machine
from matrix_video.plan.predict import Prediction
from matrix_video.plan.remedies import Remedy, Way
from matrix_video.services.console import say

_TERA = 1e12


def show(
    plan: Prediction,
    machine: Machine,
    budget: int,
    found: tuple[Remedy, ...],
    way: Way | None,
    console: Console,
) -> None:
    """Print everything, the verdict last."""
    _say(console, headline(plan))
    console.print(_parts(plan))
    console.print(_phases(plan))
    console.print(_layers(plan))
    if found:
        console.print(_remedies(found))
    _say(console, f"seconds are an estimate: {machine.name}, {machine.assumption}")
    _say(console, f"configuration: {plan.source}")
    for line in verdict(plan, machine, budget, way):
        _say(console, line)


def headline(plan: Prediction) -> str:
    """What is planned, in one line."""
    config, (frames, height, width) = plan.config, plan.clip
    video, text = plan.tokens
    stored = config.weights if config.quantize == "none" else f"{config.weights}, {config.quantize}"
    return (
        f"{config.mode} {config.model}: {frames} frames of {height} x {width}, {video} video and "
        f"{text} text tokens, batch {batch_of(config)}, weights {stored}, precision "
        f"{config.precision}"
    )


def verdict(plan: Prediction, machine: Machine, budget: int, way: Way | None) -> Iterator[str]:
    """Whether it fits, and what makes it fit."""
    if plan.total <= budget:
        yield f"fits: {gigabytes(plan.total)} of {gigabytes(budget)} GB on {machine.name}"
        return
    yield (
        f"does not fit: {gigabytes(plan.total)} GB, but {gigabytes(budget)} GB on {machine.name}; "
        f"most is needed in: {plan.where}"
    )
    if way is None:
        return
    how = ", ".join(way.how) or "no option saves anything"
    if way.fits:
        yield f"fits with {how}: {gigabytes(way.total)} GB, {duration(way.seconds)}"
    else:
        yield (
            f"does not fit with {how} either: {gigabytes(way.total)} GB. Take a device with more "
            "memory, or a smaller model"
        )


def report(
    plan: Prediction, machine: Machine, budget: int, found: tuple[Remedy, ...], way: Way | None
) -> dict[str, Any]:
    """The whole plan as JSON: bytes, seconds, FLOP."""
    values = asdict(plan) | {"config": plan.config.model_dump(mode="json")}
    return {
        "format": 1,
        **values,
        "seconds": plan.seconds,
        "machine": {"name": machine.name, "assumption": machine.assumption},
        "budget": budget,
        "fits": plan.total <= budget,
        "remedies": [asdict(remedy) for remedy in found],
        "way": None if way is None else asdict(way),
    }


def gigabytes(count: int) -> str:
    """In units of 10⁹ bytes; small plans with more digits."""
    return f"{count / GB:.1f}" if abs(count) >= 10 * GB else f"{count / GB:.3g}"


def duration(seconds: float) -> str:
    """In the unit that a person would use."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.3g} s"


def _say(console: Console, line: str) -> None:
    say(console, line)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    return table


def _parts(plan: Prediction) -> Table:
    table = _table(f"Memory at the peak ({plan.where})", "part", "GB", "share")
    for name, size in plan.parts.items():
        table.add_row(name, gigabytes(size), f"{size / plan.total:.0%}")
    table.add_section()
    table.add_row("total", gigabytes(plan.total), "")
    return table


def _phases(plan: Prediction) -> Table:
    table = _table("Time", "phase", "times", "TFLOP", "each", "all", "peak GB")
    for phase in plan.phases:
        table.add_row(
            phase.title,
            f"{phase.times:g}",
            f"{phase.flops / _TERA:.3g}",
            duration(phase.seconds),
            duration(phase.seconds * phase.times),
            gigabytes(phase.peak),
        )
    table.add_section()
    table.add_row("run", "", "", "", duration(plan.seconds), gigabytes(plan.total))
    return table


def _layers(plan: Prediction) -> Table:
    table = _table("Layers, in one step", "layer", "maps", "kept GB", "working GB", "TFLOP", "time")

    def alike(cost: LayerCost) -> tuple[object, ...]:
        return cost.read, cost.kept, cost.working, cost.flops

    for _, group in groupby(plan.layers, key=alike):
        same = list(group)
        one = same[0]
        name = f"{one.layer}" if len(same) == 1 else f"{one.layer}-{same[-1].layer}, each"
        table.add_row(
            name,
            one.read or "-",
            gigabytes(one.kept),
            gigabytes(one.working),
            f"{one.flops / _TERA:.3g}",
            duration(one.seconds),
        )
    return table


def _remedies(found: tuple[Remedy, ...]) -> Table:
    table = _table("What saves memory, alone, cheapest first", "change", "saves GB", "total GB",
                   "run", "how")  # fmt: skip
    table.columns[-1].justify = "left"
    for remedy in found:
        table.add_row(
            remedy.title,
            gigabytes(remedy.saved),
            gigabytes(remedy.total),
            duration(remedy.seconds),
            remedy.how,
        )
    return table
