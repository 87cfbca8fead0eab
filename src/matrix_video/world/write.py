"""Render a split to a data set folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from matrix_video.data.dataset import DatasetWriter
from matrix_video.services.errors import MatrixError
from matrix_video.world.clips import clip_id, make_clip
from matrix_video.world.palette import FPS
from matrix_video.world.splits import Split


class Written(NamedTuple):
    """How many clips are new, and how many the data set has."""

    new: int
    all: int


def write_split(
    out: Path,
    clips: int,
    seed: int,
    split: Split,
    progress: Callable[[int], None] = lambda _: None,
) -> Written:
    """Write clips 0 … ``clips`` − 1 of a split with lossless video and exact tracks.

    ``progress`` is called with 1 after each clip. A killed run goes on where it stopped; clips that
    are there already are kept, also those beyond ``clips``.
    """
    with DatasetWriter(out) as writer:
        before = len(writer)
        if len(writer) and not writer.has(clip_id(seed, split, 0)):
            raise MatrixError(
                f"the folder holds another data set than split {split!r} of seed {seed}",
                remedy="Choose another output folder",
                file=out,
            )
        for index in range(clips):
            if writer.has(clip_id(seed, split, index)):
                progress(1)
                continue
            clip = make_clip(seed, split, index)
            writer.add(clip.sample, clip.frames_THWC, FPS, clip.tracks(), lossless=True)
            progress(1)
        return Written(len(writer) - before, len(writer))
