"""Success or failure of videos: from people (CSV) or from a judge's scores.

A video succeeds when the right one acts on the right one (SGI_raw, questions 7-10) and it answers
the questions as asked better than with subject and object exchanged and than for any verb of
another effect (its *margin*; without it 71 % of clips that show another verb were successes, with
it 4 %, and of true clips 98 %). The propagation score never counts: it measures instances that
vanish, whose masks are also what attention is scored on, so that a test on it would be circular.
All of it is our choice.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, Field

from matrix_video.services.errors import MatrixError
from matrix_video.services.records import read_record

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
    of an evaluation: a video succeeds when its ``sgi_raw`` is at least ``success_at`` and its
    ``margin`` above 0 (or unknown, where a judge answered no foils); a video without score is left
    out. Raises `MatrixError` naming the line or video.
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


class _Video(BaseModel):
    """Of ``scores.json``, which `evaluation.scores` declares, the three numbers that decide."""

    id: str
    sgi_raw: Annotated[float, Field(ge=0, le=1)] | None
    margin: Annotated[float, Field(ge=-1, le=1)] | None


class _Scores(BaseModel):
    videos: tuple[_Video, ...]


def _from_scores(path: Path, success_at: float) -> dict[str, bool]:
    remedy = "Give the scores.json of a finished matrix evaluate run of this version, or a .csv"
    scores = read_record(path, _Scores, what="the scores of an evaluation", remedy=remedy)
    return {
        video.id: video.sgi_raw >= success_at and (video.margin is None or video.margin > 0)
        for video in scores.videos
        if video.sgi_raw is not None
    }
