"""Plots over the depth of the model: log-lift by noise level, and attention sinks.

Shapes: L layers, P noise levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from matrix_video.analysis.layers import LayerSinks
from matrix_video.analysis.plots_shared import (
    BLUE,
    GREEN,
    GREY,
    NAMES,
    ORANGE,
    PURPLE,
    YELLOW,
    mark_chosen,
    plain,
)
from matrix_video.analysis.records import WORDS, Table, Words
from matrix_video.analysis.sinks import TOKENS, Tokens
from matrix_video.attention.site import Kind

_SINKS: Final[dict[Tokens, tuple[str, str]]] = {
    "word": ("words of the caption", BLUE),
    "special": ("end, start, template", ORANGE),
    "padding": ("padding", YELLOW),
    "image": ("image tokens", PURPLE),
    "video": ("video", "#d9dce0"),
    "other": ("other tokens", GREEN),
}
_SHADES: Final = "RdBu_r"  # blue to red through white: told apart by all colour-blind readers
_MANY: Final = 12
"""Noise levels above which not every one is labelled."""


def draw_levels(
    figure: Figure, table: Table, kind: Kind, num_layers: int, chosen: Sequence[int]
) -> None:
    """Mean log-lift by layer and noise level, nouns beside verbs on one scale of colours."""
    maps = {words: level_means(table, kind, words, num_layers) for words in WORDS}
    finite = np.concatenate([found[np.isfinite(found)] for found in maps.values()])
    limit = float(np.abs(finite).max()) if len(finite) else 1.0
    times_P = _timesteps(table)
    step = max(1, -(-len(times_P) // _MANY))
    pair: NDArray[np.object_] = figure.subplots(1, 2, sharey=True)
    panels: list[Axes] = list(pair)
    shades = Normalize(-limit, limit)
    for axes, words in zip(panels, WORDS, strict=True):
        # Cells as vectors: browsers would smooth a picture of a few pixels.
        axes.pcolormesh(maps[words], cmap=_SHADES, norm=shades, edgecolors="face", linewidth=0.1)
        axes.set_facecolor(GREY)
        axes.set_xticks(
            np.arange(0, len(times_P), step) + 0.5, [f"{t:.3g}" for t in times_P[::step]]
        )
        axes.set_xlabel("timestep of the model")
        axes.set_title(words, fontsize=9)
    panels[0].set_yticks(np.arange(num_layers) + 0.5, [str(i) for i in range(num_layers)])
    panels[0].tick_params(axis="y", labelsize=8 if num_layers <= 20 else 6)
    mark_chosen(panels[0], range(num_layers), chosen, x=False)
    panels[0].set_ylabel("layer (chosen in bold)")
    figure.colorbar(ScalarMappable(shades, _SHADES), ax=panels, label="log-lift (ln; 0 = chance)")
    figure.suptitle(
        f"{NAMES[kind]}: how far attention to the instances lies above chance,\n"
        "by layer and noise level (grey: not measured)",
        fontsize=10,
    )


def _timesteps(table: Table) -> NDArray[np.float64]:
    """Mean timestep [P] of each level."""
    levels = table.index("level")
    total_P = np.bincount(levels, weights=table.number("timestep"))
    return total_P / np.bincount(levels).clip(min=1)


def level_means(table: Table, kind: Kind, words: Words, num_layers: int) -> NDArray[np.float64]:
    """Mean log-lift [L,P] over samples and phrases; NaN where nothing was measured."""
    levels = int(table.index("level").max()) + 1 if len(table) else 1
    part = table.of(kind, words)
    return part.means("log_lift", part.index("layer"), part.index("level"), (num_layers, levels))


def draw_sinks(
    figure: Figure,
    sinks: Sequence[LayerSinks],
    even: Mapping[Tokens, float],
    chosen: Sequence[int],
) -> None:
    """Stacked shares by layer: of all attention, and, where there are video keys, of text's alone.

    The first bar is what attention that looks at all tokens alike would give.
    """
    text: list[Tokens] = [n for n in TOKENS if n in even and n not in ("video", "other")]
    shown: list[tuple[list[Tokens], str]] = [(text, "of the attention\nto text (%)")]
    if len(text) < len(even):
        every: list[Tokens] = [name for name in TOKENS if name in even]
        shown.insert(0, (every, "of the video tokens'\nattention (%)"))
    found: NDArray[np.object_] = figure.subplots(len(shown), 1, sharex=True, squeeze=False)
    panels: list[Axes] = list(found[:, 0])
    position = np.array([0.0, *(1.5 + i for i in range(len(sinks)))])
    for axes, (names, label) in zip(panels, shown, strict=True):
        bars = [even, *(layer.shares for layer in sinks)]
        shares = np.array([[bar[name] for name in names] for bar in bars])
        shares = 100 * shares / shares.sum(axis=1, keepdims=True)
        bottom = np.zeros(len(bars))
        for name, height in zip(names, shares.T, strict=True):
            title, colour = _SINKS[name]
            axes.bar(
                position,
                height,
                bottom=bottom,
                color=colour,
                edgecolor="white",
                linewidth=0.4,
                label=title,
            )
            bottom += height
        axes.set_ylim(0, 100)
        axes.set_xlim(-0.6, position[-1] + 0.6)
        axes.set_ylabel(label)
        plain(axes)
    panels[0].legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    lowest = panels[-1]
    lowest.set_xticks(position, ["even", *(str(layer.layer) for layer in sinks)], fontsize=8)
    mark_chosen(lowest, [-1, *(layer.layer for layer in sinks)], chosen, x=True)
    lowest.set_xlabel("layer (chosen for V2T in bold); even: if all tokens got the same")
    panels[0].set_title("Attention sinks: what the video tokens look at", fontsize=10)
