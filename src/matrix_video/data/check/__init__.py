"""``matrix check``: read data sets and say all that is wrong with them, file by file.

Nothing here is raised for what is found, however broken.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matrix_video.data.check.across import Checked, compare
from matrix_video.data.check.folder import Report, check_folder

__all__ = ["Report", "check_datasets"]


def check_datasets(paths: Sequence[Path]) -> Report:
    """Every problem of every data set; with several, also what they share (our choice of rules).

    Videos are decoded whole, one frame at a time. What passes without a problem can be loaded. With
    several data sets, a scene key or the bytes of a video that stand in two of them are a problem;
    how their (verb, subject, object) triples overlap stands in the summary.
    """
    short = [path.resolve().name for path in paths]
    names = short if len(set(short)) == len(short) else [str(path) for path in paths]
    report = Report()
    checked = [
        Checked(name, path, tuple(check_folder(path, name, report)))
        for path, name in zip(paths, names, strict=True)
    ]
    report.summary += [
        f"{one.name}: {len(one.lines)} samples, "
        f"{sum(len(line.draft.interactions) for line in one.lines)} interactions, "
        f"{sum(len(line.draft.instances) for line in one.lines)} instances"
        for one in checked
    ]
    compare(checked, report)
    return report
