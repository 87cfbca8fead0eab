"""A judge and its verdict on one video: plain data that geometry, a model and people can all give.

A judge is asked the ten questions of each interaction in ``Sample.interactions``, and for each
frame that it looks at whether something came from nowhere or is gone. It is never told which
interactions the prompt asked for and which are foils (roles exchanged, another verb): the protocol
appends foils to the sample, so that one look at the video answers them all.

Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.sample import Sample
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.video import Video

Reply = Literal["yes", "no", "no (visually implausible)", "unscored"]
Flag = Literal["yes", "no", "unscored"]
Evidence = Mapping[str, float | str]
"""Grounds of a reply by name: measured numbers (finite) or words."""

NUM_QUESTIONS: Final = 10


@dataclass(frozen=True)
class Answer:
    """One of the ten questions, 1 to 10.

    ``frame`` is the decisive frame of the video. ``raw`` is what a model or a person wrote, word
    for word. ``reason`` says why there is no answer, when and only when the reply is "unscored".
    """

    question: int
    reply: Reply
    frame: int | None = None
    evidence: Evidence = field(default_factory=dict[str, float | str])
    raw: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Propagation:
    """One looked-at frame after the first: did something come from nowhere, is something gone?

    ``raw`` and ``reason`` are as in `Answer`.
    """

    frame: int
    emergence: Flag
    disappearance: Flag
    evidence: Evidence = field(default_factory=dict[str, float | str])
    raw: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Verdict:
    """All that a judge says of one video.

    ``answers`` holds ten answers, in the order of the questions, for each of
    ``Sample.interactions`` in its order. ``propagation`` holds the looked-at frames in order; empty
    where the judge could not look for instances at all. ``tracks`` are the instances as the judge
    followed them, by id, as long as the video; empty where a judge follows none.
    """

    answers: tuple[tuple[Answer, ...], ...]
    propagation: tuple[Propagation, ...] = ()
    tracks: Mapping[str, MaskTrack] = field(default_factory=dict[str, MaskTrack])


class Judge(Protocol):
    """Answers for one video at a time; may be called from several threads.

    Attributes:
        name: "oracle", the name of a model, "people".
        version: Changes whenever the same video could get another verdict: code, model, prompt,
            sampling settings. Verdicts of another version are not used again.
        verbs: Verbs whose ten template questions it answers, and no others; None: any questions, of
            any verb.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def verbs(self) -> tuple[str, ...] | None: ...

    def judge(
        self, video: Video, sample: Sample, first_masks: Mapping[str, NDArray[np.bool_]]
    ) -> Verdict:
        """Judge ``video`` by its prompt: sample, and masks [H,W] of instances in the first frame.

        Raises `MatrixError` for a video that this judge cannot judge, with the reason.
        """
        ...


def unscored(reason: str) -> tuple[Answer, ...]:
    """Ten answers that could not be given."""
    return tuple(
        Answer(number, "unscored", reason=reason) for number in range(1, NUM_QUESTIONS + 1)
    )
