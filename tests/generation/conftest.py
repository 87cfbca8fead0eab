"""A prompt set, the random tiny pipeline, and an adapter whose effect can be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig

from matrix_video.backbones.adapter import save_adapter
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.condition import Condition
from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.dataset import DatasetWriter
from matrix_video.data.sample import Instance, Sample
from matrix_video.data.tracks import MaskTrack

FRAMES, SIDE = 9, 32
CAPTIONS = (
    "the red ball pushes the blue ball",
    "the cat chases the dog",
    "a man hands the cup to a woman and follows the dog to the box",
    "the box",
)


def make_clip(seed: int) -> tuple[np.ndarray, dict[str, MaskTrack]]:
    """A frame of noise with two squares: frames uint8 [T,H,W,3] and the squares' tracks."""
    random = np.random.default_rng(seed)
    frames = random.integers(0, 256, size=(FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    tracks: dict[str, MaskTrack] = {}
    for row, name in enumerate(("id1", "id2")):
        masks = np.zeros((FRAMES, SIDE, SIDE), dtype=bool)
        masks[:, row * 16 : row * 16 + 12, 2 * seed : 2 * seed + 12] = True
        tracks[name] = MaskTrack.from_masks(masks)
    return frames, tracks


def write_prompts(folder: Path, count: int = 4) -> Path:
    with DatasetWriter(folder) as writer:
        for index in range(count):
            frames, tracks = make_clip(index)
            sample = Sample(
                id=f"p{index}",
                file_name=f"videos/p{index}.mp4",
                caption=CAPTIONS[index % len(CAPTIONS)],
                instances=tuple(Instance(id=i, noun="ball", phrase="ball") for i in tracks),
                scene=f"scene{index}",
            )
            writer.add(sample, frames, 8.0, tracks, lossless=True)
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_prompts(tmp_path / "prompts")


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return backbone_for(tiny_pipeline(layers=2))


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA on layer 1 and an id-map projection, both of random weights."""
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    other: Any = backbone_for(tiny_pipeline(layers=2))
    config = LoraConfig(
        r=4, lora_alpha=4, target_modules=other.lora_targets([1]), init_lora_weights=False
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        other.transformer.add_adapter(config)
        condition = Condition(
            other.transformer, other.condition_site(), other.latent_channels, (1, 2, 2)
        )
        torch.nn.init.normal_(condition.projection.conv.weight, std=0.5)
    save_adapter(folder, other.transformer, condition=condition)
    return folder
