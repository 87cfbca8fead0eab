"""Stopping in good order when the system asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

EXIT_TERMINATED: Final = 128 + signal.SIGTERM
"""Exit code of a process ended by SIGTERM: 143."""


class Stop:
    """Whether SIGTERM has arrived."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.asked = True


@contextmanager
def stop_on_sigterm() -> Generator[Stop]:
    """Within, SIGTERM sets the yielded flag instead of ending the process.

    Signals reach the main thread only; in another one the flag never rises.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
