"""``matrix convert``: from and to the layout of the paper's authors, without loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console


@dataclass(frozen=True)
class ConvertCommand:
    """Convert a data set between our layout and the authors'; the source is recognised.

    Both ways keep mask pixels, palettes, prompts, file names and video bytes exactly.
    """

    source: tyro.conf.Positional[Path]
    """Folder to read, in either layout."""
    target: tyro.conf.Positional[Path]
    """Folder to write; must not exist, or be empty."""
    to: Literal["matrix", "authors"] = "matrix"
    """Layout of the target."""


def run(config: ConvertCommand) -> int:
    from matrix_video.data.convert import convert

    summary = convert(config.source, config.target, config.to)
    Console().print(str(summary), markup=False, highlight=False, soft_wrap=True)
    return 0
