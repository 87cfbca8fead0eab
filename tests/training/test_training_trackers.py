"""The lines of metrics.jsonl in a tracker, through accelerate."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest

from matrix_video.services.errors import MatrixError
from matrix_video.training.config import TrainConfig
from matrix_video.training.run import train

Make = Callable[..., TrainConfig]


def test_a_tracker_that_is_not_installed_is_named(
    pipe: Any, config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(MatrixError, match=r"tracker: wandb is not installed.*\[tracking\]"):
        train(config(tracker="wandb"), pipe)


@pytest.mark.real
@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)
def test_tensorboard_gets_every_line(pipe: Any, config: Make) -> None:
    settings = config(tracker="tensorboard", steps=3)
    train(settings, pipe)
    module = "tensorboard.backend.event_processing.event_accumulator"
    events = importlib.import_module(module).EventAccumulator(str(settings.out / "matrix"))
    events.Reload()
    assert {"loss", "sga", "aas/1/v2v", "heldout_aas/1/v2v"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
