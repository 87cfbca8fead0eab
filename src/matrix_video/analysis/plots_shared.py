"""What all plots of an analysis share: the file, colours, names, marks of chosen layers."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from matrix_video.attention.site import Kind
from matrix_video.services.files import atomic_path

# Okabe and Ito's palette, which colour-blind readers can tell apart, and greys.
BLUE, ORANGE, GREEN, YELLOW, PURPLE, VERMILLION = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#f0e442",
    "#cc79a7",
    "#d55e00",
)
PALE, GREY, INK = "#b9c6d3", "#8a8f96", "#222222"
NAMES: Final[dict[Kind, str]] = {"v2t": "Video to text", "v2v": "Video to video"}


@contextmanager
def svg_figure(path: Path, size: tuple[float, float]) -> Generator[Figure]:
    """A figure on white, ``size`` in inches, written to ``path`` on leaving; equal each time."""
    # Fixed salt and no date: an SVG otherwise differs from run to run.
    with mpl.rc_context({"svg.hashsalt": "matrix", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        yield figure
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def width_for(bars: int) -> float:
    """Inches in which the labels of so many bars do not touch."""
    return max(6.4, 1.6 + 0.22 * bars)


def plain(axes: Axes) -> None:
    """No box around the data."""
    axes.spines[["top", "right"]].set_visible(False)


def mark_chosen(axes: Axes, layers: Sequence[int], chosen: Sequence[int], *, x: bool) -> None:
    """Write the chosen layers' tick labels, which stand in the order of ``layers``, in bold."""
    labels = axes.get_xticklabels() if x else axes.get_yticklabels()
    for layer, label in zip(layers, labels, strict=True):
        if layer in chosen:
            label.set_fontweight("bold")
            label.set_color(BLUE)
