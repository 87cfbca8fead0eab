"""Evaluations: their rows, what they are read against, and paired differences between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from matrix_video.data.dataset import Dataset
from matrix_video.evaluation.estimates import FOR_VERDICT, Estimate, holm, standing
from matrix_video.evaluation.scores import Metric, Scores, VideoScore, read_scores
from matrix_video.evaluation.scoring import paired_difference
from matrix_video.report.content import Difference, ScoreRow
from matrix_video.report.runs import DATASET, Run
from matrix_video.services.errors import MatrixError

COMPARED: Final[tuple[Metric, ...]] = ("if", "role_gap", "verb_gap")
REFERENCE_NAMES: Final = {
    "another_prompts_clip": "another prompt’s clip",
    "ceiling": "ground truth through the VAE",
}
"""Those whose name is not the key with spaces."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation under the name of the generation run that it judged, or its own."""

    run: Run
    name: str
    scores: Scores

    def video(self, id: str) -> VideoScore | None:
        return next((video for video in self.scores.videos if video.id == id), None)

    def tracked(self) -> Dataset | None:
        """The videos with the tracks that the judge followed, where they were kept."""
        try:
            return Dataset(self.run.path / "tracked")
        except MatrixError:
            return None


def read_evaluations(runs: Sequence[Run]) -> tuple[Evaluation, ...]:
    """All finished evaluations; `MatrixError` names file and field of what is wrong in one."""
    generated = [run for run in runs if run.kind == "generate"]
    judging = [run for run in runs if run.kind == "evaluate" and run.finished]
    names = [next((g.label for g in generated if judges(run, g)), run.label) for run in judging]
    return tuple(
        Evaluation(run, name if names.count(name) == 1 else run.label, read_scores(run.path))
        for run, name in zip(judging, names, strict=True)
    )


def judges(evaluation: Run, generation: Run) -> bool:
    """Whether an evaluation looked at just the videos of this generation run."""
    if evaluation.data is None:
        return False
    folder = generation.path.resolve()
    return evaluation.data.resolve() in (folder, folder / DATASET)


def reference_name(key: str) -> str:
    """What tables call a null row or ceiling of ``scores.json``."""
    return REFERENCE_NAMES.get(key, key.replace("_", " "))


def score_rows(evaluations: Sequence[Evaluation]) -> tuple[tuple[ScoreRow, ...], tuple[str, ...]]:
    """The table: the strongest null row, runs as given, other nulls, ceilings; and lines on what is
    missing.

    A row that several evaluations share stands once; where its scores differ (other prompts), it is
    named with its runs.
    """
    others: list[tuple[ScoreRow, list[str]]] = []
    for evaluation in evaluations:
        for key, reference in evaluation.scores.references.items():
            row = ScoreRow(reference_name(key), reference.kind, reference.summary)
            sharing = next((runs for known, runs in others if known == row), None)
            if sharing is None:
                others.append((row, [evaluation.name]))
            else:
                sharing.append(evaluation.name)
    names = [row.label for row, _ in others]
    rows = [
        row
        if names.count(row.label) == 1
        else ScoreRow(f"{row.label} ({', '.join(runs)})", row.kind, row.summary)
        for row, runs in others
    ]
    nulls = sorted(
        (r for r in rows if r.kind == "null"), key=lambda r: -(r.summary["if"].mean or 0)
    )
    ceilings = [row for row in rows if row.kind == "ceiling"]
    lines = [
        f"{name}: not evaluated"
        for name, found in (("null rows", nulls), ("ceiling", ceilings))
        if evaluations and not found
    ]
    own = [ScoreRow(e.name, "run", e.scores.summary, _told(e.scores)) for e in evaluations]
    return (*nulls[:1], *own, *nulls[1:], *ceilings), tuple(lines)


def _told(scores: Scores) -> str:
    """What was asked for and has no score; empty where nothing is without."""
    states = ("missing", "unscored", "quarantined")
    lost = {name: sum(video.state == name for video in scores.videos) for name in states}
    parts = [f"{count} {name}" for name, count in lost.items() if count]
    answers = sum(video.unscored for video in scores.videos)
    parts += [f"{answers} answers unscored"] if answers else []
    return f"of {scores.asked}: {', '.join(parts)}" if parts else ""


def differences(
    evaluations: Sequence[Evaluation],
) -> tuple[tuple[Difference, ...], tuple[str, ...]]:
    """Later less earlier, the last pair first, metric by metric; and lines on pairs left out.

    The first is the headline; the others count as resolved where they stay so when all of them are
    looked at (Holm). Videos of other seeds, prompts or judges are no pairs.
    """
    found: dict[tuple[str, str, Metric], Estimate] = {}
    lines: list[str] = []
    count = len(evaluations)
    pairs = [
        (evaluations[left], evaluations[right])
        for left in reversed(range(count))
        for right in reversed(range(left))
    ]
    for metric in COMPARED:
        for left, right in pairs:
            reason = _unlike(left.scores, right.scores)
            if reason:
                lines.append(f"paired difference {left.name} − {right.name}: {reason}")
                continue
            estimate = paired_difference(left.scores.videos, right.scores.videos, metric)
            if estimate.mean is not None:
                found[left.name, right.name, metric] = estimate
    headline = next(iter(found), None)
    kept = holm({key: e.p for key, e in found.items() if key != headline and e.p is not None})
    shown = [
        Difference(*key, e, *_verdict(key, e, kept.get(key, True))) for key, e in found.items()
    ]
    return tuple(shown), tuple(dict.fromkeys(lines))


def _unlike(left: Scores, right: Scores) -> str | None:
    """Why the videos of two evaluations are no pairs."""
    if left.judge != right.judge:
        return "their judges differ"
    seeds = left.video_seed, right.video_seed
    if None not in seeds and seeds[0] != seeds[1]:
        return f"their seeds differ ({seeds[0]} and {seeds[1]})"
    prompts = {video.id: video.prompt for video in right.videos}
    if not any(prompts.get(video.id) == video.prompt for video in left.videos):
        return "their prompts differ"
    if any(prompts.get(video.id, video.prompt) != video.prompt for video in left.videos):
        return "some of their prompts differ"
    return None


def _verdict(key: tuple[str, str, Metric], found: Estimate, kept: bool) -> tuple[str, bool]:
    """In words, and whether it is resolved."""
    state = standing(found)
    if state == "too few":
        return f"no verdict below {FOR_VERDICT} videos", False
    if state == "resolved" and not kept:
        return "not resolved among so many differences", False
    if state != "resolved":
        return state, False
    return f"{key[0] if (found.mean or 0) > 0 else key[1]} is higher", True
