"""What a report page shows, before it is a page.

Everything here is plain data: `report.collect` reads it from run folders, `report.page` draws it.
What is missing is an empty tuple or None, and one line in ``ReportContent.missing`` of its section.
Scores lie in [0, 1]; intervals are 95 % unless a text says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

from matrix_video.data.sample import Sample
from matrix_video.evaluation.estimates import FOR_VERDICT, judged

Kind = Literal["v2t", "v2v"]
KINDS: Final[tuple[Kind, ...]] = ("v2t", "v2v")
Words = Literal["nouns", "verbs"]

Metric = Literal["kisa_raw", "sgi_raw", "spi", "kisa", "sgi", "if"]
METRICS: Final[tuple[Metric, ...]] = ("kisa_raw", "sgi_raw", "spi", "kisa", "sgi", "if")
METRIC_NAMES: Final[dict[Metric, str]] = {
    "kisa_raw": "KISA_raw",
    "sgi_raw": "SGI_raw",
    "spi": "SPI",
    "kisa": "KISA",
    "sgi": "SGI",
    "if": "IF",
}

Term = Literal["diffusion", "sga", "spa"]
TERMS: Final[tuple[Term, ...]] = ("diffusion", "sga", "spa")
TERM_NAMES: Final[dict[Term, str]] = {"diffusion": "diffusion", "sga": "SGA", "spa": "SPA"}

Verdict = Literal["yes", "no", "implausible", "unscored"]
Section = Literal["runs", "layers", "training", "scores", "gallery"]


@dataclass(frozen=True)
class StageRun:
    """One run folder: what was asked of it and where it ran."""

    label: str
    command: str
    model: str | None = None
    data: str | None = None
    seed: str | None = None
    seconds: float | None = None
    """Wall-clock time; None where the run did not record it."""
    settings: tuple[tuple[str, str], ...] = ()
    """Every resolved setting, in the order of the run's own file."""


@dataclass(frozen=True)
class LayerScore:
    """One layer in one group, means over samples."""

    layer: int
    aas: float
    log_lift: float
    binding: float | None = None


@dataclass(frozen=True)
class Contrast:
    """Log-lift of successful less failed videos in one layer, with its interval."""

    layer: int
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """Of random halves of the samples about the order of the layers: rank correlations, and the
    share of one half's top layers that are among the other's."""

    splits: int
    mean: float
    low: float
    top_shared: float


@dataclass(frozen=True)
class HeadScore:
    """One of the best heads of a chosen layer."""

    kind: Kind
    words: Words
    layer: int
    head: int
    aas: float
    log_lift: float


@dataclass(frozen=True)
class Sinks:
    """Where a layer's attention goes: shares by kind of token, of all."""

    layer: int
    shares: Mapping[str, float]


@dataclass(frozen=True)
class LayerGroup:
    """One kind of map and one class of words; ``contrasts`` is the evidence of dominance."""

    kind: Kind
    words: Words
    samples: int
    layers: tuple[LayerScore, ...]
    influential: tuple[int, ...] = ()
    dominant: tuple[int, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    successes: int = 0
    failures: int = 0
    agreement: Agreement | None = None


@dataclass(frozen=True)
class Overlay:
    """A clip with attention maps laid over it."""

    label: str
    video: Path


@dataclass(frozen=True)
class LayerScores:
    """An analysis: all groups, the chosen layers, on what the choice rests, what to doubt."""

    label: str
    model: str
    data: str
    samples: int
    chosen: Mapping[Kind, tuple[int, ...]]
    basis: Mapping[Kind, str]
    groups: tuple[LayerGroup, ...]
    warnings: tuple[str, ...] = ()
    overlays: tuple[Overlay, ...] = ()
    sinks: tuple[Sinks, ...] = ()
    heads: tuple[HeadScore, ...] = ()


@dataclass(frozen=True)
class Curve:
    """Values over training steps; equal lengths, steps ascending."""

    steps: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.values):
            raise ValueError(f"{len(self.steps)} steps but {len(self.values)} values")
        if any(a > b for a, b in pairwise(self.steps)):
            raise ValueError("steps of a curve must ascend")


@dataclass(frozen=True)
class HeldOut:
    """AAS of one supervised layer on held-out samples, taken without the decoder."""

    kind: Kind
    layer: int
    curve: Curve


@dataclass(frozen=True)
class TrainingCurves:
    """One training run. ``absorbed`` None: not measured."""

    label: str
    terms: Mapping[Term, Curve]
    heldout: tuple[HeldOut, ...] = ()
    absorbed: bool | None = None


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` videos with its interval, which few videos do not have."""

    mean: float
    low: float | None
    high: float | None
    n: int

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean):
            raise ValueError(f"an estimate of {self.mean}")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"an interval with one end: [{self.low}, {self.high}]")
        if self.low is not None and self.high is not None and not self.low <= self.high:
            raise ValueError(f"interval [{self.low}, {self.high}]")


@dataclass(frozen=True)
class RunRow:
    """One row of the score table. ``unscored`` of ``answers`` could not be obtained."""

    label: str
    kind: Literal["run", "null", "ceiling"]
    scores: Mapping[Metric, Estimate]
    unscored: int | None = None
    answers: int | None = None


@dataclass(frozen=True)
class Difference:
    """Paired difference ``left`` − ``right`` over the same prompts and seeds."""

    left: str
    right: str
    metric: Metric
    estimate: Estimate

    @property
    def resolved(self) -> bool:
        """Whether there were videos enough for a verdict, and the interval leaves out 0."""
        found = self.estimate
        if found.n < FOR_VERDICT or found.low is None or found.high is None:
            return False
        return judged(found.mean, found.low, found.high) != "not resolved"


@dataclass(frozen=True)
class Answer:
    """One of the ten questions, what was answered, and on what grounds."""

    question: int
    text: str
    verdict: Verdict
    frame: int | None = None
    evidence: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.question <= 10:
            raise ValueError(f"question {self.question}")


@dataclass(frozen=True)
class Answers:
    """The answers to one key interaction."""

    interaction: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class GalleryClip:
    """One video of a prompt, with its own scores where it was scored.

    ``reference`` marks ground truth, of which no score is expected.
    """

    label: str
    video: Path
    scores: Mapping[Metric, float] = field(default_factory=dict[Metric, float])
    answers: tuple[Answers, ...] = ()
    reference: bool = False


@dataclass(frozen=True)
class GalleryItem:
    """One prompt: its sample (caption, phrases, instances), clips side by side, map overlays."""

    sample: Sample
    clips: tuple[GalleryClip, ...]
    overlays: tuple[Overlay, ...] = ()


@dataclass(frozen=True)
class ReportContent:
    """The whole page. ``missing`` says, by section, what was looked for and not found."""

    title: str
    command: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    runs: tuple[StageRun, ...] = ()
    layers: tuple[LayerScores, ...] = ()
    curves: tuple[TrainingCurves, ...] = ()
    rows: tuple[RunRow, ...] = ()
    differences: tuple[Difference, ...] = ()
    judge: str | None = None
    gallery: tuple[GalleryItem, ...] = ()
    gallery_note: str = ""
    """How the prompts of the gallery were picked."""
    missing: Mapping[Section, tuple[str, ...]] = field(
        default_factory=dict[Section, tuple[str, ...]]
    )
