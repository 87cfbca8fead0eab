"""What an analysis is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from matrix_video.analysis.labels import SUCCESS_AT
from matrix_video.backbones.precision import Precision, Weights
from matrix_video.backbones.quantize import Quantize
from matrix_video.data.options import ClipOptions
from matrix_video.data.spans import Mentions
from matrix_video.services.errors import MatrixError


class AnalyzeConfig(ClipOptions):
    """One run of ``matrix analyze``; stored in the run folder as ``config.yaml``.

    Defaults are our choice; the paper states none of them.
    """

    model: str = "tiny"
    """Pipeline: ``tiny``, a folder in diffusers format, or a hub id."""
    data: Path
    """MATRIX data set with mask tracks: real videos, or videos that the model generated."""
    out: Path
    """Run folder; a run that was stopped goes on with the next sample."""
    adapter: Path | None = None
    """Adapter folder of a training run, to measure the fine-tuned model; None: the base."""
    trajectory: Path | None = None
    """Run folder of `matrix generate` that made these very videos: maps are read while each is
    sampled again, at `levels` evenly spaced steps. None: the videos are noised."""

    labels: Path | None = None
    """Success or failure of the videos: ``scores.json`` of an evaluation, or a CSV with columns
    id and success. Without it dominance is not measured."""
    success_at: float = Field(default=SUCCESS_AT, ge=0, le=1)
    """Share of yes among questions 7-10 from which a scored video is a success."""
    draws: int = Field(default=2000, ge=100)
    """Bootstrap draws over videos."""

    levels: int = Field(default=5, ge=1)
    """Noise levels, evenly spaced in the model's schedule, or steps of the sampling."""
    batch: int = Field(default=5, ge=1)
    """Noise levels in one forward pass."""
    layers_at_once: int | None = Field(default=None, ge=1)
    """Layers read in one forward pass, all of whose queries and keys are in memory; None: all."""
    per_head: bool = False
    """Also write a row for every attention head."""
    mentions: Mentions = "full"
    """Which tokens stand for an instance: its class noun, its first full mention, or all."""
    overlays: int = Field(default=2, ge=0)
    """Samples to draw map overlays of."""

    seed: int = 0
    """Noise follows from this, the sample's id and the level; the bootstrap from this alone."""
    precision: Precision = "no"
    """Autocast of the transformer's forward pass; with a trajectory that of its run is used."""
    weights: Weights = "float32"
    """Precision in which the pipeline is held: half the memory with bf16."""
    quantize: Quantize = "none"
    """Store the transformer's linear layers in 8 bit (needs the extra "quantize")."""
    tiling: bool = False
    """Let the VAE encode and decode frames in overlapping tiles: less memory, and slightly other
    values."""

    @model_validator(mode="after")
    def _trajectory_as_it_was(self) -> Self:
        """A sampling is repeated as it was; what would change it is refused."""
        given = ("adapter", "fps", "num_frames", "height", "width")
        changed = [name for name in given if getattr(self, name) is not None]
        if self.trajectory is not None and changed:
            raise MatrixError(
                f"{changed[0]} is given, but a sampling is repeated with the adapter, length and "
                "size of the run that made the videos",
                remedy="Leave it out, or leave out the trajectory",
                field=changed[0],
            )
        return self
