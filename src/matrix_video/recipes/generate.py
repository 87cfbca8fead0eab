"""``matrix generate``: videos from a prompt set, with or without an adapter."""

from __future__ import annotations

from matrix_video.generation.config import GenerateConfig
from matrix_video.services.console import make_console, say


class GenerateCommand(GenerateConfig):
    """Generate a video for every sample of a prompt set.

    A prompt set is a data set: its captions, the first frames of its videos and, for adapters that
    were trained with an id map, the first-frame masks of its tracks (or found by the instances'
    phrases, see --masks). Each video's noise follows from the seed and the prompt's id alone, so
    runs with and without an adapter can be compared video by video. Writes a data set of lossless
    videos and generation.json.
    """


def run(config: GenerateConfig) -> int:
    from matrix_video.generation.find import ID_MAPS
    from matrix_video.generation.run import generate
    from matrix_video.services.run import RunFolder

    folder = generate(config)
    console = make_console()
    if config.finds:
        facts = RunFolder(config.out).facts("find")
        text = (
            f"masks of {facts['found']} of {facts['instances']} instances found, see "
            f"{config.out / ID_MAPS}"
        )
        say(console, text)
    say(console, f"videos in {folder}")
    return 0
