"""``matrix report``: runs side by side on one page that opens from disk."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from matrix_video.services.console import make_console, say
from matrix_video.services.errors import MatrixError

if TYPE_CHECKING:
    from matrix_video.report.content import Estimate, Metric


class ReportCommand(BaseModel):
    """Put runs side by side on one static page: layers, losses, scores with intervals, clips.

    The page stands in OUT/index.html with its clips in OUT/assets; it asks nothing of the network.
    What a run is (of analyze, train, generate or evaluate) is read from its folder. A generation
    run's answers come from the evaluation of its videos, ground truth from its prompt set, and
    paired differences from every two evaluations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    out: Path
    """Folder to write the page to."""
    runs: tuple[str, ...]
    """Run folders in the order to show them, each as FOLDER or as NAME=FOLDER."""
    title: str = "MATRIX"
    """Heading of the page."""
    prompts: int = Field(default=8, ge=0)
    """Prompts in the gallery: the first that all generation runs have."""


def run(config: ReportCommand) -> int:
    from matrix_video.report.collect import collect
    from matrix_video.report.page import build_report
    from matrix_video.services.config import check_free

    check_free(config.out, "a report")

    content = collect(
        named_runs(config.runs),
        title=config.title,
        command=shlex.join(["matrix", *sys.argv[1:]]),
        prompts=config.prompts,
        compare=compare,
    )
    page = build_report(config.out, content)
    say(make_console(), f"report: {page}")
    return 0


def compare(left: Path, right: Path, metric: Metric) -> Estimate | None:
    """Left − right of two evaluation folders, as `evaluation.scoring` measures it.

    None: no video was scored in both.
    """
    from matrix_video.evaluation.scores import read_scores
    from matrix_video.evaluation.scoring import paired_difference
    from matrix_video.report.content import Estimate

    found = paired_difference(read_scores(left).videos, read_scores(right).videos, metric)
    if found.mean is None:
        return None
    return Estimate(found.mean, found.low, found.high, found.n)


def named_runs(given: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
    """Label and folder of each NAME=FOLDER; without a name, the folder's own."""
    found: list[tuple[str, Path]] = []
    for text in given:
        name, equals, path = text.partition("=")
        if equals and name and path:
            found.append((name, Path(path)))
        elif equals:
            raise MatrixError(
                f"{text!r} lacks a name or a folder",
                remedy="Give NAME=FOLDER, or just the folder",
                field="runs",
            )
        else:
            found.append((Path(text).resolve().name, Path(text)))
    return tuple(found)
