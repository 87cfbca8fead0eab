"""Evaluations: ``scores.json`` with its answers, null rows and ceiling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from matrix_video.evaluation.scores import ScoredAnswer, Summary, VideoScore, read_scores
from matrix_video.evaluation.verdict import Reply
from matrix_video.report.collect.runs import DATASET, Run
from matrix_video.report.content import (
    METRICS,
    Answer,
    Answers,
    Estimate,
    Metric,
    RunRow,
    Verdict,
)

CEILING: Final = "ceiling"
REFERENCE_NAMES: Final = {
    "another_verb": "another verb",
    "roles_exchanged": "roles exchanged",
    "straight_drift": "straight drift",
    "frozen_first_frame": "frozen first frame",
    "another_prompts_clip": "another prompt’s clip",
    "ground_truth": "ground truth",
    CEILING: "ground truth through the VAE",
}
_VERDICTS: Final[dict[Reply, Verdict]] = {
    "yes": "yes",
    "no": "no",
    "no (visually implausible)": "implausible",
    "unscored": "unscored",
}


@dataclass(frozen=True)
class ScoredVideo:
    """One video's own scores (those it has) and answers."""

    scores: Mapping[Metric, float]
    answers: tuple[Answers, ...]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: videos by sample id, its own row, and the rows to read it against.

    ``name`` is that of the generation run that it judged, or its own where that is not known.
    """

    run: Run
    name: str
    judge: str
    videos: Mapping[str, ScoredVideo]
    row: RunRow
    nulls: tuple[RunRow, ...]


def read_evaluations(runs: Sequence[Run]) -> tuple[Evaluation, ...]:
    """All finished evaluations; `MatrixError` names file and field of what is wrong in one."""
    generated = [run for run in runs if run.kind == "generate"]
    judging = [run for run in runs if run.kind == "evaluate" and run.finished]
    names: dict[str, str] = {}
    for run in judging:
        names[run.label] = next((g.label for g in generated if judges(run, g)), run.label)
    given = list(names.values())
    return tuple(
        _evaluation(run, names[run.label] if given.count(names[run.label]) == 1 else run.label)
        for run in judging
    )


def judges(evaluation: Run, generation: Run) -> bool:
    """Whether an evaluation looked at just the videos of this generation run."""
    if evaluation.data is None:
        return False
    folder = generation.path.resolve()
    return evaluation.data.resolve() in (folder, folder / DATASET)


def _evaluation(run: Run, name: str) -> Evaluation:
    scores = read_scores(run.path)
    videos = {video.id: _video(video) for video in scores.videos}
    answers = [a for v in videos.values() for group in v.answers for a in group.answers]
    unscored = sum(answer.verdict == "unscored" for answer in answers)
    return Evaluation(
        run=run,
        name=name,
        judge=scores.judge.name,
        videos=videos,
        row=RunRow(name, "run", _estimates(scores.summary), unscored, len(answers)),
        nulls=tuple(
            RunRow(
                REFERENCE_NAMES.get(name, name.replace("_", " ")),
                reference.kind,
                _estimates(reference.summary),
            )
            for name, reference in scores.references.items()
        ),
    )


def score_rows(evaluations: Sequence[Evaluation]) -> tuple[tuple[RunRow, ...], tuple[str, ...]]:
    """The table: runs as given, then null rows, then ceilings; and lines on what is missing.

    A null row that several evaluations share stands once; where its scores differ (other prompts),
    it is named with its runs.
    """
    others: dict[str, tuple[RunRow, list[str]]] = {}
    for evaluation in evaluations:
        for row in evaluation.nulls:
            same = [key for key, (known, _) in others.items() if known == row]
            if same:
                others[same[0]][1].append(evaluation.name)
            else:
                others[f"{row.label}/{evaluation.run.label}"] = (row, [evaluation.name])
    names = [row.label for row, _ in others.values()]
    rows = [
        row
        if names.count(row.label) == 1
        else RunRow(f"{row.label} ({', '.join(runs)})", row.kind, row.scores)
        for row, runs in others.values()
    ]
    ordered = sorted(rows, key=lambda row: row.kind == CEILING)
    lines = [
        f"{name}: not evaluated"
        for kind, name in (("null", "null rows"), (CEILING, "ceiling"))
        if evaluations and not any(row.kind == kind for row in ordered)
    ]
    return (*(e.row for e in evaluations), *ordered), tuple(lines)


def _video(video: VideoScore) -> ScoredVideo:
    return ScoredVideo(
        {metric: value for metric in METRICS if (value := video.value(metric)) is not None},
        tuple(
            Answers(
                interaction.key_interaction,
                tuple(
                    Answer(a.question, a.text, _VERDICTS[a.answer], a.frame, _evidence(a))
                    for a in interaction.answers
                ),
            )
            for interaction in video.interactions
        ),
    )


def _evidence(answer: ScoredAnswer) -> str:
    parts = [] if answer.reason is None else [answer.reason]
    parts += [f"{name.replace('_', ' ')} {_plain(v)}" for name, v in answer.evidence.items()]
    return ", ".join(parts)


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}".replace("-", "−")


def _estimates(summary: Summary) -> dict[Metric, Estimate]:
    return {
        metric: Estimate(found.mean, found.low, found.high, found.n)
        for metric in METRICS
        if (found := summary.get(metric)) is not None and found.mean is not None
    }
