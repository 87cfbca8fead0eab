"""``matrix report``: runs side by side on one page that opens from disk."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from matrix_video.recipes.evaluate import distinct_names
from matrix_video.services.console import make_console, say
from matrix_video.services.errors import MatrixError


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
    )
    page = build_report(config.out, content)
    say(make_console(), f"report: {page}")
    return 0


def named_runs(given: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
    """Label and folder of each NAME=FOLDER; without a name, as many last parts of the folder's path
    as tell it from the others."""
    found: list[tuple[str, Path]] = []
    bare = [Path(text) for text in given if "=" not in text]
    names = iter(distinct_names(bare))
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
            found.append((next(names), Path(text)))
    return tuple(found)
