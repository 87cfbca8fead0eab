"""Samples and clips for the tests of the data room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
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


@pytest.fixture
def smooth() -> Callable[..., np.ndarray]:
    """Frames of which no two are alike, nor any two corners of one; blue tells their order."""

    def make(count: int, height: int = 48, width: int = 64) -> np.ndarray:
        shown_THWC = np.zeros((count, height, width, 3), np.uint8)
        shown_THWC[..., 0] = np.linspace(0, 200, width)
        shown_THWC[..., 1] = np.linspace(255, 30, height)[:, None]
        shown_THWC[..., 2] = (20 * np.arange(count) % 256)[:, None, None]
        return shown_THWC

    return make


@pytest.fixture
def remux() -> Callable[..., Path]:
    """Copy the packets of one file into another container, with its header first."""

    def copy(
        source: Path, target: Path, matrix: tuple[int, ...] | None = None, early: float = 0
    ) -> Path:
        """``matrix``: how it is to be shown; ``early``: seconds by which all is shown earlier."""
        options = {"movflags": "faststart"} if target.suffix == ".mp4" else {}
        with av.open(source) as old, av.open(target, "w", options=options) as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            if matrix is not None:
                a, b, c, d = matrix
                stream.set_display_matrix((a, b, 0, c, d, 0, 0, 0, 1 << 30))
            for packet in old.demux(video=0):
                if packet.dts is not None and packet.pts is not None:
                    shift = round(early / packet.time_base)
                    packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                    packet.stream = stream
                    new.mux(packet)
        return target

    return copy
