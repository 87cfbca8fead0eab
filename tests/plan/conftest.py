"""Machines, a tiny model on disk, and plans for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.plan.config import PlanConfig
from matrix_video.plan.machine import Machine, machine
from matrix_video.plan.predict import Planner, Prediction

SIZE = (9, 32, 32)
LAYERS = 5


@pytest.fixture(scope="session")
def here() -> Machine:
    return machine("this", utilisation=0.4, tflops=1.0)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image-to-video pipeline deep enough to be shortened: of layers 1 to 4 three are run."""
    path = tmp_path_factory.mktemp("models") / "deep"
    tiny_pipeline(0, layers=LAYERS).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def planner(here: Machine) -> Planner:
    return Planner(here)


@pytest.fixture(scope="session")
def plan(planner: Planner, folder: Path) -> Callable[..., Prediction]:
    """A plan for the deep pipeline; keyword arguments change the question."""
    known: dict[str, Prediction] = {}

    def make(**changes: Any) -> Prediction:
        config = question(folder, **changes)
        key = config.model_dump_json()
        if key not in known:
            known[key] = planner.predict(config)
        return known[key]

    return make


def question(folder: Path, **changes: Any) -> PlanConfig:
    frames, height, width = SIZE
    size = {"num_frames": frames, "height": height, "width": width}
    return PlanConfig(**{"model": str(folder), "batch": 2, "v2t": (0,), **size, **changes})
