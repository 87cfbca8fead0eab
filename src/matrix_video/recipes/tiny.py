"""Training settings for the shipped tiny pipeline, stated here once.

They are `matrix train --recipe tiny`, and the demo's. Every value is our choice, made for a
transformer of 3.6 M parameters on tiny world; what is not named here is `TrainConfig`'s default.
"""

from __future__ import annotations

from pathlib import Path

from matrix_video.training.config import TrainConfig


def tiny_training(
    *,
    data: Path,
    out: Path,
    layers: Path | None,
    model: str = "tiny",
    steps: int = 2000,
    seed: int = 0,
    cache: Path | None = None,
    aligned: bool = True,
) -> TrainConfig:
    """LoRA on the chosen layers, with and without what MATRIX adds to it.

    The losses weigh twice what the authors give for Wan 14B. Five times more moves attention no
    further in the layers that matter, and costs the model's own objective 15 % (docs/log.md).

    Args:
        data: Data set to train on.
        out: Run folder; a run that was stopped goes on from its last checkpoint.
        layers: layers.json of an analysis; None: to be set in what is returned.
        model: Pipeline: tiny, or a folder of the same world.
        steps: Updates.
        seed: Seed of everything.
        cache: Folder for encoded clips, shared by runs on the same data.
        aligned: Add SGA and SPA.
    """
    often = min(200, max(1, steps // 4))
    return TrainConfig(
        model=model,
        data=data,
        out=out,
        layers=layers,
        steps=steps,
        lr=1e-3,
        sga=0.02 if aligned else 0.0,
        spa=0.01 if aligned else 0.0,
        seed=seed,
        cache=cache,
        heldout_samples=8,
        heldout_every=often,
        checkpoint_every=often,
        precision="auto",
    )
