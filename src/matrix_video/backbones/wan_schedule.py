"""Wan's noise schedule, whole or one expert's part of it.

A timestep is 1000 σ; latents at noise σ are (1 - σ)·clean + σ·noise. Positions in [0, 1] are
spaced evenly before the shift a of the checkpoint, which makes them σ = a·p / (1 + (a - 1)·p).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from matrix_video.backbones.flow import middles
from matrix_video.services.errors import MatrixError

Expert = Literal["high", "low"]
"""Which transformer of Wan 2.2: the one for high or the one for low noise. Of a model with a single
transformer, that is ``high``."""


@dataclass(frozen=True)
class WanSchedule:
    """``boundary``: σ from which on the high-noise expert is used; None: a single transformer."""

    scheduler: Any
    expert: Expert
    boundary: float | None

    @property
    def shift(self) -> float:
        """a; `MatrixError` for a scheduler without a flow-matching schedule of static shift."""
        scheduler, config = self.scheduler, self.scheduler.config
        if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            usable = not (config.use_dynamic_shifting or config.invert_sigmas)
            shift = scheduler.shift
        else:
            usable = config.get("prediction_type") == "flow_prediction"
            usable = usable and config.get("use_flow_sigmas")
            usable = usable and not config.get("use_dynamic_shifting")
            shift = config.get("flow_shift")
        if not usable:
            raise MatrixError(
                f"{type(scheduler).__name__} as it is set up has no flow-matching schedule with a "
                "static shift, which Wan is trained on",
                remedy="use the checkpoint's own scheduler",
                field="scheduler",
            )
        return float(shift)

    @property
    def steps(self) -> int:
        """Timestep of pure noise."""
        return int(self.scheduler.config.num_train_timesteps)

    @property
    def part(self) -> tuple[float, float]:
        """First and last position of the expert."""
        boundary, shift = self.boundary or 0.0, self.shift
        edge = boundary / (shift - (shift - 1) * boundary)
        return (edge, 1.0) if self.expert == "high" else (0.0, edge)

    def sample(self, batch: int, generator: torch.Generator) -> Tensor:
        """Training timesteps float32 [B], on the CPU.

        Positions are logit-normal, as Wan was trained (Wan report, arXiv 2503.20314, section 4),
        confined to the expert's part; that the checkpoint's shift comes on top is our choice.
        """
        ends = torch.special.ndtr(torch.logit(torch.tensor(self.part, dtype=torch.float64)))
        share_B = torch.rand(batch, generator=generator, dtype=torch.float64)
        normal_B = torch.special.ndtri(ends[0] + (ends[1] - ends[0]) * share_B)
        return self._timesteps(torch.sigmoid(normal_B))

    def levels(self, count: int) -> Tensor:
        """Timesteps float32, at the middles of ``count`` equal parts of the expert's positions."""
        start, end = self.part
        return self._timesteps(start + (end - start) * middles(count, self.steps).double())

    def _timesteps(self, position: Tensor) -> Tensor:
        shift = self.shift
        return (self.steps * shift * position / (1 + (shift - 1) * position)).float()
