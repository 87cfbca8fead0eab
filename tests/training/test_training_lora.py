"""LoRA on the chosen layers, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.services.errors import MatrixError
from matrix_video.training.lora import add_lora, remove_lora


def attach(pipe: Any, layers: list[int], seed: int = 0, alpha: float = 6) -> dict[str, Any]:
    backbone = backbone_for(pipe)
    names = [backbone.layer_names()[i] for i in layers]
    targets = backbone.lora_targets(layers)
    return add_lora(pipe.transformer, targets, names, rank=3, alpha=alpha, seed=seed)


def test_only_the_chosen_layers_train() -> None:
    pipe = tiny_pipeline(0, layers=4)
    parameters = attach(pipe, [1, 3])
    trainable = {n for n, p in pipe.transformer.named_parameters() if p.requires_grad}
    assert trainable == set(parameters)
    blocks = {name.split(".attn1.")[0] for name in parameters}
    assert blocks == {"transformer_blocks.1", "transformer_blocks.3"}
    assert len(parameters) == 2 * 4 * 2
    assert all(p.dtype == torch.float32 for p in parameters.values())
    layer = pipe.transformer.get_submodule("transformer_blocks.3.attn1.to_k")
    assert layer.scaling["default"] == 2.0


def test_the_start_is_the_base_and_follows_the_seed() -> None:
    state = torch.random.get_rng_state()
    first, second, third = (attach(tiny_pipeline(0), [0], seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in first.items():
        assert torch.equal(value, second[name])
        if ".lora_B." in name:
            assert not value.any()
        else:
            assert not torch.equal(value, third[name])


def test_removed_it_leaves_the_stock_model() -> None:
    pipe = tiny_pipeline(0)
    keys = list(pipe.transformer.state_dict())
    attach(pipe, [0, 1])
    remove_lora(pipe.transformer)
    assert list(pipe.transformer.state_dict()) == keys
    attach(pipe, [0])  # and can be put on again


def test_a_target_that_matches_nothing() -> None:
    pipe = tiny_pipeline(0)
    with pytest.raises(MatrixError, match=r"matches no linear layer in transformer_blocks\.5"):
        add_lora(
            pipe.transformer, r"transformer_blocks\.0\.attn1\.to_q", ["transformer_blocks.5.attn1"],
            rank=1, alpha=1, seed=0,
        )  # fmt: skip
    assert not any(".lora_" in name for name, _ in pipe.transformer.named_parameters())


def test_a_target_outside_the_chosen_layers() -> None:
    pipe = tiny_pipeline(0)
    targets = r"transformer_blocks\.0\.attn1\.to_q|proj_out"
    with pytest.raises(MatrixError, match=r"also matches proj_out, which is in none of the chosen"):
        add_lora(pipe.transformer, targets, ["transformer_blocks.0"], rank=1, alpha=1, seed=0)
    assert not any(".lora_" in name for name, _ in pipe.transformer.named_parameters())


def test_a_model_without_adapters() -> None:
    with pytest.raises(MatrixError, match="Linear does not take LoRA"):
        add_lora(nn.Linear(2, 2), "x", [], rank=1, alpha=1, seed=0)


def test_lora_upon_lora() -> None:
    pipe = tiny_pipeline(0)
    attach(pipe, [0])
    with pytest.raises(MatrixError, match="already carries LoRA"):
        attach(pipe, [1])
