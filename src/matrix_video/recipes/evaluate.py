"""``matrix evaluate``: InterGenEval on generated videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from matrix_video.evaluation.config import EvaluateConfig

if TYPE_CHECKING:
    from matrix_video.evaluation.scoring import VideoScore


class EvaluateCommand(EvaluateConfig):
    """Score the interactions of generated videos (InterGenEval) with the oracle judge.

    Instances are followed from the prompt set's first-frame masks by their appearance; ten
    questions per interaction are answered by geometry, looking at every frame. Writes scores.json
    with every answer, its frame and its evidence, and prints the means with 95 % intervals, beside
    null rows (frozen first frame, another prompt's clip, straight drift) and the ceiling.
    """

    against: tuple[Path, ...] = ()
    """Earlier evaluation runs on the same prompts and seeds: prints the paired differences."""
    tracked: Path | None = None
    """Also write the videos with the tracks that the judge followed, as a data set for `matrix
    analyze`; None: do not."""


def run(config: EvaluateCommand) -> int:
    from matrix_video.evaluation.run import evaluate, open_videos, read_scores
    from matrix_video.evaluation.tracked import write_tracked

    evaluate(EvaluateConfig(**config.model_dump(include=set(EvaluateConfig.model_fields))))
    if config.tracked is not None:
        write_tracked(open_videos(config.videos).path, config.prompts, config.tracked)
    console = Console()
    show_scores(config.out, console)
    own = read_scores(config.out)
    for other in config.against:
        show_difference(config.out.name, own, other.name, read_scores(other), console)
    return 0


def _cell(found: dict[str, float | None]) -> str:
    mean, low, high = found["mean"], found["low"], found["high"]
    if mean is None or low is None or high is None:
        return "–"
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def show_scores(folder: Path, console: Console) -> None:
    """Print one evaluation's table: the run, null rows, ceiling."""
    from matrix_video.evaluation.run import SCORES
    from matrix_video.services.files import read_json

    stored = read_json(folder / SCORES)
    table = Table("row", "n", "KISA_raw", "SGI_raw", "SPI", "KISA", "SGI", "IF")
    metrics = ("kisa_raw", "sgi_raw", "spi", "kisa", "sgi", "if")
    for name, row in {folder.name: stored["summary"], **stored["nulls"]}.items():
        cells = [_cell(row[metric]) for metric in metrics]
        table.add_row(name.replace("_", " "), str(row["if"]["n"]), *cells)
    console.print(table)
    if stored["unscored"]:
        console.print(f"{stored['unscored']} answers could not be obtained (unscored)")


def show_difference(
    name: str, own: list[VideoScore], other: str, theirs: list[VideoScore], console: Console
) -> None:
    """Print one paired IF difference, or that it is not resolved."""
    from matrix_video.evaluation.scoring import paired_difference

    found = paired_difference(own, theirs, "if")
    if found.mean is None or found.low is None or found.high is None:
        console.print(f"{name} − {other}: no video in common", highlight=False)
        return
    verdict = "" if found.low > 0 or found.high < 0 else ", not resolved"
    console.print(
        f"{name} − {other}: IF {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}] "
        f"over {found.n} videos{verdict}",
        highlight=False,
    )
