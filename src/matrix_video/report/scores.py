"""Evaluations: their rows, what they are read against, and paired differences between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from matrix_video.data.dataset import Dataset
from matrix_video.evaluation.estimates import FOR_VERDICT, Estimate, holm, standing
from matrix_video.evaluation.scores import Metric, Scores, VideoScore, check_comparable, read_scores
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


def score_rows(named: Mapping[str, Scores]) -> tuple[ScoreRow, ...]:
    """The table: the strongest null row, evaluations as given, other nulls, ceilings.

    A row that several evaluations share stands once; where its scores differ (other prompts), it is
    named with its evaluations.
    """
    others: list[tuple[ScoreRow, list[str]]] = []
    for name, scores in named.items():
        for key, reference in scores.references.items():
            row = ScoreRow(reference_name(key), reference.kind, reference.summary)
            sharing = next((names for known, names in others if known == row), None)
            if sharing is None:
                others.append((row, [name]))
            else:
                sharing.append(name)
    labels = [row.label for row, _ in others]
    rows = [
        row
        if labels.count(row.label) == 1
        else ScoreRow(f"{row.label} ({', '.join(names)})", row.kind, row.summary)
        for row, names in others
    ]
    nulls = sorted(
        (r for r in rows if r.kind == "null"), key=lambda r: -(r.summary["if"].mean or 0)
    )
    own = [ScoreRow(name, "run", scores.summary, _told(scores)) for name, scores in named.items()]
    return (*nulls[:1], *own, *nulls[1:], *[row for row in rows if row.kind == "ceiling"])


def _told(scores: Scores) -> str:
    """What was asked for and has no score; empty where nothing is without."""
    states = ("missing", "unscored", "quarantined")
    lost = {name: sum(video.state == name for video in scores.videos) for name in states}
    lost["answers unscored"] = sum(video.unscored for video in scores.videos)
    parts = [f"{count} {name}" for name, count in lost.items() if count]
    return f"of {scores.asked}: {', '.join(parts)}" if parts else ""


def like_pairs(
    evaluations: Sequence[Evaluation],
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Names of every two evaluations, later and earlier, the last pair first; and a line on each
    pair whose seeds, prompts or judges differ, which is left out."""
    pairs: list[tuple[str, str]] = []
    lines: list[str] = []
    for earlier, later in reversed([*combinations(evaluations, 2)]):
        reason = _unlike(later, earlier)
        if reason:
            lines.append(f"paired difference {later.name} − {earlier.name}: {reason}")
        else:
            pairs.append((later.name, earlier.name))
    return tuple(pairs), tuple(lines)


def _unlike(left: Evaluation, right: Evaluation) -> str | None:
    try:
        check_comparable(left.scores, right.scores, right.run.path)
    except MatrixError as error:
        return f"{right.name} does not fit, {error.problem}"
    seeds = left.scores.video_seed, right.scores.video_seed
    differ = None not in seeds and seeds[0] != seeds[1]
    return f"their seeds differ ({seeds[0]} and {seeds[1]})" if differ else None


def differences(
    named: Mapping[str, Scores], pairs: Iterable[tuple[str, str]]
) -> tuple[Difference, ...]:
    """Paired differences of IF and the gaps, metric by metric, with what each says.

    The first is the headline; the others count as resolved where they stay so when all of them are
    looked at (Holm).
    """
    listed = tuple(pairs)
    found: dict[tuple[str, str, Metric], Estimate] = {
        (left, right, metric): paired_difference(named[left].videos, named[right].videos, metric)
        for metric in COMPARED
        for left, right in listed
    }
    headline = next((key for key, e in found.items() if e.mean is not None), None)
    kept = holm({key: e.p for key, e in found.items() if key != headline and e.p is not None})
    return tuple(
        Difference(*key, estimate, *_verdict(key, estimate, kept.get(key, True)))
        for key, estimate in found.items()
    )


def _verdict(key: tuple[str, str, Metric], found: Estimate, kept: bool) -> tuple[str, bool]:
    """In words, and whether it is resolved."""
    state = standing(found)
    if found.mean is None:
        return "no video has it in both", False
    if state == "too few":
        return f"no verdict below {FOR_VERDICT} videos", False
    if state == "resolved" and not kept:
        return "not resolved among so many differences", False
    if state != "resolved":
        return state, False
    return f"{key[0] if found.mean > 0 else key[1]} is higher", True
