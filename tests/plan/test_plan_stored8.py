"""An 8-bit base in a plan: what is stored, what is computed, and what a run of it takes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.backbones.wan import WanBackbone
from matrix_video.plan.measure import measured
from matrix_video.plan.predict import RUNTIME, Prediction
from matrix_video.plan.stored8 import Stored8, store8
from matrix_video.plan.work import ONCE, STEP

from .conftest import SIZE, question

Plan = Callable[..., Prediction]
WEIGHTS = "weights: transformer"


@pytest.mark.parametrize("bias", [True, False])
def test_it_computes_what_integers_and_scales_stand_for(bias: bool) -> None:
    torch.manual_seed(0)
    layer = Stored8(nn.Linear(6, 4, bias=bias))
    layer.weight.data = torch.randint(-127, 128, (4, 6), dtype=torch.int8)
    layer.get_buffer("scale").uniform_(0.1, 1)
    x = torch.randn(2, 3, 6, requires_grad=True)
    whole = layer.weight * layer.get_buffer("scale")
    expected = torch.nn.functional.linear(x, whole, layer.bias)
    assert torch.allclose(layer(x), expected, atol=1e-4)
    layer(x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, whole.sum(dim=0).expand_as(x), atol=1e-3)


def test_layers_that_stay_in_float32_are_left_alone() -> None:
    transformer = backbone_for(WanBackbone.tiny(WanBackbone.variants[0])).transformer
    before = {n for n, m in transformer.named_modules() if isinstance(m, nn.Linear)}
    store8(transformer)
    kept = {n for n, m in transformer.named_modules() if type(m) is nn.Linear}
    assert kept
    assert kept < before
    assert all("time_embedder" in name for name in kept)


def test_it_saves_weights_and_keeps_copies_where_blocks_are_not_recomputed(plan: Plan) -> None:
    whole, small = plan(batch=8), plan(batch=8, quantize="int8")
    assert small.parts[WEIGHTS] < 0.4 * whole.parts[WEIGHTS]
    # Float32 copies of attention's four 32 x 32 weights and of feed-forward's two of 32 x 128.
    copies = 4 * (4 * 32 * 32 + 2 * 32 * 128)
    assert small.layers[2].kept - whole.layers[2].kept == copies


@pytest.mark.real
@pytest.mark.parametrize("recompute", [False, True])
def test_a_run_takes_what_was_predicted(folder: Path, plan: Plan, recompute: bool) -> None:
    changes = {"batch": 4, "gradient_checkpointing": recompute, "quantize": "int8"}
    backbone = backbone_for(load_pipeline(str(folder), quantize="int8"))
    found = measured(question(folder, **changes), backbone, SIZE, encoded=True)
    phases = [p.peak for p in plan(**changes).phases if p.name in (ONCE, STEP)]
    assert max(phases) - RUNTIME == pytest.approx(found, rel=0.15)
