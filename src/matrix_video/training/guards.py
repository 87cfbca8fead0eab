"""What a loop watches for, so that hours are not spent on a run that trains nothing.

All of it is our choice: the paper does not say how a broken run is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from matrix_video.alignment.objectives import Term, require_gradient
from matrix_video.attention.tap import Captures
from matrix_video.services.errors import MatrixError
from matrix_video.training.step import Losses

PATIENCE: Final = (32, 1000)
"""Samples after which an alignment term must have found a map: all there are, within these bounds.
A caption may be dropped, and few clips may have an interaction."""
STILL: Final = 20
"""Updates over which no term may keep its value to the last bit."""


class Proof:
    """Each alignment term reaches attention: shown in the first forward pass that has a map."""

    def __init__(self, terms: Iterable[Term]) -> None:
        self.open: set[Term] = set(terms)

    def see(self, losses: Losses, calls: Captures) -> None:
        """`MatrixError` for a term of this pass that has no gradient. The graph is kept."""
        for term, alignment in losses.terms.items():
            if term in self.open and alignment.maps():
                require_gradient(alignment, calls)
                self.open.discard(term)

    def expect(self, seen: int, samples: int) -> None:
        """`MatrixError` for a term that none of the first ``seen`` samples at whose noise it acts
        has a map for, of ``samples`` in all."""
        least, most = PATIENCE
        if not self.open or seen < min(max(samples, least), most):
            return
        term = min(self.open)
        what = "a phrase with a mask" if term == "sga" else "an instance in its first frame"
        raise MatrixError(
            f"the {term.upper()} loss covers no token: none of the first {seen} samples has {what}",
            remedy=f"look at the data set with `matrix check`, or train with --{term} 0",
            field=term,
        )


class Stillness:
    """Each term moves: noise and samples change, so a constant is not a measurement."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, int]] = {}

    def see(self, values: Mapping[str, float]) -> None:
        """`MatrixError` for a loss that had one value in `STILL` updates; those whose samples had
        nothing for a term, which is 0 there, are passed over."""
        for name in ("diffusion", "sga", "spa"):
            if not values.get(name):
                continue
            value, count = self._last.get(name, (float("nan"), 0))
            count = count + 1 if values[name] == value else 1
            self._last[name] = values[name], count
            if count >= STILL:
                raise MatrixError(
                    f"the {name} loss is {values[name]:g} to the last bit for {STILL} updates",
                    remedy="look at the data set with `matrix check`: clips, captions or masks are "
                    "all alike or empty",
                    field="data",
                )
