"""What a report page shows, before it is a page: the rooms' own records under the page's names.

`report.collect` reads it from run folders, `report.page` draws it. What is missing is an empty
tuple or None, and one line in ``ReportContent.missing`` of its section.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from matrix_video.analysis.layers import LayerChoice
from matrix_video.attention.site import Kind
from matrix_video.data.sample import Sample
from matrix_video.data.tracks import MaskTrack
from matrix_video.evaluation.estimates import Estimate
from matrix_video.evaluation.scores import Metric, Summary, VideoScore
from matrix_video.report.runs import Run

Term = Literal["diffusion", "sga", "spa"]
TERM_NAMES: Final[dict[Term, str]] = {"diffusion": "diffusion", "sga": "SGA", "spa": "SPA"}
Section = Literal["scores", "gallery", "layers", "training", "runs"]
Curve = tuple[tuple[float, float], ...]
"""Training steps, ascending, each with a value."""


@dataclass(frozen=True)
class Overlay:
    """A clip of one sample with attention maps laid over it, made by the run of this label."""

    label: str
    video: Path
    run: str
    sample: str


@dataclass(frozen=True)
class Analysis:
    """An analysis with the overlays that stand in no card of the gallery."""

    label: str
    choice: LayerChoice
    overlays: tuple[Overlay, ...] = ()


@dataclass(frozen=True)
class TrainingCurves:
    """One training run. ``absorbed`` None: not measured."""

    label: str
    terms: Mapping[Term, Curve]
    heldout: Mapping[tuple[Kind, int], Curve]
    """AAS of each supervised layer on held-out samples, taken without the decoder."""
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
    """Paired difference ``left`` − ``right`` over the same prompts, and what it says."""

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
    runs: tuple[Run, ...] = ()
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
