"""``matrix check``: read data sets and say what is wrong, file by file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

if TYPE_CHECKING:
    from matrix_video.data.check.report import Finding


@dataclass(frozen=True)
class CheckCommand:
    """Read one or more data sets and list every problem with its file, field and remedy.

    Exit code 1 when there is any problem. Notes are worth knowing and no problems. Given several
    data sets, also says whether they share scenes (a problem) and which triples of verb, subject
    and object they have in common.
    """

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Data set folders."""


def _show(console: Console, kind: str, finding: Finding) -> None:
    field = f" [{finding.field}]" if finding.field else ""
    console.print(
        f"{kind}: {finding.file}{field}: {finding.problem} → {finding.remedy}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def run(config: CheckCommand) -> int:
    from matrix_video.data.check import check_datasets

    report = check_datasets(config.paths)
    console = Console()
    for finding in report.problems:
        _show(console, "problem", finding)
    for finding in report.notes:
        _show(console, "note", finding)
    for line in report.summary:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 1 if report.problems else 0
