"""``matrix train``: fine-tune with LoRA on the chosen layers, guided by mask tracks."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import tyro
from pydantic import Field

from matrix_video.recipes.settings import RECIPES, RecipeName
from matrix_video.services.config import CONFIG
from matrix_video.services.console import make_console, say
from matrix_video.services.errors import MatrixError
from matrix_video.training.config import TrainConfig


class TrainCommand(TrainConfig):
    """Fine-tune a pipeline with LoRA on the chosen layers, its attention aligned with mask tracks.

    Layers come from the layers.json of `matrix analyze`, or by number. Plain LoRA, the baseline, is
    `--sga 0 --spa 0 --no-id-map`. A run that was stopped or killed goes on when the same command is
    given again. Several processes: `accelerate launch -m matrix_video train ...`.
    """

    recipe: RecipeName | None = Field(default=None, exclude=True)
    """Start from these settings (recipes/settings.py says where each comes from): they become the
    defaults of all other options. The recipe tiny names no layers: give them."""
    resume: bool = Field(default=False, exclude=True)
    """Only go on with a run: an error where the folder holds none. Without it the same command goes
    on too, or begins."""


def start(recipe: RecipeName, given: Collection[str]) -> TrainCommand:
    """The options' defaults under ``recipe``, where those named ``given`` are given.

    Layers that are given in one way take the place of the recipe's.
    """
    values: dict[str, Any] = dict(RECIPES[recipe](data=Path(), out=Path()))
    values |= {"recipe": recipe, "data": tyro.MISSING, "out": tyro.MISSING}
    if "layers" in given:
        values |= {"v2t": (), "v2v": ()}
    return TrainCommand.model_construct(**values)


def run(config: TrainConfig) -> int:
    """Train; the exit code. `MatrixError` as `training.run.train`, and where a command's ``resume``
    finds no run."""
    from matrix_video.recipes.watch import StudentVideos
    from matrix_video.services.signals import EXIT_TERMINATED
    from matrix_video.training.loop import GO_ON
    from matrix_video.training.run import train

    resume = isinstance(config, TrainCommand) and config.resume
    if resume and not (config.out / CONFIG).exists():
        raise MatrixError(
            "there is no run to go on with",
            remedy="check --out, or leave out --resume to begin one",
            file=config.out,
            field="resume",
        )
    watch = StudentVideos(config) if config.sample_every else None
    result = train(config, watch=watch)
    console = make_console(stderr=True)
    if result.adapter is None:
        say(console, f"stopped after {result.steps} updates; {GO_ON}")
        return EXIT_TERMINATED
    say(console, f"adapter: {result.adapter}")
    if result.absorbed:
        console.print(
            "decoder absorbed: the alignment loss fell, but the layers' own attention did not "
            "improve on held-out samples; try a smaller decoder (--no-decoder) or larger --sga, "
            "--spa",
            style="yellow",
        )
    return 0
