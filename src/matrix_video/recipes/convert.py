"""``matrix convert``: from and to the layout of the paper's authors, without loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from matrix_video.services.console import make_console, say


@dataclass(frozen=True)
class ConvertCommand:
    """Convert a data set between our layout and the authors'; the source is recognised.

    Both ways keep mask pixels, palettes, prompts, file names and video bytes exactly.
    """

    source: tyro.conf.Positional[Path]
    """Folder to read, in either layout."""
    target: tyro.conf.Positional[Path]
    """Folder to write; must not exist, or be empty. It appears when it is complete."""
    to: Literal["matrix", "authors"] | None = None
    """Layout of the target; None: the one that the source is not in."""


def run(config: ConvertCommand) -> int:
    from matrix_video.data.convert import convert

    summary = convert(config.source, config.target, config.to)
    lines = [
        f"{config.target}: {summary.clips} clips and {summary.masks} mask images, "
        f"layout {summary.to}",
        *(f"carried along: {name}" for name in summary.extra),
        *(f"note: {note}" for note in summary.notes),
    ]
    say(make_console(), "\n".join(lines))
    return 0
