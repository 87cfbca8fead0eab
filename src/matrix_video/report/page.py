"""The page: content in, one folder out that opens from disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from matrix_video.analysis.caveats import basis_text
from matrix_video.analysis.layers import GroupEvidence
from matrix_video.evaluation.estimates import FOR_VERDICT
from matrix_video.evaluation.scores import METRIC_NAMES, VideoScore
from matrix_video.evaluation.verdict import Reply
from matrix_video.report import charts, wording
from matrix_video.report.charts import Figure, ForestRow
from matrix_video.report.content import (
    TERM_NAMES,
    ReportContent,
    TrainingCurves,
)
from matrix_video.report.instances import HUES, box_paths, pieces
from matrix_video.report.strip import Strip, make_strip
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import make_folder, write_atomic

SMALL: Final = 50
"""Videos a row below which the page says that it is too small to tell rows apart (our choice: the
interval of a difference in IF is then wider than ±0.1)."""
_REPLIES: Final[dict[Reply, tuple[str, str]]] = {
    "yes": ("yes", "✓"),
    "no": ("no", "✕"),
    "no (visually implausible)": ("implausible", "≈"),
    "unscored": ("unscored", "?"),
}
"""Class of the style sheet and glyph of each answer."""
_GENERATOR: Final = b'name="generator" content="matrix report"'
"""In the head of the page, so that no other page is overwritten."""
_OURS: Final = re.compile(r"[0-9a-f]{16}\.webp")


def build_report(out: Path, content: ReportContent) -> Path:
    """Write ``out/index.html`` and the clips in ``out/assets``, and return the page's path.

    The page names no address outside its folder. Clips are written first and the page last, in one
    step; then clips of an earlier page that this one does not show are removed. Raises
    `MatrixError` when nothing can be written, and for a page there that somebody else wrote. A clip
    that cannot be read is named in its place.
    """
    make_folder(out)
    page = out / "index.html"
    if page.is_file() and _GENERATOR not in page.read_bytes()[:1000]:
        raise MatrixError(
            "this page was not written by matrix report",
            remedy="Choose another output folder, or delete the page",
            file=page,
        )
    assets = out / "assets"

    def stored(video: Path) -> Strip | str:
        """The clip, or the reason why it cannot be shown."""
        try:
            return make_strip(video, assets)
        except MatrixError as error:
            return str(error)

    text = (
        _environment()
        .get_template("page.html")
        .render(
            content=content,
            lead=next((one for one in content.differences if one.metric == "if"), None),
            small=too_small(content),
            figures=score_figures(content),
            layer_figures=layer_figures,
            training_figures=training_figures,
            stored=stored,
            box_paths=box_paths,
            pieces=pieces,
            hues=HUES,
            replies=_REPLIES,
            metric_names=METRIC_NAMES,
            term_names=TERM_NAMES,
            kind_names=charts.KIND_NAMES,
            basis_text=basis_text,
        )
    )
    write_atomic(page, text)
    for file in assets.glob("*.webp"):
        if _OURS.fullmatch(file.name) and file.name not in text:
            file.unlink()
    return page


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("matrix_video.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=wording.number,
        signed=wording.signed,
        interval=wording.interval,
        duration=wording.duration,
        evidence=wording.evidence,
        values=_values,
    )
    return environment


def _values(score: VideoScore) -> str:
    """All scores of a judged clip in one line, for its tooltip."""
    found = {name: score.value(metric) for metric, name in METRIC_NAMES.items()}
    return ", ".join(f"{name} {wording.number(v)}" for name, v in found.items() if v is not None)


def layer_figures(groups: Sequence[GroupEvidence], chosen: Sequence[int]) -> list[Figure]:
    """Charts of one kind of maps; none where it was not measured."""
    if not groups:
        return []
    return [
        charts.layer_chart(groups, "aas", chosen),
        charts.layer_chart(groups, "log_lift", chosen),
        *[charts.contrast_chart(group) for group in groups if group.contrasts],
    ]


def training_figures(run: TrainingCurves, runs: Sequence[TrainingCurves]) -> list[Figure]:
    """Charts of one training run; a term has the same axis in all ``runs``."""
    figures: list[Figure] = []
    for term, name in TERM_NAMES.items():
        if term in run.terms:
            highest = max(value for one in runs for _, value in one.terms.get(term, ()))
            figures.append(charts.loss_chart(run.terms[term], name, highest))
    if run.heldout:
        highest = max(v for one in runs for curve in one.heldout.values() for _, v in curve)
        figures.append(charts.heldout_chart(run.heldout, highest))
    return figures


def score_figures(content: ReportContent) -> list[Figure]:
    """IF of all rows, and the paired differences in it; hollow where they are not resolved."""
    scored = [row for row in content.rows if row.summary["if"].mean is not None]
    rows = [ForestRow(r.label, r.summary["if"], r.kind) for r in scored]
    pairs = [
        ForestRow(
            f"{d.left} − {d.right}", d.estimate, "run" if d.resolved else "unresolved", d.verdict
        )
        for d in content.differences
        if d.metric == "if"
    ]
    figures: list[Figure] = []
    if rows:
        figures.append(charts.forest_chart(rows, "IF of every row", "IF"))
    if pairs:
        caption = "Paired differences in IF, prompt by prompt"
        figures.append(charts.forest_chart(pairs, caption, "paired difference in IF", sign=True))
    return figures


def too_small(content: ReportContent) -> str:
    """What so few videos can tell, in words; empty where they are many."""
    counts = [row.summary["if"].n for row in content.rows if row.kind == "run"]
    least = min((count for count in counts if count), default=SMALL)
    if least >= SMALL:
        return ""
    text = f"Too small to tell rows apart: {least} videos a row."
    widths = [
        (d.estimate.high - d.estimate.low) / 2
        for d in content.differences
        if d.metric == "if" and d.estimate.low is not None and d.estimate.high is not None
    ]
    width = wording.number(max(widths, default=0.0), 2)
    if least < FOR_VERDICT or float(width) == 0:
        return text
    return f"{text} A difference in IF below about {width} would not be seen."
