"""What the templates see: content with its charts drawn and its clips stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markupsafe import Markup

from matrix_video.analysis.caveats import basis_text
from matrix_video.analysis.layers import GroupEvidence
from matrix_video.analysis.records import KINDS
from matrix_video.attention.site import Kind
from matrix_video.evaluation.scores import METRIC_NAMES
from matrix_video.report.boxes import BoxPath, box_paths
from matrix_video.report.caption import HUES, Piece, pieces
from matrix_video.report.charts import (
    KIND_NAMES,
    ForestRow,
    contrast_chart,
    forest_chart,
    heldout_chart,
    layer_chart,
    loss_chart,
)
from matrix_video.report.content import (
    TERM_NAMES,
    Analysis,
    Difference,
    GalleryClip,
    GalleryItem,
    ReportContent,
    ScoreRow,
    TrainingCurves,
)
from matrix_video.report.strip import Strip, make_strip
from matrix_video.report.wording import number
from matrix_video.services.errors import MatrixError

KIND_TITLES: Final[dict[Kind, str]] = {"v2t": "Video to text", "v2v": "Video to video"}
SMALL: Final = 50
"""Videos a row below which the page says that it is too small to tell rows apart (our choice: the
interval of a difference in IF is then wider than ±0.1)."""


@dataclass(frozen=True)
class Figure:
    """A chart with its caption."""

    chart: Markup
    caption: str


@dataclass(frozen=True)
class ClipView:
    """A stored clip, or the reason why it cannot be shown."""

    label: str
    strip: Strip | None
    problem: str
    boxes: tuple[BoxPath, ...] = ()
    clip: GalleryClip | None = None


@dataclass(frozen=True)
class KindView:
    """One kind of map of an analysis."""

    kind: Kind
    name: str
    title: str
    chosen: tuple[int, ...]
    basis: str
    groups: tuple[GroupEvidence, ...]
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class AnalysisView:
    """An analysis with everything that is drawn of it."""

    analysis: Analysis
    kinds: tuple[KindView, ...]
    overlays: tuple[ClipView, ...]


def analysis_view(analysis: Analysis, assets: Path) -> AnalysisView:
    """Charts of each kind that was measured; overlays are stored."""
    overlays = tuple(_clip(one.label, one.video, assets) for one in analysis.overlays)
    evidence = analysis.choice.evidence
    views: list[KindView] = []
    for kind in KINDS:
        groups = tuple(group for group in evidence.groups if group.kind == kind)
        chosen, name = analysis.choice.layers(kind), KIND_NAMES[kind]
        figures: list[Figure] = []
        if groups:
            figures += [
                Figure(layer_chart(groups, "aas", chosen, kind), "AAS by layer"),
                Figure(layer_chart(groups, "log_lift", chosen, kind), "Log-lift by layer"),
            ]
        figures += [
            Figure(
                contrast_chart(g.contrasts, g.dominant, g.successes + g.failures),
                f"Evidence of dominance, {g.words}: {g.successes} successful against "
                f"{g.failures} failed videos at equal mask area",
            )
            for g in groups
            if g.contrasts
        ]
        basis = basis_text(evidence, kind) if kind in evidence.basis else ""
        views.append(KindView(kind, name, KIND_TITLES[kind], chosen, basis, groups, tuple(figures)))
    return AnalysisView(analysis, tuple(views), overlays)


@dataclass(frozen=True)
class TrainingView:
    """One training run's charts, and the terms that it did not have."""

    label: str
    absorbed: bool | None
    figures: tuple[Figure, ...]
    off: tuple[str, ...]
    has_heldout: bool


