"""The judge's own tracks of generated videos, as a data set.

Analysis of generated videos needs masks of what was generated, not of what the prompt's own video
shows. Shapes: T frames, H rows, W columns, R instances.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.data.tracks import MaskTrack
from matrix_video.evaluation.oracle import first_masks
from matrix_video.evaluation.tracker import track
from matrix_video.services.progress import progress


def write_tracked(videos: Path, prompts: Path, out: Path) -> None:
    """Copy generated clips to ``out`` with the tracks that the judge follows.

    Instances are followed from the prompt set's first-frame masks. A frame in which an instance is
    hidden, out of frame or vanished is *absent*; an instance without a first-frame mask has no
    track. A killed run goes on where it stopped.
    """
    generated, asked = Dataset(videos), Dataset(prompts)
    rows = {sample.id: row for row, sample in enumerate(asked.samples)}
    with DatasetWriter(out) as writer, progress("track", len(generated)) as advance:
        for row, sample in enumerate(generated.samples):
            if not writer.has(sample.id):
                masks = first_masks(asked.tracks(rows[sample.id]), sample)
                tracks: dict[str, MaskTrack] = {}
                if masks:
                    frames_THWC = generated.video(row).frames_THWC
                    found = track(frames_THWC, list(masks.values())).tracks
                    tracks = {
                        name: MaskTrack.from_masks(np.asarray(one.seen_THW, dtype=bool))
                        for name, one in zip(masks, found, strict=True)
                    }
                writer.add_file(sample, generated.path / sample.file_name, tracks)
            advance(1)
