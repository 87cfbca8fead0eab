"""The moving average of trained weights."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average, started at the weights as they are.

    Early on the decay is (1 + n) / (10 + n) where that is less, as diffusers' `EMAModel` does, so
    that the start does not linger.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.values: dict[str, Tensor] = {n: p.detach().clone() for n, p in parameters.items()}

    @contextmanager
    def lent(self, parameters: Mapping[str, nn.Parameter]) -> Generator[None]:
        """The averages in the parameters' place, which come back to the last bit."""
        own = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        _put(self.values, parameters)
        try:
            yield
        finally:
            _put(own, parameters)

    @torch.no_grad()
    def update(self, parameters: Mapping[str, nn.Parameter], step: int) -> None:
        """After update ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in parameters.items():
            self.values[name].lerp_(parameter.detach(), 1 - decay)


@torch.no_grad()
def _put(values: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])