def training_views(runs: tuple[TrainingCurves, ...]) -> tuple[TrainingView, ...]:
    """Charts of every run; a term has the same axis in all of them."""
    highest = {
        term: max(max(r.terms[term].values) for r in runs if term in r.terms)
        for term in TERM_NAMES
        if any(term in r.terms for r in runs)
    }
    aas = [v for run in runs for held in run.heldout for v in held.curve.values]
    views: list[TrainingView] = []
    for run in runs:
        figures = [
            Figure(loss_chart(run.terms[term], name, highest[term]), f"{name} loss")
            for term, name in TERM_NAMES.items()
            if term in run.terms
        ]
        if run.heldout:
            caption = "Held-out AAS of the supervised layers, without the decoder"
            figures.append(Figure(heldout_chart(run.heldout, max(aas)), caption))
        off = tuple(name for term, name in TERM_NAMES.items() if term not in run.terms)
        views.append(TrainingView(run.label, run.absorbed, tuple(figures), off, bool(run.heldout)))
    return tuple(views)


def score_figures(content: ReportContent) -> tuple[Figure, ...]:
    """IF of all rows, and the paired differences in it; hollow where they are not resolved."""
    rows = [ForestRow(r.label, r.summary["if"], r.kind) for r in content.rows if _has_if(r)]
    pairs = [
        ForestRow(
            f"{d.left} − {d.right}", d.estimate, "run" if d.resolved else "unresolved", d.verdict
        )
        for d in content.differences
        if d.metric == "if"
    ]
    figures: list[Figure] = []
    if rows:
        figures.append(Figure(forest_chart(rows, "IF"), "IF of every row"))
    if pairs:
        chart = forest_chart(pairs, "paired difference in IF", sign=True)
        figures.append(Figure(chart, "Paired differences in IF, prompt by prompt"))
    return tuple(figures)


def _has_if(row: ScoreRow) -> bool:
    found = row.summary.get("if")
    return found is not None and found.mean is not None


def too_small(content: ReportContent) -> str:
    """What so few videos can tell, in words; empty where they are many."""
    counts = [row.summary["if"].n for row in content.rows if row.kind == "run" and _has_if(row)]
    if not counts or min(counts) >= SMALL:
        return ""
    text = f"Too small to tell rows apart: {min(counts)} videos a row."
    widths = [
        (d.estimate.high - d.estimate.low) / 2
        for d in content.differences
        if d.metric == "if" and d.estimate.low is not None and d.estimate.high is not None
    ]
    if widths and max(widths) > 0:
        text += f" A difference in IF below about {number(max(widths), 2)} would not be seen."
    return text


def lead(differences: tuple[Difference, ...]) -> Difference | None:
    """The headline: the first paired difference in IF."""
    return next((d for d in differences if d.metric == "if"), None)


@dataclass(frozen=True)
class CardView:
    """One prompt of the gallery."""

    item: GalleryItem
    caption: tuple[Piece, ...]
    legend: tuple[Piece, ...]
    clips: tuple[ClipView, ...]
    overlays: tuple[ClipView, ...]


def card_view(item: GalleryItem, assets: Path) -> CardView:
    """Store the clips of a prompt; a video that cannot be read is named in its place."""
    clips: list[ClipView] = []
    for clip in item.clips:
        view = _clip(clip.label, clip.video, assets)
        boxes = () if view.strip is None else box_paths(item.sample, clip.tracks, view.strip)
        clips.append(ClipView(view.label, view.strip, view.problem, boxes, clip))
    return CardView(
        item=item,
        caption=pieces(item.sample),
        legend=tuple(
            Piece(instance.phrase, f"i{i % HUES}", instance.id)
            for i, instance in enumerate(item.sample.instances)
        ),
        clips=tuple(clips),
        overlays=tuple(_clip(one.label, one.video, assets) for one in item.overlays),
    )


def values(clip: GalleryClip) -> str:
    """All scores of a judged clip in one line, for its tooltip."""
    if clip.score is None:
        return ""
    found = {name: clip.score.value(metric) for metric, name in METRIC_NAMES.items()}
    return ", ".join(f"{name} {number(v)}" for name, v in found.items() if v is not None)


def _clip(label: str, video: Path, assets: Path) -> ClipView:
    try:
        return ClipView(label, make_strip(video, assets), "")
    except MatrixError as error:
        return ClipView(label, None, str(error))
