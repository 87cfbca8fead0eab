"""A small data set and the random tiny pipeline to measure it with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from matrix_video.backbones.base import Backbone
from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.dataset import DatasetWriter
from matrix_video.data.sample import Instance, Interaction, Sample, Span
from matrix_video.data.tracks import MaskTrack

FRAMES, SIDE = 9, 32
CAPTION = "the red ball pushes the blue ball while the box follows"


def make_sample(name: str) -> Sample:
    """Red ball pushes blue ball (same class), a box stands by."""

    def span(text: str) -> Span:
        start = CAPTION.index(text)
        return Span(start=start, end=start + len(text))

    def instance(id: str, noun: str, phrase: str) -> Instance:
        return Instance(id=id, noun=noun, phrase=phrase, mentions=(span(phrase),))

    return Sample(
        id=name,
        file_name=f"videos/{name}.mp4",
        caption=CAPTION,
        instances=(
            instance("id1", "ball", "red ball"),
            instance("id2", "ball", "blue ball"),
            instance("id3", "box", "box"),
        ),
        interactions=(
            Interaction(subject="id1", verb="push", object="id2", verb_span=span("pushes")),
        ),
    )


def make_clip(seed: int) -> tuple[np.ndarray, dict[str, MaskTrack]]:
    """Coloured squares that move: frames uint8 [T,H,W,3] and their masks.

    The blue ball is out of the frame in the last four frames.
    """
    random = np.random.default_rng(seed)
    frames = np.full((FRAMES, SIDE, SIDE, 3), 40, dtype=np.uint8)
    tracks: dict[str, MaskTrack] = {}
    colours = {"id1": (220, 40, 40), "id2": (40, 60, 220), "id3": (200, 200, 60)}
    for row, (name, colour) in enumerate(colours.items()):
        masks = np.zeros((FRAMES, SIDE, SIDE), dtype=bool)
        left = int(random.integers(0, 8))
        for t in range(FRAMES if name != "id2" else FRAMES - 4):
            masks[t, row * 10 + 1 : row * 10 + 9, left + t : left + t + 8] = True
        frames[masks] = colour
        tracks[name] = MaskTrack.from_masks(masks)
    return frames, tracks


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Data set of three clips: clip0, clip1, clip2."""
    folder = tmp_path / "data"
    with DatasetWriter(folder) as writer:
        for index in range(3):
            frames, tracks = make_clip(index)
            writer.add(make_sample(f"clip{index}"), frames, 8.0, tracks, lossless=True)
    return folder


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """Image-to-video, three layers, random weights."""
    return backbone_for(tiny_pipeline(layers=3))
