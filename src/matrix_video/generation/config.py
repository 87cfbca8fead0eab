"""What a generation run is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from matrix_video.backbones.precision import Precision
from matrix_video.data.options import ClipOptions
from matrix_video.services.errors import MatrixError


class GenerateConfig(ClipOptions):
    """One run of ``matrix generate``; stored in the run folder as ``config.yaml``.

    Defaults are those of the stock pipeline's call where it has one.
    """

    model: str = "tiny"
    """Pipeline: ``tiny``, a folder in diffusers format, or a hub id."""
    prompts: Path
    """Data set whose captions, first frames and first-frame masks are the prompts."""
    out: Path
    """Run folder; a run that was stopped goes on with the next batch."""

    adapter: Path | None = None
    """Adapter folder of a training run; None: the base."""
    lora_scale: float = Field(default=1.0, ge=0)
    """Factor on the LoRA's effect."""
    id_map: bool = True
    """Give the adapter its id map, if it was trained with one."""
    id_maps: Path | None = None
    """Folder of id maps, ``<prompt id>.png``: one flat colour an instance on black; None: the
    first-frame masks of the prompts' own tracks."""

    seed: int = 0
    """A prompt's noise and colours follow from this and its id alone."""
    steps: int = Field(default=50, ge=1)
    """Denoising steps."""
    guidance: float = Field(default=6.0, ge=1)
    """Classifier-free guidance; 1: none."""
    batch: int = Field(default=8, ge=1)
    """Videos in one call of the pipeline; memory and speed alone depend on it."""
    precision: Precision = "no"
    """Autocast of the transformer's forward passes."""

    fps: float | None = Field(default=None, gt=0)
    """Frame rate of the videos; None: that of the prompt's own."""
    num_frames: int | None = Field(default=None, ge=1)
    """Frames to generate; None: as many as the prompt's own video has."""

    @model_validator(mode="after")
    def _of_an_adapter(self) -> Self:
        if self.adapter is None and self.lora_scale != 1.0:
            raise MatrixError(
                f"a LoRA scale of {self.lora_scale:g} is given, but no adapter",
                remedy="Give the adapter, or leave the scale out",
                field="lora_scale",
            )
        if self.id_maps is not None and (self.adapter is None or not self.id_map):
            raise MatrixError(
                "id maps are given, but nothing that takes them",
                remedy="Give an adapter that was trained with the id map, and no --no-id-map",
                field="id_maps",
            )
        return self
