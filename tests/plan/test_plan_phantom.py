"""Running code on tensors without memory."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from matrix_video.plan.machine import Machine
from matrix_video.plan.measure import allocated
from matrix_video.plan.meter import Meter
from matrix_video.plan.phantom import Phantom

CPU = torch.device("cpu")


@pytest.fixture
def phantom(here: Machine) -> Phantom:
    found = Phantom(Meter(here), flash=True)
    found.meter.mark("all")
    return found


def test_nothing_is_computed_and_all_is_counted(phantom: Phantom) -> None:
    big = phantom.fake(torch.empty(1 << 20, 1 << 20, device="meta"))
    with phantom:
        out = big @ big[:, :8]
        del big
    (all_,) = phantom.meter.take()
    assert out.shape == (1 << 20, 8)
    assert all_.grew == out.nbytes
    assert all_.flops == 2 * 8 * (1 << 40)


def test_control_flow_goes_by_real_values(phantom: Phantom) -> None:
    x = phantom.fake(torch.zeros(4, 6))
    with phantom:
        kept = torch.tensor([True, False, True, True])
        if int(kept.sum()) == 3:
            out = x[kept]
        assert not bool((x > 1).any())  # a fake says 0
    assert out.shape == (3, 6)


def test_a_training_step_peaks_as_the_profiler_says(phantom: Phantom) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))

    model, x = make(), torch.zeros(512, 64)
    real = allocated(lambda: model(x).square().mean().backward(), CPU)
    other = make()
    phantom.adopt(other)
    fake = phantom.fake(x)
    phantom.meter.saw(fake)
    phantom.meter.take()
    phantom.meter.mark("step")
    with phantom:
        other(fake).square().mean().backward()
    (step,) = phantom.meter.take()
    assert step.peak == pytest.approx(real, rel=0.01)


def test_a_convolution_that_unfolds_its_input_says_so(phantom: Phantom) -> None:
    x, weight = torch.zeros(1, 8, 6, 32, 32), torch.zeros(8, 8, 3, 3, 3)
    real = allocated(lambda: F.conv3d(x, weight, padding=1), CPU)
    fakes = phantom.fake(x), phantom.fake(weight)
    for fake in fakes:
        phantom.meter.saw(fake)
    phantom.meter.take()
    phantom.meter.mark("conv")
    with phantom:
        F.conv3d(*fakes, padding=1)
    (conv,) = phantom.meter.take()
    assert conv.peak == pytest.approx(real, rel=0.01)


def test_tied_parameters_stay_tied(phantom: Phantom) -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    model["b"].weight = model["a"].weight
    phantom.adopt(model)
    assert model["b"].weight is model["a"].weight
    assert phantom.meter.live == (16 + 4 + 4) * 4


def test_a_part_of_a_large_real_tensor_is_real(phantom: Phantom) -> None:
    frames = torch.arange(6_000_000).view(6, 1000, 1000)
    with phantom:
        first = frames[:1] + 1
        assert int(first[0, 0, 5]) == 6
        assert int((frames + 1)[0, 0, 5]) == 0  # of the whole it would be a copy: a fake
