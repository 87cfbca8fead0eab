"""``matrix check``: read data sets and say what is wrong, file by file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from matrix_video.services.console import make_console, say


@dataclass(frozen=True)
class CheckCommand:
    """Read one or more data sets and list every problem with its file, field and remedy.

    Exit code 1 when there is any problem; what has none can be loaded. Notes are worth a look and
    no problems. A mistake that repeats is told once, with its count. Given several data sets, also
    says whether they share scenes (a problem) and which triples of verb, subject and object they
    have in common.
    """

    path: tyro.conf.Positional[Path]
    """Data set folder."""
    others: tyro.conf.Positional[tuple[Path, ...]] = ()
    """More data set folders, checked as well and against the first and one another."""
    every: bool = False
    """Tell each repetition of a mistake."""


def run(config: CheckCommand) -> int:
    from matrix_video.data.check import check_datasets

    report = check_datasets((config.path, *config.others))
    say(make_console(), "\n".join(report.lines(every=config.every)))
    return 0 if report.ok else 1
