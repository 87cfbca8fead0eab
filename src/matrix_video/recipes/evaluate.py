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
    from matrix_video.evaluation.scores import Metric, Scores

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
    own, names = read_scores(config.out), distinct_names([config.out, *earlier])
    show_scores({names[0]: own}, console)
    for path, theirs in earlier.items():
        check_comparable(own, theirs, path)
    named = dict(zip(names, [own, *earlier.values()], strict=True))
    show_differences(named, [(names[0], name) for name in names[1:]], console)
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


def show_scores(named: Mapping[str, Scores], console: Console) -> None:
    """Print one table, and which videos have no score: the strongest null row, the evaluations, the
    other null rows, the ceilings."""
    from matrix_video.evaluation.scores import METRIC_NAMES
    from matrix_video.report.scores import score_rows

    shown: tuple[Metric, ...] = ("kisa_raw", "sgi_raw", "spi", "if", "role_gap", "verb_gap")
    names = [METRIC_NAMES[metric].replace("_", "\n") for metric in shown]
    table = Table("row", "n", *names, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    rows = score_rows(named)
    for row in rows:
        cells = [_cell(row.summary[metric], metric) for metric in shown]
        table.add_row(row.label, str(row.summary["if"].n), *cells)
    console.print(table)
    for row in rows:
        if row.told:
            say(console, f"{row.label}, {row.told}")
            without = [v for v in named[row.label].videos if v.state != "scored"]
            for video in without[:_TOLD]:
                say(console, f"  {video.id} is {video.state}: {video.reason}")
            if len(without) > _TOLD:
                say(console, f"  and {len(without) - _TOLD} more, see scores.json")


def _cell(found: Estimate, metric: Metric) -> str:
    from matrix_video.report.wording import number, signed

    gap = metric in ("role_gap", "verb_gap")
    write = signed if gap else number
    if found.mean is None:
        return "–"
    if found.low is None or found.high is None or not (gap or metric == "if"):
        return write(found.mean)
    return f"{write(found.mean)}\n[{write(found.low, 2)}, {write(found.high, 2)}]"


def show_differences(
    named: Mapping[str, Scores], pairs: Sequence[tuple[str, str]], console: Console
) -> None:
    """Print the paired differences of IF and the gaps with their verdicts, the headline first."""
    from matrix_video.evaluation.scores import METRIC_NAMES
    from matrix_video.report.scores import differences
    from matrix_video.report.wording import interval, signed

    for number, one in enumerate(differences(named, pairs)):
        words = one.verdict
        if one.estimate.mean is not None:
            ends = f" {interval(one.estimate, sign=True)}".rstrip()
            words = f"{signed(one.estimate.mean)}{ends} over {one.estimate.n} videos, {words}"
        head = " (headline)" if number == 0 and len(pairs) > 1 else ""
        say(console, f"{one.left} − {one.right}: {METRIC_NAMES[one.metric]} {words}{head}")
    if len({named[name].video_seed for pair in pairs for name in pair}) > 1:
        say(console, "the videos were generated with different seeds: their noise differs too")
