"""``matrix evaluate``: InterGenEval on generated videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from matrix_video.evaluation.config import EvaluateConfig
from matrix_video.services.console import make_console, say

if TYPE_CHECKING:
    from matrix_video.evaluation.estimates import Estimate
    from matrix_video.evaluation.scores import Metric, ReferenceRow, Scores, Summary

_TOLD: Final = 5
"""Videos without a score that are named."""


class EvaluateCommand(EvaluateConfig):
    """Score the interactions of generated videos (InterGenEval) with the oracle judge, which knows
    tiny world alone: it refuses other videos.

    Instances are followed from the prompt set's first-frame masks; ten questions per interaction
    are answered for every frame, and asked again with subject and object exchanged and for other
    verbs (role gap, verb gap). Writes scores.json with every answer, its frame and its evidence,
    and prints the means with 95 % intervals, beside null rows and the ceiling.
    """

    against: tuple[Path, ...] = ()
    """Earlier evaluation runs on the same prompts: prints the paired differences. That of IF to the
    first run is the headline; the others count as resolved where they stay so when all are looked
    at (Holm's correction)."""


def run(config: EvaluateCommand) -> int:
    from matrix_video.evaluation.run import evaluate
    from matrix_video.evaluation.scores import check_comparable, read_scores

    earlier = {path: read_scores(path) for path in dict.fromkeys(config.against)}
    evaluate(EvaluateConfig(**config.model_dump(include=set(EvaluateConfig.model_fields))))
    console = make_console()
    show_scores([config.out], console)
    own = read_scores(config.out)
    names = distinct_names([config.out, *earlier])
    for path, theirs in earlier.items():
        check_comparable(own, theirs, path)
    pairs = {name: (own, theirs) for name, theirs in zip(names[1:], earlier.values(), strict=True)}
    show_differences({f"{names[0]} − {name}": pair for name, pair in pairs.items()}, console)
    return 0


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """As many trailing parts of each path as tell it from the others."""
    whole = [path.resolve() for path in paths]
    names: list[str] = []
    for path in whole:
        count = 1
        while any(other != path and other.parts[-count:] == path.parts[-count:] for other in whole):
            count += 1
        names.append("/".join(path.parts[-count:]))
    return names


def show_scores(folders: Sequence[Path], console: Console) -> None:
    """Print one table, and which videos have no score: the strongest null row, the evaluations, the
    other null rows, the ceilings."""
    from matrix_video.evaluation.scores import METRIC_NAMES, read_scores

    shown: tuple[Metric, ...] = ("kisa_raw", "sgi_raw", "spi", "if", "role_gap", "verb_gap")

    stored = dict(zip(distinct_names(folders), map(read_scores, folders), strict=True))
    references: dict[str, ReferenceRow] = {}
    for scores in stored.values():
        references |= scores.references
    nulls = [name for name, row in references.items() if row.kind == "null"]
    rows: dict[str, Summary] = {name: references[name].summary for name in nulls[:1]}
    rows |= {name: scores.summary for name, scores in stored.items()}
    rows |= {name: row.summary for name, row in references.items() if name not in rows}
    names = [METRIC_NAMES[metric].replace("_", "\n") for metric in shown]
    table = Table("row", "n", *names, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name, row in rows.items():
        title = name.replace("_", " ") if name in references else name
        cells = [_cell(row[metric], metric) for metric in shown]
        table.add_row(title, str(row["if"].n), *cells)
    console.print(table)
    for name, scores in stored.items():
        for line in _left_out(name, scores):
            say(console, line)


def _left_out(name: str, scores: Scores) -> list[str]:
    """What was asked for and has no score, in words."""
    if scores.scored == scores.asked and not any(video.unscored for video in scores.videos):
        return []
    answers = sum(video.unscored for video in scores.videos)
    lines = [
        f"{name}: {scores.asked} videos were asked for, {scores.delivered} delivered, "
        f"{scores.scored} scored, {scores.unscored} unscored, {scores.quarantined} quarantined; "
        f"{answers} answers are unscored"
    ]
    without = [video for video in scores.videos if video.state != "scored"]
    lines += [f"  {video.id} is {video.state}: {video.reason}" for video in without[:_TOLD]]
    if len(without) > _TOLD:
        lines.append(f"  and {len(without) - _TOLD} more, see scores.json")
    return lines


def _cell(found: Estimate, metric: Metric) -> str:
    from matrix_video.report.wording import number, signed

    gap = metric in ("role_gap", "verb_gap")
    write = signed if gap else number
    if found.mean is None:
        return "–"
    if found.low is None or found.high is None or not (gap or metric == "if"):
        return write(found.mean)
    return f"{write(found.mean)}\n[{write(found.low, 2)}, {write(found.high, 2)}]"


def show_differences(pairs: Mapping[str, tuple[Scores, Scores]], console: Console) -> None:
    """Print the paired differences of IF and the gaps, by name, with their verdicts.

    The first pair's IF is the headline. The rest are corrected for their number.
    """
    from matrix_video.evaluation.estimates import holm, standing
    from matrix_video.evaluation.scores import METRIC_NAMES
    from matrix_video.evaluation.scoring import paired_difference
    from matrix_video.report.wording import signed

    shown: tuple[Metric, ...] = ("if", "role_gap", "verb_gap")
    found: dict[tuple[str, Metric], Estimate] = {
        (name, metric): paired_difference(ours.videos, theirs.videos, metric)
        for name, (ours, theirs) in pairs.items()
        for metric in shown
    }
    headline = next(iter(found), None)
    p_values = {key: e.p for key, e in found.items() if key != headline and e.p is not None}
    kept = holm(p_values)
    for (name, metric), estimate in found.items():
        if estimate.mean is None:
            words = "no video has it in both"
        else:
            verdict: str = standing(estimate)
            if verdict == "too few":
                verdict = f"too few videos for a verdict ({estimate.n} of 20)"
            elif verdict == "resolved" and not kept.get((name, metric), True):
                verdict = "not resolved among so many differences (Holm)"
            ends = (
                ""
                if estimate.low is None or estimate.high is None
                else (f" [{signed(estimate.low)}, {signed(estimate.high)}]")
            )
            words = f"{signed(estimate.mean)}{ends} over {estimate.n} videos, {verdict}"
        head = " (headline)" if (name, metric) == headline and len(pairs) > 1 else ""
        say(console, f"{name}: {METRIC_NAMES[metric]} {words}{head}")
    seeds = {scores.video_seed for pair in pairs.values() for scores in pair}
    if len(seeds) > 1:
        say(console, "the videos were generated with different seeds: their noise differs too")
