"""A frozen base in 8 bit: what is stored, what trains, and what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from matrix_video.backbones import quantize
from matrix_video.backbones.adapter import load_adapter
from matrix_video.backbones.fingerprint import fingerprint
from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.services.errors import MatrixError
from matrix_video.training.config import TrainConfig
from matrix_video.training.run import train
from matrix_video.training.student import Layers, make_student

Make = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("models") / "i2v"
    tiny_pipeline(0).save_pretrained(path)
    return str(path)


def _linear(pipe: Any) -> dict[str, nn.Linear]:
    return {n: m for n, m in pipe.transformer.named_modules() if isinstance(m, nn.Linear)}


def _stored(weight: torch.Tensor) -> int:
    """Bytes of the tensors that a weight is made of."""
    names, _ = weight.__tensor_flatten__()  # type: ignore[attr-defined]
    return sum(getattr(weight, name).nbytes for name in names)


def test_a_missing_package_is_named(
    config: Make, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr(quantize, "find_spec", lambda _: None)
    problem = r"quantize: a quantised base needs torchao.*pip install 'matrix-video\[quantize\]'"
    with pytest.raises(MatrixError, match=problem):
        train(config(model=model, quantize="int8"))


def test_a_split_base_is_not_quantised(config: Make, model: str) -> None:
    with pytest.raises(MatrixError, match="quantize: a quantised base trains in one process"):
        train(config(model=model, quantize="int8", shard=True))


@pytest.mark.real
def test_linear_layers_of_the_transformer_are_integers(model: str) -> None:
    plain, small = load_pipeline(model), load_pipeline(model, quantize="int8")
    full = _linear(plain)
    for name, layer in _linear(small).items():
        assert type(layer.weight).__name__ == "Int8Tensor"
        # An integer an element, and a float32 scale and an integer for each row.
        assert _stored(layer.weight) == full[name].weight.numel() + 5 * layer.out_features
    others: Any = small
    assert {p.dtype for p in others.text_encoder.parameters()} == {torch.float32}
    assert type(next(others.vae.parameters())) is nn.Parameter


@pytest.mark.real
def test_they_follow_autocast_as_plain_ones_do(model: str) -> None:
    small: Any = load_pipeline(model, quantize="int8")
    layer = small.transformer.transformer_blocks[0].attn1.to_q
    x = torch.randn(2, 3, layer.in_features)
    assert layer(x).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


@pytest.mark.real
def test_only_the_weights_of_its_fingerprint_are_unknown(model: str) -> None:
    plain = fingerprint(backbone_for(load_pipeline(model)).transformer)
    small = fingerprint(backbone_for(load_pipeline(model, quantize="int8")).transformer)
    assert small == plain.model_copy(update={"weights": ""})
    assert not small.other_weights(plain)


@pytest.mark.real
@pytest.mark.parametrize("recompute", [False, True])
def test_lora_gets_gradients_through_integers(config: Make, model: str, recompute: bool) -> None:
    backbone = backbone_for(load_pipeline(model, quantize="int8"))
    own = config(gradient_checkpointing=recompute)
    student = make_student(backbone, own, Layers((0,), (0,)), (9, 32, 32))
    text = backbone.encode_text(["the red ball"])
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(1, *backbone.latent_shape(9, 32, 32), generator=generator)
    out = backbone.predict(noisy, torch.tensor([500]), text, torch.zeros_like(noisy))
    out.square().mean().backward()
    moved = {n for n, p in student.lora.items() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == {name for name in student.lora if ".lora_B." in name}  # A has, once B moved


@pytest.mark.real
def test_an_adapter_trained_on_it_is_one_for_the_plain_base(
    config: Make, model: str, tmp_path: Path
) -> None:
    own = config(model=model, quantize="int8", steps=2, gradient_checkpointing=True)
    result = train(own)
    assert result.adapter is not None
    plain: Any = load_pipeline(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_adapter(plain, result.adapter)
    found = dict(plain.transformer.named_parameters())
    learned = [p for name, p in found.items() if ".lora_B." in name]
    assert learned
    assert all(p.abs().sum() > 0 for p in learned)
