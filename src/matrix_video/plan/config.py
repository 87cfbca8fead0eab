"""What is planned: a command with the settings that memory and time depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from matrix_video.backbones.precision import Precision, Weights
from matrix_video.backbones.quantize import Quantize
from matrix_video.training.config import Projections, TrainConfig

Mode = Literal["train", "analyze", "generate"]


class PlanConfig(BaseModel):
    """One question to ``matrix plan``. Options are named as those of the command that is planned,
    and have its defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str = "tiny"
    """Pipeline: tiny, a folder in diffusers format, a hub id, or a published model whose
    configuration is in the package (cogvideox-5b-i2v, wan2.1-t2v-14b, wan2.1-i2v-14b-480p,
    wan2.1-i2v-14b-720p). Weights are neither read nor fetched."""
    mode: Mode = "train"
    """The command to plan for."""

    num_frames: int | None = Field(default=None, ge=1)
    """Frames of a clip; None: what the model is made for, where that is known."""
    height: int | None = Field(default=None, ge=1)
    """Rows; None: likewise."""
    width: int | None = Field(default=None, ge=1)
    """Columns; None: likewise."""
    text_tokens: int | None = Field(default=None, ge=1)
    """Text tokens; None: the model's own."""
    instances: int = Field(default=2, ge=2, le=6)
    """Instances of a clip; each but the last interacts with the next."""
    region: float = Field(default=0.1, gt=0, le=1)
    """Part of the first frame that an instance covers: the rows of attention that SPA reads."""

    batch: int | None = Field(default=None, ge=1)
    """Samples of one forward pass (train: --micro-batch, analyze: noise levels, generate: videos);
    None: the command's default."""
    update_batch: int | None = Field(default=None, ge=1)
    """train: samples of an update (--batch there), for the time of the run; None: its default."""
    precision: Precision = "no"
    """Autocast of the transformer."""
    weights: Weights = "float32"
    """Precision of the frozen weights."""
    engine: Literal["auto", "portable"] = "auto"
    """How maps are read: auto is the fast engine on a CPU, the portable one on a GPU."""

    aligned: bool = True
    """train: with SGA and SPA, or plain LoRA."""
    v2t: tuple[int, ...] = ()
    """train: layers of SGA; none given: the two in the middle."""
    v2v: tuple[int, ...] = ()
    """train: layers of SPA; none given: the last of those of SGA."""
    lora_layers: Literal["selected", "all"] = "selected"
    """train: LoRA on these layers, or on all."""
    lora_projections: Projections = "qkvo"
    """train: LoRA on query, key, value and output, or on query and key alone."""
    lora_rank: int = Field(default=16, ge=1)
    """train: rank."""
    id_map: bool = True
    """train: with the id map, where the model takes a first frame."""
    gradient_checkpointing: bool = False
    """train: recompute blocks in the backward pass."""
    quantize: Quantize = "none"
    """How the transformer's linear layers are stored."""
    tiling: bool = False
    """Let the VAE encode and decode frames in tiles."""
    layers_at_once: int | None = Field(default=None, ge=1)
    """analyze: layers read in one forward pass."""
    guidance: float = Field(default=6.0, ge=1)
    """generate: classifier-free guidance; 1: none."""

    steps: int | None = Field(default=None, ge=1)
    """Updates (train) or denoising steps (generate); None: the command's default."""
    clips: int = Field(default=100, ge=1)
    """Clips of the data set, for the time of the whole run."""

    device: str = "this"
    """Where it will run: this machine, or h200, h100, a100, l40s, rtx4090."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory that may be used, in units of 10⁹ bytes; None: all of the device's."""
    tflops: float | None = Field(default=None, gt=0)
    """Rate of arithmetic that is reached, if you know it; nothing is measured or assumed then."""
    utilisation: float = Field(default=0.4, gt=0, le=1)
    """Share of a card's peak rate that is reached; a guess, which is printed."""
    remedies: bool = True
    """Try what would save memory, each by planning again."""
    out: Path | None = None
    """JSON file for the whole plan."""

    @classmethod
    def of_training(cls, config: TrainConfig) -> PlanConfig:
        """The question that ``matrix train`` with ``config`` asks.

        Without layers of its own (those of a layers.json are not read) it is planned for the
        layers in the middle.
        """
        return cls(
            model=config.model,
            num_frames=config.num_frames,
            height=config.height,
            width=config.width,
            batch=config.micro_batch or config.batch,
            update_batch=config.batch,
            precision=config.precision,
            weights=config.weights,
            aligned=config.aligned,
            v2t=config.v2t,
            v2v=config.v2v,
            lora_layers=config.lora_layers,
            lora_projections=config.lora_projections,
            lora_rank=config.lora_rank,
            id_map=config.id_map,
            gradient_checkpointing=config.gradient_checkpointing,
            quantize=config.quantize,
            tiling=config.tiling,
            steps=config.steps,
        )
