"""``scores.json``: the one declaration of what an evaluation run leaves, for all who read it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TextIO, get_args

from pydantic import ConfigDict, Field

from matrix_video.data.sample import Record
from matrix_video.evaluation.estimates import Estimate
from matrix_video.evaluation.questions import FoilKind
from matrix_video.evaluation.verdict import Reply
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import atomic_path
from matrix_video.services.records import read_record

SCORES: Final = "scores.json"
Metric = Literal["kisa_raw", "sgi_raw", "spi", "kisa", "sgi", "if", "role_gap", "verb_gap"]
METRICS: Final[tuple[Metric, ...]] = get_args(Metric)
METRIC_NAMES: Final[dict[Metric, str]] = {
    "kisa_raw": "KISA_raw",
    "sgi_raw": "SGI_raw",
    "spi": "SPI",
    "kisa": "KISA",
    "sgi": "SGI",
    "if": "IF",
    "role_gap": "role gap",
    "verb_gap": "verb gap",
}
Share = Annotated[float, Field(ge=0, le=1)]
Gap = Annotated[float, Field(ge=-1, le=1)]

VideoState = Literal["scored", "unscored", "missing", "quarantined"]
"""scored: it has an IF. unscored: judged, but too little was answered for one. missing: asked for,
and not among the videos. quarantined: it could not be read or judged."""
REPLY_LETTERS: Final[dict[Reply, str]] = {
    "yes": "y",
    "no": "n",
    "no (visually implausible)": "i",
    "unscored": "u",
}


class Numbers(Record):
    """Scores of one video; None where too little was answered.

    Each raw score is the share of yes among the answered questions of all its interactions.
    ``if`` is the mean of ``kisa`` and ``sgi``, which are the raw scores times ``spi``. ``role_gap``
    and ``verb_gap`` are IF as asked less IF of the same video for its foils (see `scoring`).
    """

    model_config = ConfigDict(populate_by_name=True)

    id: str
    kisa_raw: Share | None = None
    sgi_raw: Share | None = None
    spi: Share | None = None
    kisa: Share | None = None
    sgi: Share | None = None
    if_: Share | None = Field(default=None, alias="if")
    role_gap: Gap | None = None
    verb_gap: Gap | None = None

    def value(self, metric: Metric) -> float | None:
        return self.if_ if metric == "if" else getattr(self, metric)


class ScoredAnswer(Record):
    """One question, its answer and its grounds, as in `verdict.Answer`."""

    question: int = Field(ge=1, le=10)
    text: str
    answer: Reply
    frame: int | None
    evidence: dict[str, float | str] = Field(default_factory=dict[str, float | str])
    raw: str | None = None
    reason: str | None = None


class Foil(Record):
    """A question set that the video should not answer with yes: an interaction nobody asked for.

    ``replies`` has a letter for each question: y(es), n(o), i(mplausible), u(nscored).
    """

    kind: FoilKind
    subject: str
    verb: str
    object: str
    same_effect: bool = False
    """The verb leaves the same effect as the asked one (`questions.SAME_EFFECT`)."""
    replies: str = Field(pattern="^[yniu]{10}$")


class ScoredInteraction(Record):
    """One asked interaction."""

    key_interaction: str
    subject: str
    verb: str
    object: str
    answers: tuple[ScoredAnswer, ...]
    foils: tuple[Foil, ...] = ()


class VideoScore(Numbers):
    """One video that was asked for."""

    state: VideoState
    reason: str | None = None
    """Of the first answer that could not be given, or why it is missing or quarantined."""
    video: str | None = None
    """sha256 of the file; None where it is missing."""
    prompt: str
    """Hash of what was asked: sample, first-frame masks, questions."""
    interactions: tuple[ScoredInteraction, ...] = ()
    looked_at: int = 0
    """Frames after the first in which emergence and disappearance were answered."""
    emerged: tuple[int, ...] = ()
    """Frames in which something came from nowhere."""
    disappeared: tuple[int, ...] = ()
    """Frames in which something is gone."""
    unscored: int = 0
    """Asked questions without an answer."""
    margin: Gap | None = None
    """How much higher the raw scores' mean is as asked than for the best foil of another effect,
    in the interaction where it is least; None: no foil was answered. `analysis.labels` calls a
    video a success where it is above 0 and ``sgi_raw`` is high."""


Summary = dict[Metric, Estimate]


class ReferenceRow(Record):
    """Scores that the videos are read against. Nulls show nothing that was asked for; a ceiling is
    the best that could be shown."""

    kind: Literal["null", "ceiling"]
    summary: Summary
    videos: tuple[Numbers, ...]


class JudgeFacts(Record):
    """Who answered; scores of another version are not comparable."""

    name: str
    version: str


class Scores(Record):
    """Contents of the file. ``videos`` has every video that was asked for, in the prompts' order.

    ``references`` has nulls first, the strongest (of the highest IF) before the others.
    """

    format: Literal[2] = 2
    judge: JudgeFacts
    prompts: str
    """Hash of all prompts that were asked."""
    seed: int
    """Of the null rows."""
    video_seed: int | None
    """With which the videos were generated; None where that is not known."""
    asked: int
    delivered: int
    scored: int
    unscored: int
    quarantined: int
    summary: Summary
    references: dict[str, ReferenceRow]
    videos: tuple[VideoScore, ...]


def read_scores(folder: Path) -> Scores:
    """Of a finished evaluation run; `MatrixError` names the first field that is wrong."""
    return read_record(
        folder / SCORES,
        Scores,
        what="the scores of an evaluation",
        remedy="Give the folder of a finished matrix evaluate run; evaluate once more what an "
        "older version scored",
    )


def write_scores(
    folder: Path,
    head: Scores,
    references: Mapping[str, Iterable[Numbers]],
    videos: Iterable[VideoScore],
) -> None:
    """Write atomically, one line a video. ``references`` (in the order of the head's) and
    ``videos`` take the place of those in ``head`` and are never held whole."""
    fields: dict[str, Any] = head.model_dump(mode="json", by_alias=True)
    rows, _ = fields.pop("references"), fields.pop("videos")
    with atomic_path(folder / SCORES) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(fields, indent=1)[:-2] + ',\n "references": {')
        for number, (name, row) in enumerate(rows.items()):
            del row["videos"]
            file.write(f"{',' if number else ''}\n {_line(name)}: {_line(row)[:-1]}, ")
            _write_list(file, references[name])
            file.write("}")
        file.write("},\n ")
        _write_list(file, videos)
        file.write("}\n")


def _write_list(file: TextIO, videos: Iterable[Numbers]) -> None:
    file.write('"videos": [')
    for number, video in enumerate(videos):
        file.write(",\n  " if number else "\n  ")
        file.write(_line(video.model_dump(mode="json", by_alias=True)))
    file.write("]")


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def check_comparable(ours: Scores, theirs: Scores, other: Path) -> None:
    """`MatrixError` where a difference of two evaluations would compare unlike things."""
    known = {video.id: video.prompt for video in ours.videos}
    shared = [video for video in theirs.videos if video.id in known]
    differing = [video.id for video in shared if video.prompt != known[video.id]]
    if not shared or differing:
        what = f"{differing[0]!r} asks for something else there" if shared else "none in common"
        raise MatrixError(
            f"it scores other prompts ({what})",
            remedy="Compare evaluations on the same prompt set",
            file=other / SCORES,
            field="prompts",
        )
    if theirs.judge != ours.judge:
        raise MatrixError(
            f"its judge is {theirs.judge.name} {theirs.judge.version}, this one's is "
            f"{ours.judge.name} {ours.judge.version}",
            remedy="Evaluate both with the same judge",
            file=other / SCORES,
            field="judge",
        )
