"""Plots of an analysis, as SVG files that are equal for equal measurements.

Shapes: L layers, P noise levels.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from matrix_video.analysis.layers import GroupEvidence, LayerChoice
from matrix_video.analysis.records import KINDS, WORDS, Table, Words
from matrix_video.attention.site import Kind
from matrix_video.services.files import atomic_path

_BAR, _CHOSEN, _LINE = "#b8c4d6", "#2f6db5", "#c4582b"
_SUCCESS, _FAILURE = "#3a8f4d", "#b23a48"
_NAMES: Final[dict[Kind, str]] = {"v2t": "video to text", "v2v": "video to video"}


def draw_plots(folder: Path, table: Table, choice: LayerChoice) -> list[Path]:
    """Write all plots of an analysis into ``folder`` and return their paths.

    For each group, ``layers_<kind>_<words>.svg`` (mean AAS and frequency by rank) and, where
    dominance was measured, ``gaps_<kind>_<words>.svg``; for each kind ``levels_<kind>.svg``.
    """
    paths: list[Path] = []
    for group in choice.evidence.groups:
        name = f"{group.kind}_{group.words}.svg"
        chosen = choice.v2t if group.kind == "v2t" else choice.v2v
        with _figure(folder / f"layers_{name}", (6.4, 3.2)) as figure:
            _layers(figure, group, chosen)
        paths.append(folder / f"layers_{name}")
        if group.dominance == "measured":
            with _figure(folder / f"gaps_{name}", (6.4, 3.2)) as figure:
                _gaps(figure, group)
            paths.append(folder / f"gaps_{name}")
    for kind in KINDS:
        with _figure(folder / f"levels_{kind}.svg", (6.4, 3.6)) as figure:
            _levels(figure, table, kind, choice.model.num_layers)
        paths.append(folder / f"levels_{kind}.svg")
    return paths


@contextmanager
def _figure(path: Path, size: tuple[float, float]) -> Generator[Figure]:
    # Fixed salt and no date: an SVG otherwise differs from run to run.
    with mpl.rc_context({"svg.hashsalt": "matrix", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        yield figure
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def _layers(figure: Figure, group: GroupEvidence, chosen: tuple[int, ...]) -> None:
    """Layers by rank: mean AAS as bars, frequency among the top k as a line."""
    axes: Axes = figure.subplots()
    order = list(group.order)
    position = np.arange(len(order))
    aas = [group.layers[layer].aas for layer in order]
    frequency = [group.layers[layer].frequency for layer in order]
    axes.bar(position, aas, color=[_CHOSEN if layer in chosen else _BAR for layer in order])
    axes.axvline(group.k - 0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set_xticks(position, [str(layer) for layer in order])
    axes.set_xlabel(f"layer, most influential first (top {group.k} left of the line, chosen dark)")
    axes.set_ylabel("mean AAS")
    right = axes.twinx()
    right.plot(position, frequency, color=_LINE, marker="o", markersize=3, linewidth=1)
    right.set_ylim(0, 1.05)
    right.set_ylabel(f"share of samples in top {group.k}", color=_LINE)
    axes.set_title(f"{_NAMES[group.kind]}, {group.words}: {group.samples} samples")


def _gaps(figure: Figure, group: GroupEvidence) -> None:
    """Gaps of both outcomes to the overall mean, and the area-matched contrast with interval."""
    axes: Axes = figure.subplots()
    position = np.arange(len(group.contrasts))
    axes.bar(
        position - 0.2,
        [c.gap_success for c in group.contrasts],
        width=0.4,
        color=_SUCCESS,
        label=f"success, n = {group.successes}",
    )
    axes.bar(
        position + 0.2,
        [c.gap_failure for c in group.contrasts],
        width=0.4,
        color=_FAILURE,
        label=f"failure, n = {group.failures}",
    )
    middle = np.array([c.difference for c in group.contrasts])
    low = middle - np.array([c.low for c in group.contrasts])
    high = np.array([c.high for c in group.contrasts]) - middle
    axes.errorbar(
        position,
        middle,
        yerr=np.stack([low, high]),
        fmt="o",
        color="black",
        markersize=3,
        capsize=3,
        label="difference at equal area, 95 % over all tested",
    )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(
        position,
        [f"{c.layer}{'*' if c.layer in group.dominant else ''}" for c in group.contrasts],
    )
    axes.set_xlabel("influential layer (* dominant)")
    axes.set_ylabel("log-lift less mean")
    axes.legend(fontsize=7)
    axes.set_title(f"{_NAMES[group.kind]}, {group.words}: success and failure")


def _levels(figure: Figure, table: Table, kind: Kind, num_layers: int) -> None:
    """Mean log-lift by layer and noise level, nouns beside verbs."""
    maps = {words: level_means(table, kind, words, num_layers) for words in WORDS}
    finite = np.concatenate([m[np.isfinite(m)] for m in maps.values()])
    limit = float(np.abs(finite).max()) if len(finite) else 1.0
    pair: NDArray[np.object_] = figure.subplots(1, 2, sharey=True)
    axes: list[Axes] = list(pair)
    for axis, words in zip(axes, WORDS, strict=True):
        image = axis.imshow(
            maps[words], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", origin="lower"
        )
        axis.set_xticks(range(maps[words].shape[1]))
        axis.set_xlabel("noise level (0: least)")
        axis.set_title(words)
        figure.colorbar(image, ax=axis, label="log-lift" if words == "verbs" else None)
    axes[0].set_ylabel("layer")
    figure.suptitle(f"{_NAMES[kind]}: log-lift by layer and noise level")


def level_means(table: Table, kind: Kind, words: Words, num_layers: int) -> NDArray[np.float64]:
    """Mean log-lift [L,P] over samples and phrases; NaN where nothing was measured."""
    levels = int(table.index("level").max()) + 1 if len(table) else 1
    part = table.of(kind, words)
    return part.means("log_lift", part.index("layer"), part.index("level"), (num_layers, levels))
