"""``matrix train``: fine-tune with LoRA on the chosen layers, guided by mask tracks."""

from __future__ import annotations

from matrix_video.training.config import TrainConfig


class TrainCommand(TrainConfig):
    """Fine-tune a pipeline with LoRA on the chosen layers, its attention aligned with mask tracks.

    Layers come from the layers.json of `matrix analyze`, or by number. Plain LoRA, the baseline, is
    `--sga 0 --spa 0 --no-id-map`. A run that was stopped or killed goes on when the same command is
    given again. Several processes: `accelerate launch -m matrix_video train ...`.
    """


def run(config: TrainConfig) -> int:
    from rich.console import Console

    from matrix_video.services.signals import EXIT_TERMINATED
    from matrix_video.training.run import train

    result = train(config)
    console = Console(stderr=True)
    if result.adapter is None:
        console.print(f"stopped after {result.steps} updates; run the same command to go on")
        return EXIT_TERMINATED
    console.print(f"adapter: {result.adapter}", highlight=False)
    if result.absorbed:
        console.print(
            "decoder absorbed: the alignment loss fell, but the layers' own attention did not "
            "improve on held-out samples; try a smaller decoder (--no-decoder) or larger --sga, "
            "--spa",
            style="yellow",
        )
    return 0
