"""Paired differences between every two evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

from matrix_video.report.collect.runs import GENERATION
from matrix_video.report.collect.scores import Evaluation
from matrix_video.report.content import Difference, Estimate, Metric
from matrix_video.services.files import read_json

Compare = Callable[[Path, Path, Metric], Estimate | None]
"""Mean of left − right over the videos that both evaluation folders scored; None: no such video."""

COMPARED: Final[tuple[Metric, ...]] = ("if", "kisa", "sgi")


def collect_differences(
    evaluations: Sequence[Evaluation], compare: Compare
) -> tuple[tuple[Difference, ...], tuple[str, ...]]:
    """Later less earlier, the last pair first, metric by metric; and lines on pairs left out.

    Videos from different seeds are no pairs.
    """
    found: list[Difference] = []
    lines: list[str] = []
    count = len(evaluations)
    pairs = [
        (evaluations[left], evaluations[right])
        for left in reversed(range(count))
        for right in reversed(range(left))
    ]
    for metric in COMPARED:
        for left, right in pairs:
            name = f"paired difference {left.name} − {right.name}"
            seeds = _seed(left), _seed(right)
            if None not in seeds and seeds[0] != seeds[1]:
                line = f"{name}: their seeds differ ({seeds[0]} and {seeds[1]})"
            else:
                estimate = compare(left.run.path, right.run.path, metric)
                line = f"{name}: no video was scored in both"
                if estimate is not None:
                    found.append(Difference(left.name, right.name, metric, estimate))
                    continue
            if line not in lines:
                lines.append(line)
    return tuple(found), tuple(lines)


def _seed(evaluation: Evaluation) -> object:
    """Seed of the generation run whose videos were judged; None where it is not known."""
    data = evaluation.run.data
    if data is None:
        return None
    for folder in (data, data.parent):
        file = folder / GENERATION
        if file.is_file():
            facts: Any = read_json(file)
            return cast("dict[str, object]", facts).get("seed") if isinstance(facts, dict) else None
    return None
