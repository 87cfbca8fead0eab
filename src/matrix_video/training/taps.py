"""The tap of a run: sites change with the clips' shape, and one tap at a time is open."""

from __future__ import annotations

from contextlib import ExitStack

from torch import nn

from matrix_video.attention.tap import Captures, tap
from matrix_video.training.student import View


class Taps:
    """Captures of any view's sites: one tap at a time is open, and changed when the view is."""

    def __init__(self, transformer: nn.Module) -> None:
        self._transformer = transformer
        self._stack = ExitStack()
        self._current: tuple[View, Captures] | None = None

    def __call__(self, view: View) -> Captures:
        if self._current is None or self._current[0].sites != view.sites:
            self.release()
            captures = self._stack.enter_context(tap(self._transformer, view.sites))
            self._current = view, captures
        return self._current[1]

    def release(self) -> None:
        """Leave the transformer untapped until it is asked for again."""
        self._stack.close()
        self._current = None
