"""``matrix check``: read data sets and say what is wrong, file by file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from matrix_video.services.console import make_console, say


@dataclass(frozen=True)
class CheckCommand:
    """Read one or more data sets and list every problem with its file, field and remedy.

    Exit code 1 when there is any problem. Notes are worth knowing and no problems. Given several
    data sets, also says whether they share scenes (a problem) and which triples of verb, subject
    and object they have in common.
    """

    path: tyro.conf.Positional[Path]
    """Data set folder."""
    others: tyro.conf.Positional[tuple[Path, ...]] = ()
    """More data set folders, checked as well and against the first and one another."""


def run(config: CheckCommand) -> int:
    from matrix_video.data.check import check_datasets

    report = check_datasets((config.path, *config.others))
    lines = [
        *(f"problem: {finding}" for finding in report.problems),
        *(f"note: {finding}" for finding in report.notes),
        *report.summary,
    ]
    say(make_console(), "\n".join(lines))
    return 1 if report.problems else 0
