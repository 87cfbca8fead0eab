"""``matrix demo``: the whole loop on the shipped tiny pipeline, through the commands' own code."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from matrix_video.services.console import make_console, say
from matrix_video.services.run import RunFolder


class DemoCommand(BaseModel):
    """Run the whole loop on the shipped tiny pipeline and tiny world: minutes on two CPU cores.

    Ends in OUT/report/index.html: attention measured, layers chosen, LoRA trained with and without
    SGA and SPA, clips side by side, scores with intervals. A stopped or killed demo goes on when
    the same command is given again. The default sizes show how it works; they are far too small to
    tell the rows apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    out: Path = Path("out/demo")
    """Folder for everything."""
    model: str = "tiny"
    """Pipeline: tiny, or a folder of the same world."""
    analysis_clips: int = Field(default=56, ge=2)
    """Clips that the base generates, that are labelled, and whose attention is measured."""
    train_clips: int = Field(default=96, ge=2)
    """Clips to fine-tune on."""
    val_clips: int = Field(default=24, ge=2)
    """Prompts to compare on."""
    train_steps: int = Field(default=50, ge=1)
    """Updates of each fine-tuning."""
    sampling_steps: int = Field(default=8, ge=1)
    """Denoising steps of every clip."""
    gallery: int = Field(default=6, ge=0)
    """Prompts in the gallery of the page."""
    seed: int = 0
    """Seed of everything."""


def run(config: DemoCommand) -> int:
    from matrix_video.recipes.demo_stages import Stages

    console = make_console()
    with RunFolder.open(config.out, config, command="demo") as folder:
        demo = Stages(config, console)
        for name, stage in demo.all().items():
            if not folder.done(name):
                say(console, name, style="bold")
                start = time.monotonic()
                stage()
                # Of a stage that was interrupted, its last sitting counts.
                folder.mark_done(name, seconds=round(time.monotonic() - start, 1))
        demo.show({name: float(folder.facts(name)["seconds"]) for name in demo.all()})
    return 0
