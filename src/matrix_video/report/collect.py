"""Run folders in, a page's content out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matrix_video.analysis.layers import CHOICE, read_choice
from matrix_video.analysis.records import KINDS
from matrix_video.attention.site import Kind
from matrix_video.evaluation.scores import SCORES
from matrix_video.report.content import (
    TERM_NAMES,
    Analysis,
    Curve,
    ReportContent,
    Section,
    Term,
    TrainingCurves,
)
from matrix_video.report.gallery import collect_gallery, overlay_files
from matrix_video.report.runs import Run, open_runs, versions
from matrix_video.report.scores import differences, like_pairs, read_evaluations, score_rows
from matrix_video.services.run import RunFolder

_HELDOUT = re.compile(r"heldout_aas/(?P<layer>\d{1,6})/(?P<kind>v2t|v2v)")


def collect(
    named: Iterable[tuple[str, Path]], *, title: str, command: str = "", prompts: int = 8
) -> ReportContent:
    """Read run folders, given by label, into the content of a page.

    What each is (analysis, training, generation, evaluation) is read from its ``config.yaml``, or
    from its results. Labels are what the page calls them; rows stand in the order given. A run
    without its result is named in ``missing``. Raises `MatrixError` for a folder that is no run,
    two runs of one label, and files that are damaged or of another format.
    """
    runs = open_runs(named)
    evaluations, overlays = read_evaluations(runs), overlay_files(runs)
    scores = {evaluation.name: evaluation.scores for evaluation in evaluations}
    gallery = collect_gallery(runs, evaluations, overlays, prompts)
    cards = {item.sample.id for item in gallery.items}
    rows = score_rows(scores)
    pairs, unlike = like_pairs(evaluations)
    missing: dict[Section, list[str]] = {"layers": [], "training": [], "scores": []}
    layers: list[Analysis] = []
    curves: list[TrainingCurves] = []
    for run in runs:
        if run.kind == "analyze" and run.finished:
            rest = (o for o in overlays if o.run == run.label and o.sample not in cards)
            layers.append(Analysis(run.label, read_choice(run.path / CHOICE), tuple(rest)))
        elif run.kind == "analyze":
            missing["layers"].append(f"{run.label}: the analysis has no {CHOICE} yet")
        elif run.kind == "train":
            found, lines = _training(run)
            missing["training"] += lines
            curves += [] if found is None else [found]
        elif run.kind == "evaluate" and not run.finished:
            missing["scores"].append(f"{run.label}: the evaluation has no {SCORES} yet")
    kinds = {row.kind for row in rows}
    if evaluations and "null" not in kinds:
        missing["scores"].append("null rows: not evaluated")
    if evaluations and "ceiling" not in kinds:
        missing["scores"].append("ceiling: not evaluated")
    missing["scores"] += unlike
    missing["gallery"] = [*gallery.missing]
    judges = dict.fromkeys(f"{one.judge.name} {one.judge.version}" for one in scores.values())
    return ReportContent(
        title=title,
        command=command,
        versions=versions(runs),
        runs=runs,
        layers=tuple(layers),
        curves=tuple(curves),
        rows=rows,
        differences=tuple(d for d in differences(scores, pairs) if d.estimate.mean is not None),
        judges=tuple(judges),
        gallery=gallery.items,
        gallery_note=gallery.note,
        missing={section: tuple(lines) for section, lines in missing.items() if lines},
    )


def _training(run: Run) -> tuple[TrainingCurves | None, list[str]]:
    """A run's curves, and lines on what is missing from them; None where it logged no step."""
    folder = RunFolder(run.path)
    rows = folder.metrics()
    terms: dict[Term, Curve] = {}
    lines: list[str] = []
    for term, name in TERM_NAMES.items():
        curve, bad = _curve(rows, term)
        if bad:
            lines.append(f"{bad} values of the {name} loss of {run.label}: no numbers")
        if curve:
            terms[term] = curve
    if not terms:
        return None, [*lines, f"loss curves of {run.label}: it logged no step"]
    if not run.finished:
        lines.append(f"the end of {run.label}: the run is not finished")
    found = folder.facts("train").get("absorbed") if folder.done("train") else None
    absorbed = found if isinstance(found, bool) else None
    return TrainingCurves(run.label, terms, _heldout(rows), absorbed), lines


def _curve(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[Curve, int]:
    """The finite values under a key, and how many were none."""
    pairs = [(_number(row["step"]), _number(row[key])) for row in rows if {key, "step"} <= set(row)]
    good = sorted((step, value) for step, value in pairs if math.isfinite(step + value))
    return tuple(good), len(pairs) - len(good)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _heldout(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[Kind, int], Curve]:
    keys: dict[tuple[Kind, int], str] = {}
    for match in (_HELDOUT.fullmatch(key) for row in rows for key in row):
        if match is not None:
            kind: Kind = "v2t" if match["kind"] == "v2t" else "v2v"
            keys[kind, int(match["layer"])] = match[0]
    ordered = sorted(keys, key=lambda k: (KINDS.index(k[0]), k[1]))
    curves = {key: _curve(rows, keys[key])[0] for key in ordered}
    return {key: curve for key, curve in curves.items() if curve}
