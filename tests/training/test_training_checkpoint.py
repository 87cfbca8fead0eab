"""Checkpoints restore every bit, or say why not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from matrix_video.services.errors import MatrixError
from matrix_video.training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint


def model(seed: int) -> tuple[dict[str, nn.Parameter], torch.optim.AdamW]:
    generator = torch.Generator().manual_seed(seed)
    parameters = {
        "a.weight": nn.Parameter(torch.randn(3, 2, generator=generator)),
        "b": nn.Parameter(torch.randn(4, generator=generator)),
    }
    return parameters, torch.optim.AdamW(parameters.values(), lr=0.1)


def step(
    parameters: dict[str, nn.Parameter], optimizer: torch.optim.AdamW, number: int = 0
) -> None:
    optimizer.zero_grad()
    noise = torch.randn(4, generator=torch.Generator().manual_seed(number))
    loss = (parameters["a.weight"] ** 3).sum() + (parameters["b"] * noise).sin().sum()
    loss.backward()
    optimizer.step()


def test_resumed_training_is_bit_identical(tmp_path: Path) -> None:
    parameters, optimizer = model(0)
    for number in range(3):
        step(parameters, optimizer, number)
    file = save_checkpoint(tmp_path, 3, parameters, optimizer)
    for number in range(3, 6):
        step(parameters, optimizer, number)
    others, other_optimizer = model(1)
    assert load_checkpoint(file, others, other_optimizer) == 3
    for number in range(3, 6):
        step(others, other_optimizer, number)
    for name, value in parameters.items():
        assert torch.equal(value, others[name])


def test_only_the_newest_stays(tmp_path: Path) -> None:
    parameters, optimizer = model(0)
    assert latest_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, 0, parameters, optimizer)
    for number in (9, 10):
        step(parameters, optimizer)
        file = save_checkpoint(tmp_path, number, parameters, optimizer)
    (tmp_path / "checkpoints" / ".partial-1-step-00000011.safetensors").write_bytes(b"cut")
    assert latest_checkpoint(tmp_path) == file
    assert file.name == "step-00000010.safetensors"
    assert len(list((tmp_path / "checkpoints").glob("step-*"))) == 1


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    parameters, optimizer = model(0)
    file = save_checkpoint(tmp_path, 1, parameters, optimizer)
    fewer = {"b": parameters["b"]}
    with pytest.raises(MatrixError, match=r"other trainable weights \(a\.weight\).*another --out"):
        load_checkpoint(file, fewer, optimizer)
    wider = parameters | {"b": nn.Parameter(torch.zeros(5))}
    with pytest.raises(MatrixError, match=r"b is \(4,\), not \(5,\)"):
        load_checkpoint(file, wider, optimizer)
    file.write_bytes(b"\x80\x04 no pickle is ever loaded")
    with pytest.raises(MatrixError, match="not a readable checkpoint"):
        load_checkpoint(file, parameters, optimizer)


def test_a_checkpoint_of_another_version(tmp_path: Path) -> None:
    parameters, optimizer = model(0)
    file = save_checkpoint(tmp_path, 1, parameters, optimizer)
    assert file is not None
    save_file(load_file(file), file, {"format": "0", "step": "1"})
    with pytest.raises(MatrixError, match=r"a checkpoint of format 0, this version reads 1"):
        load_checkpoint(file, parameters, optimizer)


def test_the_moving_average_comes_back(tmp_path: Path) -> None:
    parameters, optimizer = model(0)
    average = {name: torch.full_like(p, 2.0).detach() for name, p in parameters.items()}
    file = save_checkpoint(tmp_path, 1, parameters, optimizer, average)
    assert file is not None
    found = {name: torch.zeros_like(p).detach() for name, p in parameters.items()}
    load_checkpoint(file, parameters, optimizer, found)
    assert all(torch.equal(found[name], value) for name, value in average.items())
    plain = save_checkpoint(tmp_path, 2, parameters, optimizer)
    assert plain is not None
    with pytest.raises(MatrixError, match=r"no moving average.*another --out"):
        load_checkpoint(plain, parameters, optimizer, found)


def test_a_process_that_does_not_write(tmp_path: Path) -> None:
    parameters, optimizer = model(0)
    assert save_checkpoint(None, 1, parameters, optimizer) is None
    assert not [*tmp_path.iterdir()]
