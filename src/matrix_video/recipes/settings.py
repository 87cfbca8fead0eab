"""Whole trainings by name, for ``matrix train --recipe`` and ``matrix plan --recipe``.

Beside every value stands what it comes from:

paper    arXiv 2510.07310v2, by section; D.2 is its appendix "Implementation details"
authors  their released Wan script, ``matrix/train/train.sh`` and what it calls, by the option
ours     our choice, with the reason

What is not named is `TrainConfig`'s default, which says the same of itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, Protocol

from matrix_video.training.config import TrainConfig

RecipeName = Literal["tiny", "cogvideox-5b-i2v", "wan2.1-14b-i2v", "debug"]


class Recipe(Protocol):
    """A complete training of the data set ``data`` into the run folder ``out``."""

    def __call__(self, *, data: Path, out: Path) -> TrainConfig: ...


def tiny(
    *,
    data: Path,
    out: Path,
    layers: Path | None = None,
    model: str = "tiny",
    steps: int = 2000,
    seed: int = 0,
    cache: Path | None = None,
    aligned: bool = True,
) -> TrainConfig:
    """LoRA on chosen layers of the shipped tiny pipeline, or of ``model``, of the same world.

    ``layers`` is the layers.json of an analysis; None: to be set in what is returned. ``aligned``
    adds SGA and SPA, all that MATRIX adds to plain LoRA. ``cache``: folder for encoded clips,
    shared by runs on the same data.
    """
    often = min(200, max(1, steps // 4))
    return TrainConfig(
        data=data,
        out=out,
        # ours: as asked for; 2,000 updates where nothing was
        layers=layers,
        model=model,
        steps=steps,
        seed=seed,
        cache=cache,
        # ours: made for 3.6 M parameters on tiny world
        lr=1e-3,
        # ours: twice what the authors give for Wan 14B; five times more moves attention no further
        # in the layers that matter, and costs the model's own objective 15 % (docs/log.md)
        sga=0.02 if aligned else 0.0,
        spa=0.01 if aligned else 0.0,
        # ours: short runs are scored and saved on their way too
        heldout_samples=8,
        heldout_every=often,
        checkpoint_every=often,
        # ours: bfloat16 where the processor computes in it
        precision="auto",
    )


def cogvideox_5b_i2v(*, data: Path, out: Path) -> TrainConfig:
    """The paper's training of CogVideoX-5B-I2V."""
    return TrainConfig(
        data=data,
        out=out,
        # paper D.2: "We use the CogVideoX-5B-I2V [...] as our base image-to-video diffusion model"
        model="THUDM/CogVideoX-5b-I2V",
        # paper D.2: "at a resolution of 480 × 720 with a total of 49 frames"
        num_frames=49,
        height=480,
        width=720,
        # ours: the rate that this model makes videos at
        fps=8.0,
        # paper D.2: "The SGA loss supervises video-to-text attention in blocks 7 and 11."
        v2t=(7, 11),
        # paper D.2: "The SPA loss supervises video-to-video attention in block 12."
        v2v=(12,),
        # paper D.2: "LoRA [...] with a rank of 128 and α = 64"
        lora_rank=128,
        lora_alpha=64.0,
        # paper D.2: "an AdamW [...] optimizer with a cosine learning rate decay schedule"
        decay="cosine",
        # paper D.2: "trained for 4,000 steps"
        steps=4000,
        # ours: the paper is silent; its 32 hours on one A6000 are 29 s an update, which is about
        # what one clip takes there
        batch=1,
        # ours: the paper is silent; the default of diffusers' LoRA script for this model
        lr=1e-4,
        # ours: the paper is silent; Adam's first steps are as long as its later ones, and wilder
        warmup=50,
        # ours: the published weights are bfloat16; float32 would double them and say no more
        weights="bf16",
        precision="bf16",
        # ours: without it no 80 GB card holds one clip (docs/plan.md)
        gradient_checkpointing=True,
        # ours: eight scores and sixteen checkpoints in the run's 4,000 updates
        heldout_every=500,
        checkpoint_every=250,
    )


def wan2_1_14b_i2v(*, data: Path, out: Path) -> TrainConfig:
    """The authors' script for Wan2.1-I2V-14B, of which a number of lines cannot run as released.

    LoRA is on attention alone: their target names of feed-forward layers match nothing. Maps are
    probabilities, as everywhere here; theirs are logits over all heads at once.
    """
    return TrainConfig(
        data=data,
        out=out,
        # authors: BASE_MODEL="Wan-AI/Wan2.1-I2V-14B-480P", here in diffusers' format
        model="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        # authors: --height 480 --width 832
        height=480,
        width=832,
        # authors: --num_frames, whose default is 81
        num_frames=81,
        # authors: their README names the folder of training videos "final_videos_16fps"
        fps=16.0,
        # authors: --v2t_layers "20,24"
        v2t=(20, 24),
        # authors: --v2v_layers "6,8"
        v2v=(6, 8),
        # authors: --lora_rank 16; alpha is the rank where none is given
        lora_rank=16,
        lora_alpha=16.0,
        # authors: --learning_rate 1e-5
        lr=1e-5,
        # authors: --weight_decay, whose default is 0.01
        weight_decay=0.01,
        # authors: ConstantLR, PyTorch's: a third of the rate in the first five updates, then all
        decay="constant",
        warmup=5,
        # authors: a data loader of single samples, on one GPU
        batch=1,
        # authors: --num_epochs 5, of the 11,000 clips of MATRIX-11K
        steps=55_000,
        # authors: 0.01 times the grounding loss, 0.005 times the propagation loss
        sga=0.01,
        spa=0.005,
        # authors: cross-entropy is the only part of the loss that is not commented out
        mask_bce=1.0,
        mask_dice=0.0,
        mask_l2=0.0,
        # authors: torch_dtype=torch.bfloat16
        weights="bf16",
        precision="bf16",
        # authors: use_gradient_checkpointing=True
        gradient_checkpointing=True,
        # ours: eleven scores an epoch; a stop loses half an hour of an H100 (by `matrix plan`)
        heldout_every=1000,
        checkpoint_every=100,
    )


def debug(*, data: Path, out: Path) -> TrainConfig:
    """Ten updates of a tiny model of any family, which show everything that a run does."""
    return TrainConfig(
        data=data,
        out=out,
        # ours: SGA and SPA in one layer, and one that SGA has for itself
        v2t=(0, 1),
        v2v=(1,),
        # ours: past warm-up, past two scores and two checkpoints
        steps=10,
        warmup=2,
        heldout_every=5,
        checkpoint_every=5,
        # ours: more than one sample, so that means over a batch mean something
        batch=2,
        # ours: small, with a scale that is not 1
        lora_rank=2,
        lora_alpha=4.0,
        # ours: so much that ten updates change every loss in digits that are printed
        lr=1e-3,
        sga=0.1,
        spa=0.05,
        # ours: every update has every term, however few the samples
        caption_dropout=0.0,
        id_drop=0.0,
        # ours: one sample at two noise levels is the least that has a mean
        heldout_samples=1,
        heldout_levels=2,
    )


RECIPES: Final[Mapping[RecipeName, Recipe]] = {
    "tiny": tiny,
    "cogvideox-5b-i2v": cogvideox_5b_i2v,
    "wan2.1-14b-i2v": wan2_1_14b_i2v,
    "debug": debug,
}
