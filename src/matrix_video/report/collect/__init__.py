"""Run folders in, a page's content out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matrix_video.report.collect.gallery import collect_gallery
from matrix_video.report.collect.layers import layer_scores, overlay_files
from matrix_video.report.collect.pairs import Compare, collect_differences
from matrix_video.report.collect.runs import LAYERS, SCORES, open_runs, stage_run, versions
from matrix_video.report.collect.scores import read_evaluations, score_rows
from matrix_video.report.collect.training import training_curves
from matrix_video.report.content import (
    Difference,
    LayerScores,
    Overlay,
    ReportContent,
    Section,
    TrainingCurves,
)

__all__ = ["Compare", "collect"]


def collect(
    named: Iterable[tuple[str, Path]],
    *,
    title: str,
    command: str = "",
    prompts: int = 8,
    compare: Compare | None = None,
) -> ReportContent:
    """Read run folders, given by label, into the content of a page.

    What each is (analysis, training, generation, evaluation) is read from its ``config.yaml``, or
    from its results. Labels are what the page calls them; rows stand in the order given. A run
    without its result is named in ``missing``. Raises `MatrixError` for a folder that is no run,
    two runs of one label, and files that are damaged or of another format. ``compare`` measures
    paired differences between evaluations; without it there are none.
    """
    runs = open_runs(named)
    missing: dict[Section, list[str]] = {s: [] for s in ("layers", "training", "scores", "gallery")}
    overlays = overlay_files(runs)
    evaluations = read_evaluations(runs)
    gallery = collect_gallery(runs, evaluations, overlays, prompts)
    missing["gallery"] += gallery.missing
    shown = {item.sample.id for item in gallery.items}
    layers: list[LayerScores] = []
    curves: list[TrainingCurves] = []
    for run in runs:
        if run.kind == "analyze" and run.finished:
            # Overlays of prompts that have a card stand there.
            rest = [o for o in overlays if o.run == run.label and o.sample not in shown]
            layers.append(
                layer_scores(run, [Overlay(f"{o.label}: {o.sample}", o.video) for o in rest])
            )
        elif run.kind == "analyze":
            missing["layers"].append(f"{run.label}: the analysis has no {LAYERS} yet")
        elif run.kind == "train":
            found, lines = training_curves(run)
            missing["training"] += lines
            if found is not None:
                curves.append(found)
        elif run.kind == "evaluate" and not run.finished:
            missing["scores"].append(f"{run.label}: the evaluation has no {SCORES} yet")
    rows, lines = score_rows(evaluations)
    missing["scores"] += lines
    differences: tuple[Difference, ...] = ()
    if compare is not None:
        differences, lines = collect_differences(evaluations, compare)
        missing["scores"] += lines
    return ReportContent(
        title=title,
        command=command,
        versions=versions(runs),
        runs=tuple(stage_run(run) for run in runs),
        layers=tuple(layers),
        curves=tuple(curves),
        rows=rows,
        differences=differences,
        judge=", ".join(dict.fromkeys(e.judge for e in evaluations)) or None,
        gallery=gallery.items,
        gallery_note=gallery.note,
        missing={section: tuple(lines) for section, lines in missing.items() if lines},
    )
