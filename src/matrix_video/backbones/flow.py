"""Flow matching: what the families trained on it have in common.

Latents at noise σ are (1 - σ)·clean + σ·noise.

Shapes: B batch.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from matrix_video.services.errors import MatrixError


def check_scheduler(scheduler: Any, family: str, *, inverted: bool) -> None:
    """`MatrixError` unless the scheduler is Euler's of flow matching.

    ``inverted``: whether the family's timesteps count from noise to clean (``invert_sigmas``).
    """
    euler = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    config: Any = scheduler.config
    if not euler or bool(config.invert_sigmas) != inverted:
        raise MatrixError(
            f"{type(scheduler).__name__} as it is set up is not the flow-matching schedule that "
            f"{family} was trained with",
            remedy="use the checkpoint's own scheduler",
            field="scheduler",
        )


def middles(count: int, steps: int) -> Tensor:
    """Middles of ``count`` equal parts of [0, 1], ascending, float32.

    `MatrixError` for a count that is not between 1 and the ``steps`` of the schedule.
    """
    if not 1 <= count <= steps:
        raise MatrixError(
            f"{count} noise levels of a schedule with {steps} steps",
            remedy=f"choose 1 to {steps}",
            field="levels",
        )
    return (torch.arange(count) + 0.5) / count


def noised(latents: Tensor, noise: Tensor, sigma_B: Tensor) -> Tensor:
    """Latents [B,...] at noise σ; computed in float32, in the dtype of ``latents``."""
    sigma = sigma_B.to(latents.device, torch.float32).view(-1, *(1,) * (latents.ndim - 1))
    return ((1 - sigma) * latents.float() + sigma * noise.float()).to(latents.dtype)
