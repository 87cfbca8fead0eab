"""Samples and clips for the tests of the data room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from matrix_video.data.dataset import DatasetWriter
from matrix_video.data.sample import Instance, Interaction, Sample, Span
from matrix_video.data.tracks import MaskTrack

CAPTION = "the small red ball pushes the blue box, and the red ball stops"


def span(text: str, nth: int = 0, caption: str = CAPTION) -> Span:
    start = -1
    for _ in range(nth + 1):
        start = caption.index(text, start + 1)
    return Span(start=start, end=start + len(text))


def push_sample(id: str = "0001") -> Sample:
    return Sample(
        id=id,
        file_name=f"videos/{id}.mp4",
        caption=CAPTION,
        instances=(
            Instance(
                id="id1",
                noun="ball",
                phrase="small red ball",
                mentions=(span("small red ball"), span("red ball", 1)),
                noun_spans=(span("ball"), span("ball", 1)),
            ),
            Instance(
                id="id2",
                noun="box",
                phrase="blue box",
                mentions=(span("blue box"),),
                noun_spans=(span("box"),),
            ),
        ),
        interactions=(
            Interaction(subject="id1", verb="push", object="id2", verb_span=span("pushes")),
        ),
    )


@pytest.fixture
def sample() -> Sample:
    return push_sample()


@pytest.fixture
def frames_THWC() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 8, 10, 3), dtype=np.uint8)


@pytest.fixture
def tracks() -> dict[str, MaskTrack]:
    masks_RTHW = np.zeros((2, 5, 8, 10), dtype=bool)
    masks_RTHW[0, :, 1:4, 2:5] = True
    masks_RTHW[1, 1:, 5:7, 6:9] = True  # absent in frame 0
    return {
        "id1": MaskTrack.from_masks(masks_RTHW[0], unknown=[4]),
        "id2": MaskTrack.from_masks(masks_RTHW[1]),
    }


@pytest.fixture
def make_sample() -> Callable[[str], Sample]:
    return push_sample


@pytest.fixture
def dataset_path(tmp_path: Path, frames_THWC: np.ndarray, tracks: dict[str, MaskTrack]) -> Path:
    """A data set of three clips at 8 fps, 5 frames of 8x10."""
    path = tmp_path / "dataset"
    with DatasetWriter(path) as writer:
        for name in ("0001", "0002", "0003"):
            writer.add(push_sample(name), frames_THWC, 8.0, tracks, lossless=True)
    return path
