"""What the templates see: content with its charts drawn and its clips stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markupsafe import Markup

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
    KINDS,
    TERM_NAMES,
    TERMS,
    Difference,
    GalleryClip,
    GalleryItem,
    LayerGroup,
    LayerScores,
    RunRow,
    TrainingCurves,
)
from matrix_video.report.strip import Strip, make_strip
from matrix_video.report.wording import verdict
from matrix_video.services.errors import MatrixError

KIND_TITLES: Final = {"v2t": "Video to text", "v2v": "Video to video"}
BASES: Final = {
    "dominance": "layers whose log-lift separates successful from failed videos",
    "influence": "influential layers; no layer was found to separate success from failure",
    "binding": "influential layers in order of binding contrast; dominance was not measured",
}


@dataclass(frozen=True)
class Figure:
    """A chart with its caption."""

    chart: Markup
    caption: str


@dataclass(frozen=True)
class ClipView:
    """A stored clip, or the reason why it cannot be shown; ``scored`` where it has scores."""

    label: str
    strip: Strip | None
    problem: str
    scored: GalleryClip | None


@dataclass(frozen=True)
class KindView:
    """One kind of map of an analysis."""

    name: str
    title: str
    chosen: tuple[int, ...]
    basis: str
    groups: tuple[LayerGroup, ...]
    figures: tuple[Figure, ...]
    contrasts: tuple[Figure, ...]


@dataclass(frozen=True)
class AnalysisView:
    """An analysis with everything that is drawn of it."""

    scores: LayerScores
    kinds: tuple[KindView, ...]
    overlays: tuple[ClipView, ...]


def analysis_view(scores: LayerScores, assets: Path) -> AnalysisView:
    """Charts of an analysis; its overlays are stored."""
    overlays = tuple(_clip(one.label, one.video, assets, None) for one in scores.overlays)
    return AnalysisView(scores, kind_views(scores), overlays)


def kind_views(scores: LayerScores) -> tuple[KindView, ...]:
    """Charts of each kind that was measured."""
    views: list[KindView] = []
    for kind in KINDS:
        groups = tuple(group for group in scores.groups if group.kind == kind)
        if not groups:
            continue
        chosen = tuple(scores.chosen.get(kind, ()))
        basis = scores.basis.get(kind, "")
        views.append(
            KindView(
                name=KIND_NAMES[kind],
                title=KIND_TITLES[kind],
                chosen=chosen,
                basis=BASES.get(basis, basis),
                groups=groups,
                figures=(
                    Figure(layer_chart(groups, "aas", chosen, kind), "AAS by layer"),
                    Figure(layer_chart(groups, "log_lift", chosen, kind), "Log-lift by layer"),
                ),
                contrasts=tuple(
                    Figure(
                        contrast_chart(g.contrasts, g.dominant, g.successes + g.failures),
                        f"Evidence of dominance, {g.words}: {g.successes} successful against "
                        f"{g.failures} failed videos at equal mask area",
                    )
                    for g in groups
                    if g.contrasts
                ),
            )
        )
    return tuple(views)


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
        for term in TERMS
        if any(term in r.terms for r in runs)
    }
    aas = [v for run in runs for held in run.heldout for v in held.curve.values]
    views: list[TrainingView] = []
    for run in runs:
        figures = [
            Figure(
                loss_chart(run.terms[term], TERM_NAMES[term], highest[term]),
                f"{TERM_NAMES[term]} loss",
            )
            for term in TERMS
            if term in run.terms
        ]
        if run.heldout:
            figures.append(
                Figure(
                    heldout_chart(run.heldout, max(aas)),
                    "Held-out AAS of the supervised layers, without the decoder",
                )
            )
        off = tuple(TERM_NAMES[term] for term in TERMS if term not in run.terms)
        views.append(TrainingView(run.label, run.absorbed, tuple(figures), off, bool(run.heldout)))
    return tuple(views)


def score_figure(rows: tuple[RunRow, ...]) -> Figure | None:
    """IF of all rows with whiskers; None where nothing was scored."""
    found = [ForestRow(row.label, row.scores["if"], row.kind) for row in rows if "if" in row.scores]
    if not found:
        return None
    return Figure(forest_chart(found, "IF"), "IF of every row")


def difference_figure(differences: tuple[Difference, ...]) -> Figure | None:
    """Paired differences in IF; hollow where they are not resolved."""
    found = [
        ForestRow(
            f"{d.left} − {d.right}", d.estimate, "run" if d.resolved else "unresolved", verdict(d)
        )
        for d in differences
        if d.metric == "if"
    ]
    if not found:
        return None
    return Figure(
        forest_chart(found, "paired difference in IF", sign=True),
        "Paired differences in IF, prompt by prompt",
    )


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
    return CardView(
        item=item,
        caption=pieces(item.sample),
        legend=tuple(
            Piece(instance.phrase, f"i{i % HUES}", instance.id)
            for i, instance in enumerate(item.sample.instances)
        ),
        clips=tuple(_clip(clip.label, clip.video, assets, clip) for clip in item.clips),
        overlays=tuple(_clip(one.label, one.video, assets, None) for one in item.overlays),
    )


def _clip(label: str, video: Path, assets: Path, scored: GalleryClip | None) -> ClipView:
    try:
        return ClipView(label, make_strip(video, assets), "", scored)
    except MatrixError as error:
        return ClipView(label, None, str(error), scored)
