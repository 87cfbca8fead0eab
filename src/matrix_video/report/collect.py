"""Run folders in, a page's content out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matrix_video.analysis.layers import CHOICE, read_choice
from matrix_video.evaluation.scores import SCORES
from matrix_video.report.content import Analysis, ReportContent, Section, TrainingCurves
from matrix_video.report.gallery import apart, collect_gallery, overlay_files
from matrix_video.report.runs import open_runs, versions
from matrix_video.report.scores import differences, read_evaluations, score_rows
from matrix_video.report.training import training_curves


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
    gallery = collect_gallery(runs, evaluations, overlays, prompts)
    rows, told_rows = score_rows(evaluations)
    compared, told_pairs = differences(evaluations)
    missing: dict[Section, list[str]] = {"layers": [], "training": [], "scores": []}
    layers: list[Analysis] = []
    curves: list[TrainingCurves] = []
    for run in runs:
        if run.kind == "analyze" and run.finished:
            rest = tuple(apart(overlays, run.label, gallery.items))
            layers.append(Analysis(run.label, read_choice(run.path / CHOICE), rest))
        elif run.kind == "analyze":
            missing["layers"].append(f"{run.label}: the analysis has no {CHOICE} yet")
        elif run.kind == "train":
            found, lines = training_curves(run)
            missing["training"] += lines
            curves += [] if found is None else [found]
        elif run.kind == "evaluate" and not run.finished:
            missing["scores"].append(f"{run.label}: the evaluation has no {SCORES} yet")
    missing["scores"] += [*told_rows, *told_pairs]
    missing["gallery"] = [*gallery.missing]
    return ReportContent(
        title=title,
        command=command,
        versions=versions(runs),
        runs=tuple(run.facts() for run in runs),
        layers=tuple(layers),
        curves=tuple(curves),
        rows=rows,
        differences=compared,
        judges=tuple(
            dict.fromkeys(f"{e.scores.judge.name} {e.scores.judge.version}" for e in evaluations)
        ),
        gallery=gallery.items,
        gallery_note=gallery.note,
        missing={section: tuple(lines) for section, lines in missing.items() if lines},
    )
