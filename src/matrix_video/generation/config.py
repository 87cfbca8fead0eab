"""What a generation run is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from matrix_video.backbones.precision import Precision, Weights
from matrix_video.backbones.quantize import Quantize
from matrix_video.data.options import ClipOptions
from matrix_video.services.errors import MatrixError


class GenerateConfig(ClipOptions):
    """One run of ``matrix generate``; stored in the run folder as ``config.yaml``.

    Defaults are those of CogVideoX's stock call where it has one; other families' may differ (Wan's
    guidance is 5).
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
    """Folder of id maps, ``<prompt id>.png``: one flat colour an instance on black; None: as
    ``masks`` says."""
    masks: Literal["tracks", "appearance", "grounded"] = "tracks"
    """First-frame masks for id maps: of the prompts' own tracks, or found in the first frame by the
    instances' phrases: "appearance" by colour, shape and size in plain drawings, "grounded" by
    GroundingDINO and SAM 2. What is found lies in ``id_maps/`` of the run, to be looked at."""
    detector: str = "IDEA-Research/grounding-dino-base"
    """GroundingDINO for "grounded": a folder or a hub id (authors: base)."""
    segmenter: str = "facebook/sam2.1-hiera-large"
    """SAM 2 for "grounded": a folder or a hub id (authors: 2.1, hiera-large)."""
    box_threshold: float = Field(default=0.35, ge=0, le=1)
    """Least score of a box of the detector (authors: 0.35)."""

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
    weights: Weights = "float32"
    """Precision in which the pipeline is held: half the memory with bf16."""
    quantize: Quantize = "none"
    """Store the transformer's linear layers in 8 bit (needs the extra "quantize")."""
    tiling: bool = False
    """Let the VAE encode and decode frames in overlapping tiles: less memory, and slightly other
    values."""

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
        field = "id_maps" if self.id_maps is not None else "masks"
        if self.finds and self.id_maps is not None:
            raise MatrixError(
                f"id maps are given, and masks are to be found by {self.masks}",
                remedy="Give one of --id-maps and --masks",
                field="masks",
            )
        if self.masks != "grounded":
            for name in ("detector", "segmenter", "box_threshold"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise MatrixError(
                        f"{name} is given, but masks are from {self.masks}",
                        remedy="Give --masks grounded, or leave it out",
                        field=name,
                    )
        asked = self.id_maps is not None or self.finds
        if asked and (self.adapter is None or not self.id_map):
            raise MatrixError(
                "id maps are given, but nothing that takes them",
                remedy="Give an adapter that was trained with the id map, and no --no-id-map",
                field=field,
            )
        return self

    @property
    def finds(self) -> bool:
        """Whether masks are found in the first frame."""
        return self.masks != "tracks"
