"""Machines: of the table, and this one."""

import pytest
import torch

from matrix_video.plan.machine import machine
from matrix_video.services.errors import MatrixError


def test_a_card_runs_at_a_share_of_its_peak_and_says_so() -> None:
    found = machine("h100", utilisation=0.5, tflops=None)
    assert found.rates["matmul", torch.bfloat16] == pytest.approx(989e12 / 2)
    assert found.gpu
    assert "50% of its peak of 989 TFLOP/s" in found.assumption


def test_this_machine_is_measured() -> None:
    found = machine("this", utilisation=0.4, tflops=None)
    assert found.assumption.startswith("measured just now")
    assert all(1e8 < rate < 1e16 for rate in found.rates.values())
    assert found.memory > 1e9


def test_a_given_rate_is_taken() -> None:
    found = machine("a100", utilisation=0.4, tflops=3)
    assert set(found.rates.values()) == {3e12}
    assert found.assumption.startswith("3 TFLOP/s as given")


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(MatrixError, match=r"device: nothing is known about a device 'z80'.*h100"):
        machine("z80", utilisation=0.4, tflops=None)
