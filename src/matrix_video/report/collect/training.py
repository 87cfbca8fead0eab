"""Training runs: losses and held-out scores from ``metrics.jsonl``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from matrix_video.report.collect.runs import Run
from matrix_video.report.content import (
    KINDS,
    TERM_NAMES,
    TERMS,
    Curve,
    HeldOut,
    Kind,
    Term,
    TrainingCurves,
)
from matrix_video.services.run import RunFolder

_HELDOUT = re.compile(r"heldout_aas/(?P<layer>\d+)/(?P<kind>v2t|v2v)")
_STAGE = "train"


def training_curves(run: Run) -> tuple[TrainingCurves | None, tuple[str, ...]]:
    """A run's curves, and lines on what is missing from them; None where it logged no step."""
    folder = RunFolder(run.path)
    rows = folder.metrics()
    terms: dict[Term, Curve] = {}
    lines: list[str] = []
    for term in TERMS:
        curve, bad = _curve(rows, term)
        if bad:
            lines.append(f"{bad} values of the {TERM_NAMES[term]} loss of {run.label}: no numbers")
        if curve is not None:
            terms[term] = curve
    if not terms:
        return None, (*lines, f"loss curves of {run.label}: it logged no step")
    absorbed = folder.facts(_STAGE).get("absorbed") if folder.done(_STAGE) else None
    if not run.finished:
        lines.append(f"the end of {run.label}: the run is not finished")
    return (
        TrainingCurves(
            run.label, terms, _heldout(rows), absorbed if isinstance(absorbed, bool) else None
        ),
        tuple(lines),
    )


def _curve(rows: Iterable[Mapping[str, Any]], key: str) -> tuple[Curve | None, int]:
    """The finite values under a key, and how many were none."""
    pairs = [(_number(row["step"]), _number(row[key])) for row in rows if {key, "step"} <= set(row)]
    good = sorted(pair for pair in pairs if all(map(math.isfinite, pair)))
    if not good:
        return None, len(pairs)
    steps, values = zip(*good, strict=True)
    return Curve(steps, values), len(pairs) - len(good)


def _number(value: object) -> float:
    return value if isinstance(value, float | int) else math.nan


def _heldout(rows: list[dict[str, Any]]) -> tuple[HeldOut, ...]:
    keys: dict[tuple[Kind, int], str] = {}
    for row in rows:
        for key in row:
            match = _HELDOUT.fullmatch(key)
            if match is not None:
                kind: Kind = "v2t" if match["kind"] == "v2t" else "v2v"
                keys[kind, int(match["layer"])] = key
    found: list[HeldOut] = []
    for kind, layer in sorted(keys, key=lambda k: (KINDS.index(k[0]), k[1])):
        curve, _ = _curve(rows, keys[kind, layer])
        if curve is not None:
            found.append(HeldOut(kind, layer, curve))
    return tuple(found)
