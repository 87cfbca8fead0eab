"""``matrix analyze``: which layers' attention follows the mask tracks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from matrix_video.analysis.layers import LayerChoice


@dataclass(frozen=True)
class AnalyzeCommand:
    """Measure every layer's attention against mask tracks and choose the layers to align.

    Each clip is encoded, noised to a few levels and run through the model once a level; the maps of
    its phrases (video to text) and of its instances (video to video) are scored against their
    masks. Writes attention.parquet (all measurements), layers.json (the choice with its evidence),
    plots and map overlays. With --labels, also tests which of the influential layers separate
    videos that succeeded from videos that failed.
    """

    data: Path
    """Data set with mask tracks: real videos, or videos that the model generated."""
    out: Path
    """Run folder; a run that was stopped goes on with the next sample."""
    model: str = "tiny"
    """Pipeline: tiny, a folder in diffusers format, or a hub id."""
    labels: Path | None = None
    """scores.json of an evaluation of these videos, or a CSV with columns id and success."""
    success_at: float = 0.75
    """Share of yes among questions 7-10 from which a scored video is a success."""
    draws: int = 2000
    """Bootstrap draws over videos."""
    levels: int = 5
    """Noise levels, evenly spaced in the model's schedule."""
    batch: int = 5
    """Noise levels in one forward pass; lower it if memory runs out."""
    layers_at_once: int | None = None
    """Layers read in one forward pass; lower it if memory runs out. None: all."""
    per_head: bool = False
    """Also write a row for every attention head."""
    mentions: Literal["noun", "full", "all"] = "full"
    """Which tokens stand for an instance: its class noun, its first full mention, or all."""
    overlays: int = 2
    """Samples to draw map overlays of."""
    fps: float | None = None
    """Frame rate to sample clips at; None: their own."""
    num_frames: int | None = None
    """Frames of a clip; None: all."""
    height: int | None = None
    """Rows to resize to; None: as stored."""
    width: int | None = None
    """Columns to resize to; None: as stored."""
    limit: int | None = None
    """Measure the first so many samples alone."""
    seed: int = 0
    """Seed of the noise and of the bootstrap."""
    precision: Literal["no", "bf16"] = "no"
    """Autocast of the transformer: no (float32) or bf16."""


def run(config: AnalyzeCommand) -> int:
    from matrix_video.analysis.config import AnalyzeConfig
    from matrix_video.analysis.run import analyze

    choice = analyze(AnalyzeConfig(**asdict(config)))
    show(choice, Console())
    return 0


def show(choice: LayerChoice, console: Console) -> None:
    """Print the rankings, the choice and the warnings."""
    table = Table("maps", "words", "influential", "AAS", "log-lift", "dominant", title="Layers")
    for group in choice.evidence.groups:
        best = group.layers[group.influential[0]]
        table.add_row(
            group.kind,
            group.words,
            " ".join(map(str, group.influential)),
            f"{best.aas:.3f}",
            f"{best.log_lift:+.2f}",
            " ".join(map(str, group.dominant)) or ("none" if group.contrasts else "not measured"),
        )
    console.print(table)
    for kind, basis in choice.evidence.basis.items():
        layers = " ".join(map(str, choice.v2t if kind == "v2t" else choice.v2v))
        console.print(f"{kind}: layers {layers} (by {basis})", highlight=False)
    for warning in choice.evidence.warnings:
        console.print(f"note: {warning}", markup=False, highlight=False, soft_wrap=True)
