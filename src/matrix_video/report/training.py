"""Training runs: losses and held-out scores from ``metrics.jsonl``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from matrix_video.analysis.records import KINDS
from matrix_video.attention.site import Kind
from matrix_video.report.content import TERM_NAMES, Curve, HeldOut, Term, TrainingCurves
from matrix_video.report.runs import Run
from matrix_video.services.run import RunFolder

_HELDOUT = re.compile(r"heldout_aas/(?P<layer>\d{1,6})/(?P<kind>v2t|v2v)")
_STAGE = "train"


def training_curves(run: Run) -> tuple[TrainingCurves | None, tuple[str, ...]]:
    """A run's curves, and lines on what is missing from them; None where it logged no step."""
    folder = RunFolder(run.path)
    rows = folder.metrics()
    terms: dict[Term, Curve] = {}
    lines: list[str] = []
    for term, name in TERM_NAMES.items():
        curve, bad = _curve(rows, term)
        if bad:
            lines.append(f"{bad} values of the {name} loss of {run.label}: no numbers")
        if curve is not None:
            terms[term] = curve
    if not terms:
        return None, (*lines, f"loss curves of {run.label}: it logged no step")
    absorbed = folder.facts(_STAGE).get("absorbed") if folder.done(_STAGE) else None
    if not run.finished:
        lines.append(f"the end of {run.label}: the run is not finished")
    known = absorbed if isinstance(absorbed, bool) else None
    return TrainingCurves(run.label, terms, _heldout(rows), known), tuple(lines)


def _curve(rows: Iterable[Mapping[str, Any]], key: str) -> tuple[Curve | None, int]:
    """The finite values under a key, and how many were none."""
    pairs = [(_number(row["step"]), _number(row[key])) for row in rows if {key, "step"} <= set(row)]
    good = sorted((step, value) for step, value in pairs if math.isfinite(step + value))
    if not good:
        return None, len(pairs)
    steps, values = zip(*good, strict=True)
    return Curve(steps, values), len(pairs) - len(good)


def _number(value: object) -> float:
    """The value, or NaN for what is no number or too large for one."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.nan


def _heldout(rows: list[dict[str, Any]]) -> tuple[HeldOut, ...]:
    keys: dict[tuple[Kind, int], str] = {}
    for match in (_HELDOUT.fullmatch(key) for row in rows for key in row):
        if match is not None:
            kind: Kind = "v2t" if match["kind"] == "v2t" else "v2v"
            keys[kind, int(match["layer"])] = match[0]
    found: list[HeldOut] = []
    for kind, layer in sorted(keys, key=lambda k: (KINDS.index(k[0]), k[1])):
        curve, _ = _curve(rows, keys[kind, layer])
        if curve is not None:
            found.append(HeldOut(kind, layer, curve))
    return tuple(found)
