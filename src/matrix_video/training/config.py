"""What a fine-tuning run is made of.

Every default says where it comes from: "paper" is arXiv 2510.07310, "authors" their released Wan
script, everything else is our choice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from matrix_video.backbones.precision import Precision, Weights
from matrix_video.backbones.quantize import Quantize
from matrix_video.data.options import ClipOptions
from matrix_video.data.spans import Mentions

Projections = Literal["qkvo", "qk"]
MAY_CHANGE: Final = frozenset(
    {"micro_batch", "gradient_checkpointing", "cache", "checkpoint_every", "log_every", "tracker"}
)
"""Settings that a resumed run may have otherwise than it began: but for rounding they change none
of its results (our choice: memory that does not suffice is found out in the run)."""


class TrainConfig(ClipOptions):
    """One run of ``matrix train``; stored in the run folder as ``config.yaml``."""

    model: str = "tiny"
    """Base pipeline: ``tiny``, a folder in diffusers format, or a hub id."""
    data: Path
    """MATRIX data set to train on."""
    out: Path
    """Run folder; a run that was stopped goes on from its last checkpoint."""

    layers: Path | None = None
    """``layers.json`` of an analysis. Give this, or ``v2t`` and ``v2v``."""
    v2t: tuple[int, ...] = ()
    """Layers whose video-to-text maps SGA aligns."""
    v2v: tuple[int, ...] = ()
    """Layers whose video-to-video maps SPA aligns."""
    lora_layers: Literal["selected", "all"] = "selected"
    """LoRA on the chosen layers alone (paper), or on all (the paper's ablation)."""
    lora_projections: Projections = "qkvo"
    """LoRA on query, key, value and output (our choice; paper: silent), or on query and key alone,
    of which attention maps are made."""

    steps: int = Field(default=2000, ge=1)
    """Updates."""
    batch: int = Field(default=8, ge=1)
    """Samples per update, over all processes."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Samples per forward pass; None: the whole share of a process at once."""
    lr: float = Field(default=1e-4, gt=0)
    """Learning rate of LoRA (authors: 1e-5 at 14 B parameters)."""
    lr_new: float | None = Field(default=None, gt=0)
    """Learning rate of the id map's projection and the decoder, which start from nothing.
    None: as ``lr``."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay."""
    warmup: int = Field(default=20, ge=0)
    """Updates over which the learning rate rises from 0."""
    decay: Literal["constant", "cosine"] = "constant"
    """Learning rate afterwards: constant, or falling to 0 at the last update as half a cosine."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of all trained weights that the adapter is saved from; 0: the
    weights themselves."""
    clip_grad: float = Field(default=1.0, gt=0)
    """Largest gradient norm of an update."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank (authors: 16)."""
    lora_alpha: float = Field(default=16.0, gt=0)
    """LoRA's output is scaled by alpha / rank."""

    sga: float = Field(default=0.01, ge=0)
    """Weight of the grounding loss (authors: 0.01)."""
    spa: float = Field(default=0.005, ge=0)
    """Weight of the propagation loss (authors: 0.005)."""
    mask_bce: float = Field(default=1.0, ge=0)
    """Weight of cross-entropy within both losses."""
    mask_dice: float = Field(default=1.0, ge=0)
    """Weight of soft Dice within both losses."""
    mask_l2: float = Field(default=0.0, ge=0)
    """Weight of the squared error of probabilities within both losses."""
    subject_weight: float = Field(default=1.0, ge=0)
    """How much a subject's map counts in its sample's mean."""
    object_weight: float = Field(default=1.0, ge=0)
    """The same of an object's."""
    verb_weight: float = Field(default=1.0, ge=0)
    """The same of a verb's."""
    layer_weights: dict[str, float] = Field(default_factory=dict[str, float])
    """How much a layer's maps count in the mean over layers, by "<layer>/v2t" or "<layer>/v2v"; 1
    where it is not named."""
    align_noise: tuple[Annotated[int, Field(ge=0, le=4)], ...] | None = Field(
        default=None, min_length=1
    )
    """Noise levels at which SGA and SPA act: of five evenly spaced ones, from the least noise (0)
    to the most (4), those that are nearest to a sample's. At others a sample counts as 0, so that
    the losses weigh less in all. None: all (paper: silent)."""
    shuffle_masks: bool = False
    """Placebo: every clip is compared with the masks of another one, so that the losses do their
    work and say nothing."""
    decoder: bool = True
    """Train a map decoder; without it the interpolated log-lift is compared directly."""
    decoder_channels: int = Field(default=16, ge=1)
    """Width of the decoder."""
    decoder_bound: float = Field(default=2.0, gt=0)
    """Largest change that the decoder makes to a logit; a freer one draws masks itself, and the
    attention improves less."""
    up: int = Field(default=2, ge=1)
    """Rows of the compared masks per token row; 2 is the latent resolution of 2×2 patches."""
    map_mode: Literal["probabilities", "logits"] = "probabilities"
    """Align attention probabilities, or logits before the softmax (authors)."""
    mentions: Mentions = "full"
    """Which tokens stand for an instance: its class noun, its first full mention, or all."""

    id_map: bool = True
    """Condition on the id map of the first frame (paper)."""
    id_drop: float = Field(default=0.1, ge=0, le=1)
    """How often the id map is left out."""
    caption_dropout: float = Field(default=0.1, ge=0, le=1)
    """How often the caption is empty, for classifier-free guidance; such a sample has no SGA."""

    leave_out: bool = False
    """Leave out the clips that the model does not take, or whose phrases it does not read to their
    end, where the run would refuse them all."""

    cache: Path | None = None
    """Folder for encoded samples, shared by runs on the same data and model; None: in memory."""

    val_data: Path | None = None
    """Data set for the held-out score; None: the last ``heldout_samples`` of ``data`` are kept
    out of training."""
    heldout_samples: int = Field(default=4, ge=0)
    """Held-out samples; 0: no held-out score."""
    heldout_levels: int = Field(default=2, ge=1)
    """Noise levels, evenly spaced, at which the held-out score is taken."""
    heldout_every: int = Field(default=200, ge=1)
    """Updates between held-out scores; also taken before the first and after the last."""
    sample_every: int = Field(default=0, ge=0)
    """Updates between videos of the student in ``samples/``; also before the first and after the
    last. 0: none."""
    samples: int = Field(default=4, ge=1)
    """Videos each time, of the first held-out samples."""
    sample_steps: int = Field(default=20, ge=1)
    """Denoising steps of them."""
    sample_judge: Literal["none", "oracle"] = "none"
    """Who scores them; the oracle knows tiny world alone."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Updates between checkpoints."""
    log_every: int = Field(default=1, ge=1)
    """Updates between lines in ``metrics.jsonl``."""

    tracker: Literal["none", "tensorboard", "wandb"] = "none"
    """Where the lines of ``metrics.jsonl`` go as well, through accelerate's trackers."""

    seed: int = 0
    """Everything random follows from this, the sample's id and the step."""
    precision: Precision = "no"
    """Autocast of the transformer's forward pass."""
    weights: Weights = "float32"
    """Precision in which the frozen base is held; LoRA is always float32."""
    quantize: Quantize = "none"
    """Store the frozen base's linear layers in 8 bit (needs the extra "quantize"). With
    --gradient-checkpointing: without, the backward pass keeps a copy of each in full."""
    tiling: bool = False
    """Let the VAE encode and decode frames in overlapping tiles: less memory, and slightly other
    values."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass: less memory, a third more time."""

    shard: bool = False
    """Split all parameters over the processes (PyTorch's ``fully_shard``) where each would hold
    them all (DDP)."""

    @property
    def roles(self) -> tuple[float, float, float] | None:
        """Weights of subject, object and verb; None where they are alike."""
        found = (self.subject_weight, self.object_weight, self.verb_weight)
        return None if found == (1.0, 1.0, 1.0) else found

    @property
    def aligned(self) -> bool:
        """Whether any alignment loss is on."""
        return self.sga > 0 or self.spa > 0
