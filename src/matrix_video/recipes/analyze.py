"""``matrix analyze``: which layers' attention follows the mask tracks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from matrix_video.analysis.config import AnalyzeConfig
from matrix_video.services.console import make_console, say

if TYPE_CHECKING:
    from matrix_video.analysis.layers import LayerChoice


class AnalyzeCommand(AnalyzeConfig):
    """Measure every layer's attention against mask tracks and choose the layers to align.

    Each clip is encoded, noised to a few levels and run through the model once a level; the maps of
    its phrases (video to text) and of its instances (video to video) are scored against their
    masks. Writes attention.parquet (all measurements), layers.json (the choice with its evidence),
    plots and map overlays. With --trajectory the maps of generated videos are read while each is
    sampled once more. With --labels, also tests which of the influential layers separate
    videos that succeeded from videos that failed. Several processes:
    `accelerate launch -m matrix_video analyze ...`.
    """


def run(config: AnalyzeConfig) -> int:
    from matrix_video.analysis.run import analyze
    from matrix_video.backbones.processes import processes
    from matrix_video.generation.replay import replay

    again = None if config.trajectory is None else partial(replay, config.trajectory)
    choice = analyze(config, replay=again)
    if processes().main:
        show(choice, make_console())
    return 0


def show(choice: LayerChoice, console: Console) -> None:
    """Print each chosen layer with its own figures, on what the choice rests, and the warnings."""
    from matrix_video.analysis.caveats import basis_text
    from matrix_video.analysis.records import KINDS

    table = Table("maps", "layer", "words", "AAS", "log-lift", "binding", "rank", title="Layers")
    for group in choice.evidence.groups:
        for layer in choice.layers(group.kind):
            own = group.layers[layer]
            table.add_row(
                group.kind,
                str(layer),
                group.words,
                f"{own.aas:.3f}",
                f"{own.log_lift:+.2f}",
                "-" if own.binding is None else f"{own.binding:+.2f}",
                group.rank(layer),
            )
    console.print(table)
    for kind in KINDS:
        listed = " ".join(map(str, choice.layers(kind))) or "none"
        say(console, f"{kind}: layers {listed} ({basis_text(choice.evidence, kind)})")
    for warning in choice.evidence.warnings:
        say(console, f"note: {warning}")
