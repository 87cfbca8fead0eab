"""SIGTERM and CTRL-C as a flag; a second CTRL-C is one."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from matrix_video.services.signals import stop_on_signals

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@BOTH
def test_the_first_signal_raises_the_flag_and_handlers_come_back(number: int) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked
        assert stop.interrupted == (number == signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) is before


@BOTH
def test_what_was_ignored_stays_so(number: int) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), number)
        assert not stop.asked
    finally:
        signal.signal(number, before)


def test_another_thread_has_no_flag() -> None:
    def asked() -> bool:
        with stop_on_signals() as stop:
            return stop.asked

    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(asked).result()
