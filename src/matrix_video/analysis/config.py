"""What an analysis is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from matrix_video.services.errors import MatrixError


class AnalyzeConfig(BaseModel):
    """One run of ``matrix analyze``; stored in the run folder as ``config.yaml``.

    Defaults are our choice; the paper states none of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str = "tiny"
    """Pipeline: ``tiny``, a folder in diffusers format, or a hub id."""
    data: Path
    """MATRIX data set with mask tracks: real videos, or videos that the model generated."""
    out: Path
    """Run folder; a run that was stopped goes on with the next sample."""

    labels: Path | None = None
    """Success or failure of the videos: ``scores.json`` of an evaluation, or a CSV with columns
    id and success. Without it dominance is not measured."""
    success_at: float = Field(default=0.75, ge=0, le=1)
    """Share of yes among questions 7-10 from which a scored video is a success."""
    draws: int = Field(default=2000, ge=100)
    """Bootstrap draws over videos."""

    levels: int = Field(default=5, ge=1)
    """Noise levels, evenly spaced in the model's schedule."""
    batch: int = Field(default=5, ge=1)
    """Noise levels in one forward pass."""
    layers_at_once: int | None = Field(default=None, ge=1)
    """Layers read in one forward pass, all of whose queries and keys are in memory; None: all."""
    per_head: bool = False
    """Also write a row for every attention head."""
    mentions: Literal["noun", "full", "all"] = "full"
    """Which tokens stand for an instance: its class noun, its first full mention, or all."""
    overlays: int = Field(default=2, ge=0)
    """Samples to draw map overlays of."""

    fps: float | None = Field(default=None, gt=0)
    """Frame rate to sample clips at; None: their own."""
    num_frames: int | None = Field(default=None, ge=1)
    """Frames of a clip; None: all."""
    height: int | None = Field(default=None, ge=1)
    """Rows to resize to; None: as stored."""
    width: int | None = Field(default=None, ge=1)
    """Columns to resize to; None: as stored."""
    limit: int | None = Field(default=None, ge=1)
    """Measure the first so many samples alone."""

    seed: int = 0
    """Noise follows from this, the sample's id and the level; the bootstrap from this alone."""
    precision: Literal["no", "bf16"] = "no"
    """Autocast of the transformer's forward pass."""

    @model_validator(mode="after")
    def _size_whole(self) -> Self:
        if (self.height is None) != (self.width is None):
            raise MatrixError(
                "only one of height and width is given",
                remedy="Give both, or none",
                field="height" if self.height is None else "width",
            )
        return self

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) to resize to."""
        if self.height is None or self.width is None:
            return None
        return self.height, self.width
