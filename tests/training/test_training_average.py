"""The moving average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from matrix_video.training.average import Average


def test_lent_averages_give_the_weights_back_to_the_last_bit() -> None:
    own = torch.tensor([0.1, 1 / 3, 1e-30])
    parameters = {"w": nn.Parameter(own.clone())}
    average = Average(parameters, 0.5)
    average.values["w"].fill_(2.0)
    with pytest.raises(RuntimeError, match="within"), average.lent(parameters):
        assert parameters["w"].tolist() == [2.0] * 3
        raise RuntimeError("within")
    assert torch.equal(parameters["w"], own)
    assert average.values["w"].tolist() == [2.0] * 3


def test_it_starts_at_the_weights_and_follows_them() -> None:
    parameters = {"w": nn.Parameter(torch.zeros(3))}
    average = Average(parameters, 0.5)
    assert average.values["w"] is not parameters["w"]
    with torch.no_grad():
        parameters["w"].fill_(1.0)
    average.update(parameters, step=0)  # decay 1/10: the start does not linger
    torch.testing.assert_close(average.values["w"], torch.full((3,), 0.9))
    average.update(parameters, step=100)  # decay 1/2
    torch.testing.assert_close(average.values["w"], torch.full((3,), 0.95))
    assert not average.values["w"].requires_grad
