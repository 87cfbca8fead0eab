"""A random tiny pipeline and a data set of its size: two squares, one pushes the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.data.sample import Instance, Interaction, Sample, Span
from matrix_video.data.tracks import MaskTrack
from matrix_video.training.config import TrainConfig
from matrix_video.training.encode import Encoded, encode_clip

SIZE, TIMES = 32, 9
CAPTION = "the red ball pushes the blue box"


def span(text: str, caption: str = CAPTION) -> Span:
    start = caption.index(text)
    return Span(start=start, end=start + len(text))


def make_sample(index: int) -> Sample:
    return Sample(
        id=f"{index:04d}",
        file_name=f"videos/{index:04d}.mp4",
        caption=CAPTION,
        instances=(
            Instance(
                id="id1",
                noun="ball",
                phrase="red ball",
                mentions=(span("red ball"),),
                noun_spans=(span("ball"),),
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


def make_clip(index: int) -> tuple[np.ndarray, dict[str, MaskTrack]]:
    """A red square walks right towards a blue one; rows depend on the index."""
    frames = np.zeros((TIMES, SIZE, SIZE, 3), np.uint8)
    masks = np.zeros((2, TIMES, SIZE, SIZE), bool)
    top = 2 + 5 * index % 16
    for t in range(TIMES):
        masks[0, t, top : top + 9, 2 * t : 2 * t + 9] = True
        masks[1, t, top : top + 9, 22:31] = True
        frames[t, masks[0, t]] = (255, 0, 0)
        frames[t, masks[1, t]] = (0, 0, 255)
    if index == 3:  # one clip whose subject is hidden at first: SPA skips it
        masks[0, 0] = False
        frames[0] = 0
        frames[0, masks[1, 0]] = (0, 0, 255)
    tracks = {f"id{i + 1}": MaskTrack.from_masks(masks[i]) for i in range(2)}
    return frames, tracks


def write_data(path: Path, count: int, first: int = 0) -> Path:
    with DatasetWriter(path) as writer:
        for index in range(first, first + count):
            frames, tracks = make_clip(index)
            writer.add(make_sample(index), frames, 8.0, tracks, lossless=True)
    return path


@pytest.fixture(scope="session")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("train") / "data", 5)


@pytest.fixture
def pipe() -> Any:
    """Fresh for every test: runs attach to it and leave it frozen."""
    return tiny_pipeline(0)


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`pipe` on disk."""
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline(0).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def encoded(data_path: Path) -> list[Encoded]:
    backbone = backbone_for(tiny_pipeline(0))
    data = Dataset(data_path)
    return [encode_clip(backbone, data[i], mentions="full", up=2) for i in range(3)]


@pytest.fixture
def config(data_path: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """A short run on the tiny data; keyword arguments change it."""

    def make(**changes: Any) -> TrainConfig:
        chosen: dict[str, Any] = {
            "data": data_path,
            "out": tmp_path / "run",
            "v2t": (0, 1),
            "v2v": (1,),
            "steps": 4,
            "batch": 2,
            "lr": 1e-3,
            "warmup": 2,
            "lora_rank": 2,
            "lora_alpha": 4,
            "sga": 0.1,
            "spa": 0.05,
            "heldout_samples": 1,
            "heldout_levels": 2,
            "heldout_every": 2,
            "checkpoint_every": 2,
        }
        return TrainConfig(**(chosen | changes))

    return make
