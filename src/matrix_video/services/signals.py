"""Stopping in good order when the user or the system asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Final

EXIT_TERMINATED: Final = 128 + signal.SIGTERM
"""Exit code of a process ended by SIGTERM: 143."""


class Stop:
    """Which of SIGTERM and SIGINT has arrived first."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def asked(self) -> bool:
        return self.signal is not None

    @property
    def interrupted(self) -> bool:
        """Whether it was the user's CTRL-C."""
        return self.signal == signal.SIGINT

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt  # the user cannot wait
        self.signal = self.signal or number


@contextmanager
def stop_on_signals() -> Generator[Stop]:
    """Within, SIGTERM and CTRL-C raise the yielded flag instead of ending the process; a CTRL-C
    after that ends it. One that the process ignored before, as background jobs do, stays ignored.

    Signals reach the main thread only; in another one the flag never rises.
    """
    stop = Stop()
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                before = signal.getsignal(number)
                if before is not signal.SIG_IGN:
                    signal.signal(number, stop)
                    stack.callback(signal.signal, number, before)
        yield stop
