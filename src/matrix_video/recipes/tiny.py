"""Training settings for the shipped tiny pipeline.

Every value is our choice, made for a 3.7 M parameter model on tiny world, except the rank (authors
of the paper: 16) and the structure of the losses.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matrix_video.training.config import TrainConfig


def tiny_training(
    *,
    data: Path,
    out: Path,
    layers: Path,
    model: str = "tiny",
    steps: int = 2000,
    seed: int = 0,
    aligned: bool = True,
) -> TrainConfig:
    """LoRA on the chosen layers with the first-frame id map; ``aligned`` adds SGA and SPA.

    The losses weigh ten times what the authors give for Wan 14B: the tiny model's own objective is
    smaller and its runs are shorter.
    """
    from matrix_video.training.config import TrainConfig

    return TrainConfig(
        model=model,
        data=data,
        out=out,
        layers=layers,
        steps=steps,
        batch=8,
        lr=1e-3,
        sga=0.1 if aligned else 0.0,
        spa=0.05 if aligned else 0.0,
        seed=seed,
        heldout_samples=8,
        heldout_every=max(1, steps // 4),
        checkpoint_every=max(1, steps // 4),
        precision="bf16",
    )
