"""Success or failure of videos: from people (CSV) or from a judge's scores.

Only answers 7-10 count (SGI_raw: does the right one act on the right one). The propagation score
never does: it measures instances that vanish, whose masks are also what attention is scored on, so
that a test on it would be circular (our choice).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from matrix_video.services.errors import MatrixError
from matrix_video.services.files import read_json

SUCCESS_AT: Final = 0.75
"""Share of yes among the questions 7-10 from which a video counts as a success (our choice)."""
_WORDS: Final = {
    "1": True,
    "true": True,
    "yes": True,
    "success": True,
    "0": False,
    "false": False,
    "no": False,
    "failure": False,
}


def read_labels(path: Path, *, success_at: float = SUCCESS_AT) -> dict[str, bool]:
    """Labels by sample id.

    A ``.csv`` has a header with the columns ``id`` and ``success`` (yes/no, true/false, 1/0,
    success/failure; an empty field means unlabelled). Anything else is read as the ``scores.json``
    of an evaluation: a video succeeds when its ``sgi_raw`` is at least ``success_at``; a video
    without score is left out. Raises `MatrixError` naming the line or video.
    """
    labels = _from_csv(path) if path.suffix == ".csv" else _from_scores(path, success_at)
    if not labels:
        raise MatrixError(
            "no video has a label",
            remedy="Give a file in which at least some videos are labelled or scored",
            file=path,
        )
    return labels


def _from_csv(path: Path) -> dict[str, bool]:
    if not path.is_file():
        raise MatrixError("there is no such file", remedy="Check the path", file=path)
    labels: dict[str, bool] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"id", "success"} <= set(reader.fieldnames or ()):
            raise MatrixError(
                f"its columns are {list(reader.fieldnames or ())}",
                remedy="Give a header with the columns id and success",
                file=path,
            )
        for row in reader:
            word = (row["success"] or "").strip().lower()
            if word == "":
                continue
            if word not in _WORDS:
                raise MatrixError(
                    f"{row['success']!r} is not a label",
                    remedy=f"Use one of {', '.join(_WORDS)}, or leave the field empty",
                    file=path,
                    field=f"line {reader.line_num}: success",
                )
            if row["id"] in labels:
                raise MatrixError(
                    f"{row['id']} is labelled twice",
                    remedy="Keep one line for each video",
                    file=path,
                    field=f"line {reader.line_num}: id",
                )
            labels[row["id"]] = _WORDS[word]
    return labels


def _from_scores(path: Path, success_at: float) -> dict[str, bool]:
    remedy = "Give the scores.json of a finished matrix evaluate run, or a .csv"
    stored: Any = read_json(path)
    videos: Any = cast("dict[str, Any]", stored).get("videos") if isinstance(stored, dict) else None
    if not isinstance(videos, list):
        raise MatrixError("it holds no list of videos", remedy=remedy, file=path, field="videos")
    labels: dict[str, bool] = {}
    for index, video in enumerate(cast("list[Any]", videos)):
        field = f"videos[{index}]"
        if not isinstance(video, Mapping):
            raise MatrixError("it is no object", remedy=remedy, file=path, field=field)
        entry = cast("Mapping[str, Any]", video)
        name, raw = entry.get("id"), entry.get("sgi_raw")
        if not isinstance(name, str):
            raise MatrixError("it has no id", remedy=remedy, file=path, field=f"{field}.id")
        if raw is None:  # unscored
            continue
        if not isinstance(raw, int | float) or not (math.isfinite(raw) and 0 <= raw <= 1):
            problem = f"{raw!r} is not a share between 0 and 1"
            raise MatrixError(problem, remedy=remedy, file=path, field=f"{field}.sgi_raw")
        labels[name] = raw >= success_at
    return labels
