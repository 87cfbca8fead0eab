"""Plots of an analysis, as SVG files that are equal for equal measurements.

They follow the figures of paper section 4: layers in order of influence, and the gaps of
successful and failed videos to the mean of all. Noise levels and sinks are our additions.

Shapes: S samples, L layers, K tested layers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from matrix_video.analysis.layers import GroupEvidence, LayerChoice
from matrix_video.analysis.plots_depth import draw_levels, draw_sinks
from matrix_video.analysis.plots_shared import (
    BLUE,
    INK,
    NAMES,
    ORANGE,
    PALE,
    VERMILLION,
    mark_chosen,
    plain,
    svg_figure,
    width_for,
)
from matrix_video.analysis.ranking import Group, make_group
from matrix_video.analysis.records import KINDS, Table
from matrix_video.analysis.sink_records import SinkTable


def draw_plots(
    folder: Path, table: Table, choice: LayerChoice, sinks: SinkTable | None = None
) -> list[Path]:
    """Write all plots of an analysis into ``folder`` and return their paths.

    For each group, ``layers_<kind>_<words>.svg`` (mean AAS and frequency by rank) and, where
    dominance was measured, ``gaps_<kind>_<words>.svg``; for each kind ``levels_<kind>.svg``
    (log-lift by layer and noise level); ``sinks.svg`` where sinks were measured.
    """
    num_layers = choice.model.num_layers
    chosen = {"v2t": choice.v2t, "v2v": choice.v2v}
    paths: list[Path] = []
    for evidence in choice.evidence.groups:
        name = f"{evidence.kind}_{evidence.words}.svg"
        measured = make_group(table, evidence.kind, evidence.words, num_layers)
        with svg_figure(folder / f"layers_{name}", (width_for(num_layers), 4.2)) as figure:
            _layers(figure, evidence, measured, chosen[evidence.kind])
        paths.append(folder / f"layers_{name}")
        if evidence.dominance == "measured":
            with svg_figure(folder / f"gaps_{name}", (6.4, 4.6)) as figure:
                _gaps(figure, evidence)
            paths.append(folder / f"gaps_{name}")
    for kind in KINDS:
        size = (6.8, max(3.2, 1.4 + 0.16 * num_layers))
        with svg_figure(folder / f"levels_{kind}.svg", size) as figure:
            draw_levels(figure, table, kind, num_layers, chosen[kind])
        paths.append(folder / f"levels_{kind}.svg")
    if sinks is not None:
        with svg_figure(folder / "sinks.svg", (width_for(num_layers) + 1.2, 4.6)) as figure:
            draw_sinks(figure, choice.evidence.sinks, sinks.even_shares(), choice.v2t)
        paths.append(folder / "sinks.svg")
    return paths


def _layers(figure: Figure, group: GroupEvidence, measured: Group, chosen: tuple[int, ...]) -> None:
    """Layers by rank: mean AAS with its spread above, frequency among the top k below."""
    upper: Axes
    lower: Axes
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    order = list(group.order)
    position = np.arange(len(order))
    colours = [BLUE if layer in chosen else PALE for layer in order]
    aas_L: NDArray[np.float64] = np.array([group.layers[layer].aas for layer in order])
    quartiles_2L = np.quantile(measured.aas_SL[:, order], (0.25, 0.75), axis=0)
    upper.bar(position, aas_L, color=colours)
    upper.vlines(position, quartiles_2L[0], quartiles_2L[1], color=INK, linewidth=0.9)
    upper.axhline(float(measured.area_S.mean()), color=VERMILLION, linewidth=1, linestyle="--")
    upper.set_ylabel("mean AAS\n(share of attention in the mask)")
    lower.bar(position, [100 * group.layers[i].frequency for i in order], color=colours)
    lower.set_ylim(0, 105)
    lower.set_ylabel(f"in the top {group.k}\n(% of samples)")
    lower.set_xticks(position, [str(layer) for layer in order], fontsize=8)
    mark_chosen(lower, order, chosen, x=True)
    lower.set_xlabel(f"layer, most influential first; left of the dotted line the top {group.k}")
    for axes in (upper, lower):
        axes.axvline(group.k - 0.5, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlim(-0.6, len(order) - 0.4)
        plain(axes)
    upper.legend(
        handles=[
            Patch(color=BLUE, label="chosen"),
            Patch(color=PALE, label="not chosen"),
            Line2D([], [], color=INK, linewidth=0.9, label="middle half of the samples"),
            Line2D([], [], color=VERMILLION, linestyle="--", label="chance: mean area of the mask"),
        ],
        fontsize=7,
        frameon=False,
        ncols=2,
    )
    halves = group.stability
    agreement = "" if halves is None else f"; halves agree on the order at {halves.mean:.2f}"
    upper.set_title(
        f"{NAMES[group.kind]}, {group.words}: which layers look at their instances\n"
        f"{group.samples} samples{agreement}",
        fontsize=10,
    )


def _gaps(figure: Figure, group: GroupEvidence) -> None:
    """Mirrored gaps of both outcomes above, the area-matched contrast with interval below."""
    upper: Axes
    lower: Axes
    upper, lower = figure.subplots(2, 1, sharex=True)
    contrasts = group.contrasts
    position = np.arange(len(contrasts))
    outcomes = (
        ("success", group.successes, [c.gap_success for c in contrasts], BLUE),
        ("failure", group.failures, [c.gap_failure for c in contrasts], ORANGE),
    )
    for name, videos, gaps, colour in outcomes:
        upper.bar(position, gaps, width=0.6, color=colour, label=f"{name} ({videos} videos)")
    upper.axhline(0, color=INK, linewidth=0.8)
    upper.set_ylabel("log-lift less the mean\nof all videos (ln)")
    upper.legend(fontsize=7, frameon=False)
    middle_K = np.array([c.difference for c in contrasts])
    low_K, high_K = (np.array([getattr(c, end) for c in contrasts]) for end in ("low", "high"))
    for dominant, face in ((True, BLUE), (False, "white")):
        these = [k for k, c in enumerate(contrasts) if c.dominant is dominant]
        lower.errorbar(
            position[these],
            middle_K[these],
            yerr=np.stack([middle_K - low_K, high_K - middle_K])[:, these],
            fmt="o",
            color=INK,
            markerfacecolor=face,
            markersize=5,
            linewidth=1,
            capsize=3,
            label="dominant" if dominant else "not dominant",
        )
    lower.axhline(0, color=INK, linewidth=0.8, linestyle=":")
    lower.set_ylabel("success less failure\nat equal mask area (ln)")
    lower.legend(fontsize=7, frameon=False, title="95 % over all layers", title_fontsize=7)
    lower.set_xticks(position, [str(c.layer) for c in contrasts])
    mark_chosen(lower, [c.layer for c in contrasts], group.dominant, x=True)
    lower.set_xlabel("influential layer, most influential first; dominant ones in bold")
    for axes in (upper, lower):
        axes.set_xlim(-0.6, len(contrasts) - 0.4)
        plain(axes)
    upper.set_title(
        f"{NAMES[group.kind]}, {group.words}: attention to the instances\n"
        "in videos that succeed and in videos that fail",
        fontsize=10,
    )
