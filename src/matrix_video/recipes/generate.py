"""``matrix generate``: videos from a prompt set, with or without an adapter."""

from __future__ import annotations

from rich.console import Console

from matrix_video.generation.config import GenerateConfig


class GenerateCommand(GenerateConfig):
    """Generate a video for every sample of a prompt set.

    A prompt set is a data set: its captions, the first frames of its videos and, for adapters that
    were trained with an id map, the first-frame masks of its tracks. Each video's noise follows
    from the seed and the prompt's id alone, so runs with and without an adapter can be compared
    video by video. Writes a data set of lossless videos and generation.json.
    """


def run(config: GenerateConfig) -> int:
    from matrix_video.generation.run import generate

    folder = generate(config)
    Console().print(f"videos in {folder}", markup=False, highlight=False, soft_wrap=True)
    return 0
