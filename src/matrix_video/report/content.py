"""What a report page shows, before it is a page: the rooms' own records under the page's names.

`report.collect` reads it from run folders, `report.page` draws it. What is missing is an empty
tuple or None, and one line in ``ReportContent.missing`` of its section.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

from matrix_video.analysis.layers import LayerChoice
from matrix_video.attention.site import Kind
from matrix_video.data.sample import Sample
from matrix_video.data.tracks import MaskTrack
from matrix_video.evaluation.estimates import Estimate
from matrix_video.evaluation.scores import Metric, Summary, VideoScore

Term = Literal["diffusion", "sga", "spa"]
TERM_NAMES: Final[dict[Term, str]] = {"diffusion": "diffusion", "sga": "SGA", "spa": "SPA"}
Section = Literal["scores", "gallery", "layers", "training", "runs"]


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
class Overlay:
    """A clip with attention maps laid over it."""

    label: str
    video: Path


@dataclass(frozen=True)
class Analysis:
    """An analysis with the overlays that stand in no card of the gallery."""

    label: str
    choice: LayerChoice
    overlays: tuple[Overlay, ...] = ()


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
class ScoreRow:
    """One row of the score table. ``told``: what was asked for and has no score, in words."""

    label: str
    kind: Literal["run", "null", "ceiling"]
    summary: Summary
    told: str = ""


@dataclass(frozen=True)
class Difference:
    """Paired difference ``left`` − ``right`` over the same prompts and seeds, and what it says."""

    left: str
    right: str
    metric: Metric
    estimate: Estimate
    verdict: str
    resolved: bool


@dataclass(frozen=True)
class GalleryClip:
    """One video of a prompt, with the boxes of its instances and, where it was judged, its score.

    ``reference`` marks ground truth, of which no score is expected.
    """

    label: str
    video: Path
    tracks: Mapping[str, MaskTrack] = field(default_factory=dict[str, MaskTrack])
    score: VideoScore | None = None
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
    layers: tuple[Analysis, ...] = ()
    curves: tuple[TrainingCurves, ...] = ()
    rows: tuple[ScoreRow, ...] = ()
    """The strongest null row first."""
    differences: tuple[Difference, ...] = ()
    """The first one is the headline."""
    judges: tuple[str, ...] = ()
    gallery: tuple[GalleryItem, ...] = ()
    gallery_note: str = ""
    """How the prompts of the gallery were picked."""
    missing: Mapping[Section, tuple[str, ...]] = field(
        default_factory=dict[Section, tuple[str, ...]]
    )
