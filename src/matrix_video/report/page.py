"""The page: content in, one folder out that opens from disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from matrix_video.evaluation.scores import METRIC_NAMES
from matrix_video.evaluation.verdict import Reply
from matrix_video.report import views, wording
from matrix_video.report.content import ReportContent, Section
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import make_folder, write_atomic

_NOTHING: Final[dict[Section, str]] = {
    "gallery": "no generated clips were given",
    "scores": "no evaluation was given",
    "layers": "no analysis was given",
    "training": "no training run was given",
    "runs": "no run folder was given",
}
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
    cards = [views.card_view(item, assets) for item in content.gallery]
    text = (
        _environment()
        .get_template("page.html")
        .render(
            content=content,
            source=_source,
            absent=_absent(content),
            lead=views.lead(content.differences),
            small=views.too_small(content),
            analyses=[views.analysis_view(one, assets) for one in content.layers],
            trainings=views.training_views(content.curves),
            metric_names=METRIC_NAMES,
            reply_css={reply: css for reply, (css, _) in _REPLIES.items()},
            reply_glyphs={reply: glyph for reply, (_, glyph) in _REPLIES.items()},
            figures=views.score_figures(content),
            cards=cards,
        )
    )
    write_atomic(page, text)
    _remove_stale(assets, text)
    return page


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("matrix_video.report", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
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
        values=views.values,
    )
    return environment


def _source(name: str) -> Markup:
    """One of our own files, to stand in the page as it is."""
    folder = Path(__file__).parent / "templates"
    return Markup((folder / name).read_text(encoding="utf-8"))


def _absent(content: ReportContent) -> dict[Section, tuple[str, ...]]:
    """The lines on missing things, by section; a section without content has at least one."""
    filled: dict[Section, Sequence[object]] = {
        "gallery": content.gallery,
        "scores": content.rows,
        "layers": content.layers,
        "training": content.curves,
        "runs": content.runs,
    }
    return {
        section: tuple(content.missing.get(section, ())) or (() if parts else (_NOTHING[section],))
        for section, parts in filled.items()
    }


def _remove_stale(assets: Path, text: str) -> None:
    for file in assets.glob("*.webp"):
        if _OURS.fullmatch(file.name) and file.name not in text:
            file.unlink()
