"""Linear scales and round ticks for the charts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Scale:
    """Maps data in [low, high] linearly to pixels; ``start`` is where ``low`` lies."""

    low: float
    high: float
    start: float
    end: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"scale over [{self.low}, {self.high}]")

    def __call__(self, value: float) -> float:
        # Clamped: rounding must not push the ends of the data out of the plot.
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return self.start + share * (self.end - self.start)

    @classmethod
    def over(
        cls, values: Iterable[float], start: float, end: float, *, include: Iterable[float] = ()
    ) -> Self:
        """Round limits that hold all values and those to ``include``; not empty even for one."""
        found = [*values, *include]
        low, high = min(found, default=0.0), max(found, default=1.0)
        if high - low <= 1e-9 * max(1.0, abs(low), abs(high)):
            reach = max(abs(low) * 0.1, 1e-3)
            low, high = low - reach, high + reach
        step = nice_step(low, high, 4)
        return cls(
            math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, start, end
        )


def nice_step(low: float, high: float, count: int) -> float:
    """1, 2 or 5 times a power of ten, so that about ``count`` steps span the range."""
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    return next((m * power for m in (1, 2, 5) if m * power >= raw * (1 - 1e-9)), 10 * power)


def ticks(scale: Scale, count: int = 4) -> tuple[tuple[float, ...], float]:
    """Round values inside the scale, ascending, and their step."""
    step = nice_step(scale.low, scale.high, count)
    first, last = math.ceil(scale.low / step - 1e-6), math.floor(scale.high / step + 1e-6)
    return tuple(i * step for i in range(first, last + 1)), step
