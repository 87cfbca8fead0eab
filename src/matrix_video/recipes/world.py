"""``matrix world``: render tiny-world data sets."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from matrix_video.world.splits import Split


class WorldCommand(BaseModel):
    """Render a tiny-world data set: lossless videos, captions with spans, exact mask tracks.

    The same seed gives the same clips on every machine; splits never share a scene, and the
    triples (verb, subject, object) of test-composition occur in no other split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    out: Path
    """Folder to write; a killed run goes on where it stopped."""
    clips: int = Field(default=100, ge=1)
    """Number of clips."""
    seed: int = Field(default=0, ge=0)
    """Seed of the data set."""
    split: Split = "train"
    """base: mostly vague captions, for pretraining. train: full captions. analysis, val, test-iid:
    other scenes of the same triples. test-composition: triples that no other split has."""


def run(config: WorldCommand) -> int:
    from matrix_video.services.console import make_console, say
    from matrix_video.services.progress import progress
    from matrix_video.world.write import write_split

    with progress(f"world {config.split}", config.clips) as advance:
        written = write_split(config.out, config.clips, config.seed, config.split, advance)
    beyond = written.all - config.clips
    more = f"; it keeps {beyond} more than were asked for" if beyond > 0 else ""
    line = (
        f"{config.out}: {written.new} clips written, {written.all - written.new} were there{more}"
    )
    say(make_console(), line)
    return 0
