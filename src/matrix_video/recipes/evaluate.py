"""``matrix evaluate``: InterGenEval on generated videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from matrix_video.evaluation.config import EvaluateConfig
from matrix_video.services.console import make_console

if TYPE_CHECKING:
    from matrix_video.evaluation.scoring import VideoScore


class EvaluateCommand(EvaluateConfig):
    """Score the interactions of generated videos (InterGenEval) with the oracle judge, which knows
    tiny world alone: of other videos its answers mean nothing.

    Instances are followed from the prompt set's first-frame masks by their appearance; ten
    questions per interaction are answered by geometry, looking at every frame. Writes scores.json
    with every answer, its frame and its evidence, and prints the means with 95 % intervals, beside
    null rows (frozen first frame, another prompt's clip, straight drift) and the ceiling.
    """

    against: tuple[Path, ...] = ()
    """Earlier evaluation runs on the same prompts and seeds: prints the paired differences."""


def run(config: EvaluateCommand) -> int:
    from matrix_video.evaluation.run import evaluate, read_scores

    earlier = {path.name: read_scores(path) for path in config.against}
    evaluate(EvaluateConfig(**config.model_dump(include=set(EvaluateConfig.model_fields))))
    console = make_console()
    show_scores([config.out], console)
    own = read_scores(config.out)
    for name, theirs in earlier.items():
        show_difference(config.out.name, own, name, theirs, console)
    return 0


def show_scores(folders: Sequence[Path], console: Console) -> None:
    """Print one table: the evaluations, and the null rows and ceiling that they hold."""
    from matrix_video.evaluation.run import SCORES
    from matrix_video.evaluation.scoring import METRICS
    from matrix_video.report.content import METRIC_NAMES
    from matrix_video.services.files import read_json

    stored: dict[str, Any] = {folder.name: read_json(folder / SCORES) for folder in folders}
    rows = {name: scores["summary"] for name, scores in stored.items()}
    for scores in stored.values():
        rows |= scores["nulls"]
    table = Table("row", "n", *(METRIC_NAMES[metric] for metric in METRICS))
    for name, row in rows.items():
        cells = [_cell(row[metric]) for metric in METRICS]
        table.add_row(name.replace("_", " "), str(row["if"]["n"]), *cells)
    console.print(table)
    for name, scores in stored.items():
        if scores["unscored"]:
            console.print(f"{name}: {scores['unscored']} answers could not be obtained (unscored)")


def _cell(found: dict[str, Any]) -> str:
    from matrix_video.report.content import Estimate
    from matrix_video.report.wording import interval, number

    if found["mean"] is None:
        return "–"
    estimate = Estimate(**found)
    return f"{number(estimate.mean)} {interval(estimate)}"


def show_difference(
    name: str,
    own: Sequence[VideoScore],
    other: str,
    theirs: Sequence[VideoScore],
    console: Console,
) -> None:
    """Print one paired IF difference with its verdict."""
    from matrix_video.evaluation.scoring import paired_difference
    from matrix_video.report.content import Difference, Estimate
    from matrix_video.report.wording import interval, signed, verdict

    found = paired_difference(own, theirs, "if")
    if found.mean is None or found.low is None or found.high is None:
        console.print(f"{name} − {other}: no video in common", highlight=False)
        return
    difference = Difference(name, other, "if", Estimate(found.mean, found.low, found.high, found.n))
    estimate = difference.estimate
    console.print(
        f"{name} − {other}: IF {signed(estimate.mean)} {interval(estimate, sign=True)} over "
        f"{estimate.n} videos, {verdict(difference)}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
