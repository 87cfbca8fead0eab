"""Render a split to a data set folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matrix_video.data.dataset import DatasetWriter
from matrix_video.world.clips import make_clip
from matrix_video.world.palette import FPS
from matrix_video.world.splits import Split


def write_split(
    out: Path,
    clips: int,
    seed: int,
    split: Split,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Write clips 0 … ``clips`` − 1 of a split with lossless video and exact tracks.

    ``progress`` is called with the number of clips done. A killed run goes on where it stopped;
    clips that are already there are not rendered again.
    """
    with DatasetWriter(out) as writer:
        for index in range(clips):
            clip = make_clip(seed, split, index)
            writer.add(clip.sample, clip.frames_THWC, FPS, clip.tracks(), lossless=True)
            progress(index + 1)
