"""``matrix convert``: from and to the layout of the paper's authors, without loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from matrix_video.services.console import make_console, say
from matrix_video.services.errors import MatrixError


@dataclass(frozen=True)
class ConvertCommand:
    """Convert a data set between our layout and the authors', or make one of videos and masks.

    Both ways keep mask pictures, prompts, file names and videos exactly. A clip that cannot be
    converted is left out and told. Stopped? Give the same command again: it goes on.
    """

    source: tyro.conf.Positional[Path]
    """Folder to read: a data set in either layout, or videos with texts and masks."""
    target: tyro.conf.Positional[Path]
    """Folder to write; must not exist, or be empty. It is complete when its metadata is there."""
    to: Literal["matrix", "authors"] | None = None
    """Layout of the target; None: the one that the source is not in."""
    layout: Annotated[Literal["masks"] | None, tyro.conf.arg(name="from")] = None
    """Layout of the source; None: it is recognised. masks: for each a.mp4 an a.json with caption,
    instances and interactions, and masks in a/, a.npz, a.npy or a.masks.json."""
    stride: int | None = None
    """With masks: they were made for every so many frames of the video."""
    resize_masks: bool = False
    """With masks: stretch those of another size than the video's, by area."""


def run(config: ConvertCommand) -> int:
    from matrix_video.data.convert import LEFT_OUT, MaskOptions, convert

    masks = MaskOptions(config.stride, config.resize_masks)
    if config.layout is None and masks != MaskOptions():
        raise MatrixError(
            "--stride and --resize-masks fit masks of your own to their videos",
            remedy="Add --from masks, or leave them out",
        )
    masked = None if config.layout is None else masks
    summary = convert(config.source, config.target, config.to, masks=masked)
    lines = [
        f"{config.target}: {summary.clips} clips and {summary.masks} mask pictures",
        *_some("carried along: ", summary.extra),
        *_some("note: ", summary.notes),
        *_some("left out: ", [f"{name}: {reason}" for name, reason in summary.left_out]),
    ]
    if summary.left_out:
        lines.append(
            f"{len(summary.left_out)} clips were left out, see {config.target / LEFT_OUT}. Mend "
            "them and give the same command again to add them."
        )
    say(make_console(), "\n".join(lines))
    return 0


def _some(start: str, told: Sequence[str], most: int = 20) -> list[str]:
    more = [f"{start}{len(told) - most} more"] if len(told) > most else []
    return [start + one for one in told[:most]] + more
