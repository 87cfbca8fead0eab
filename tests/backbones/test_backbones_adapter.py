"""Adapter folders: round trips, plain LoRA, scale, and adapters that do not fit."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from matrix_video.backbones.adapter import (
    LORA_FILE,
    ModuleFiles,
    load_adapter,
    read_info,
    read_module,
    save_adapter,
)
from matrix_video.backbones.condition import Condition
from matrix_video.backbones.fingerprint import fingerprint
from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.text import Text
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.services.errors import MatrixError

RANK, ALPHA = 2, 8  # unequal: an alpha that is lost would show


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(seed: int = 0) -> dict[str, Tensor]:
    return {
        "noisy_BFCHW": noise(seed, 1, 3, 4, 8, 8),
        "timesteps_B": torch.tensor([500]),
        "text": Text(noise(seed + 1, 1, 32, 32)),
        "image_BFCHW": noise(seed + 2, 1, 3, 4, 8, 8),
    }


ID_MAP = noise(9, 1, 3, 4, 8, 8)


def predict(pipe: Any, condition: Condition | None = None, id_map: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        if condition is None:
            return backbone_for(pipe).predict(**inputs())
        with condition.given(id_map):
            return backbone_for(pipe).predict(**inputs())


def trained(pipe: Any) -> Condition:
    """As after training: LoRA on layer 1 and a projection, none of them zero."""
    backbone = backbone_for(pipe)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=backbone.lora_targets([1]))
    pipe.transformer.add_adapter(config)
    condition = Condition(pipe.transformer, backbone.condition_site(), 4, (1, 2, 2))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in pipe.transformer.named_parameters():
        if ".lora_" in name:
            nn.init.normal_(parameter, std=0.2, generator=generator)
    nn.init.normal_(condition.projection.conv.weight, std=0.2, generator=generator)
    return condition


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor, Tensor]:
    """Adapter folder, and predictions of its model with and without id map."""
    pipe = tiny_pipeline(0)
    condition = trained(pipe)
    folder = tmp_path_factory.mktemp("run") / "adapter"
    decoder = ModuleFiles({"ratio": 4}, {"weight": torch.arange(3.0)})
    save_adapter(folder, pipe.transformer, condition=condition, decoder=decoder, facts={"steps": 7})
    return folder, predict(pipe, condition, ID_MAP), predict(pipe)


def test_load_adapter_gives_the_trained_model(saved: tuple[Path, Tensor, Tensor]) -> None:
    folder, with_map, without = saved
    pipe = tiny_pipeline(0)
    base = predict(pipe)
    assert not torch.allclose(with_map, without, atol=1e-3)
    assert not torch.allclose(base, without, atol=1e-3)
    adapter = load_adapter(pipe, folder)
    info = read_info(folder)
    assert info is not None
    assert info.facts == {"steps": 7}
    assert info.base == fingerprint(tiny_pipeline(0).transformer)
    assert torch.equal(predict(pipe, adapter.condition, ID_MAP), with_map)
    assert torch.equal(predict(pipe), without)
    adapter.detach()
    assert torch.equal(predict(pipe), base)
    # Nothing is left, not even a layer's wrapper: the next run trains on a plain base.
    assert {*pipe.transformer.state_dict()} == {*tiny_pipeline(0).transformer.state_dict()}
    again = load_adapter(pipe, folder)
    assert torch.equal(predict(pipe, again.condition, ID_MAP), with_map)


def test_stock_diffusers_loads_the_lora_alone(saved: tuple[Path, Tensor, Tensor]) -> None:
    """Equal to our model with the id map absent, alpha included."""
    folder, _, without = saved
    stock = tiny_pipeline(0)
    stock.load_lora_weights(str(folder))
    assert torch.equal(predict(stock), without)
    ours = tiny_pipeline(0)
    load_adapter(ours, folder)
    image = torch.zeros(3, 32, 32)
    frames = [
        pipe(
            image=image,
            prompt="the red ball pushes the blue box",
            num_inference_steps=2,
            num_frames=9,
            height=32,
            width=32,
            max_sequence_length=32,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
        ).frames
        for pipe in (stock, ours)
    ]
    assert torch.equal(frames[0], frames[1])


def test_metadata_is_written_in_diffusers_keys(saved: tuple[Path, Tensor, Tensor]) -> None:
    from safetensors import safe_open

    folder = saved[0]
    with safe_open(folder / LORA_FILE, framework="pt") as opened:
        packed = json.loads(opened.metadata()["lora_adapter_metadata"])
        keys = set(opened.keys())
    assert (packed["transformer.r"], packed["transformer.lora_alpha"]) == (RANK, ALPHA)
    assert "transformer.transformer_blocks.1.attn1.to_out.0.lora_B.weight" in keys
    assert len(keys) == 8  # A and B of four projections of one layer
    assert all(".1.attn1." in key for key in keys)
    names = {file.name for file in folder.iterdir()}
    assert names == {
        "pytorch_lora_weights.safetensors",
        "matrix_adapter.json",
        "matrix_cond.safetensors",
        "matrix_cond.json",
        "matrix_decoder.safetensors",
        "matrix_decoder.json",
    }


def test_scale(saved: tuple[Path, Tensor, Tensor]) -> None:
    folder, _, without = saved
    off, half = tiny_pipeline(0), tiny_pipeline(0)
    base = predict(off)
    load_adapter(off, folder, lora_scale=0.0)
    torch.testing.assert_close(predict(off), base)
    load_adapter(half, folder, lora_scale=0.5)
    layer = half.transformer.get_submodule("transformer_blocks.1.attn1.to_q")
    assert layer.scaling["matrix"] == 0.5 * ALPHA / RANK
    assert not torch.allclose(predict(half), without, atol=1e-4)


def test_modules_beside_the_lora(saved: tuple[Path, Tensor, Tensor]) -> None:
    found = read_module(saved[0], "matrix_decoder")
    assert found is not None
    assert found.facts == {"ratio": 4}
    assert torch.equal(found.state["weight"], torch.arange(3.0))
    assert read_module(saved[0], "matrix_other") is None


def test_plain_lora_has_no_condition(tmp_path: Path) -> None:
    pipe = tiny_pipeline(0)
    trained(pipe).detach()
    save_adapter(tmp_path / "adapter", pipe.transformer)
    fresh = tiny_pipeline(0)
    adapter = load_adapter(fresh, tmp_path / "adapter")
    assert adapter.condition is None
    assert torch.equal(predict(fresh), predict(pipe))
    (tmp_path / "adapter" / "matrix_adapter.json").unlink()  # LoRA of another origin
    assert read_info(tmp_path / "adapter") is None
    assert load_adapter(tiny_pipeline(0), tmp_path / "adapter").condition is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, r"does not fit this CogVideoXTransformer3DModel: layer \S+to_\S+ is"),
        ({"layers": 1}, r"it has no layer transformer_blocks\.1\.attn1"),
        ({"layers": 3}, "trained on another architecture"),
    ],
)
def test_another_architecture(
    saved: tuple[Path, Tensor, Tensor], options: dict[str, int], message: str
) -> None:
    pipe = tiny_pipeline(0, **options)
    before = predict(pipe)
    with pytest.raises(MatrixError, match=message + r"(.|\n)*that it was trained on"):
        load_adapter(pipe, saved[0])
    assert torch.equal(predict(pipe), before)
    assert not pipe.transformer.patch_embed.proj._forward_hooks
    assert not getattr(pipe.transformer, "peft_config", {})


def test_other_weights_are_told(saved: tuple[Path, Tensor, Tensor]) -> None:
    with pytest.warns(UserWarning, match="other weights of the same architecture"):
        load_adapter(tiny_pipeline(1), saved[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_adapter(tiny_pipeline(0), saved[0])


def test_only_one_adapter_at_a_time(saved: tuple[Path, Tensor, Tensor]) -> None:
    pipe = tiny_pipeline(0)
    load_adapter(pipe, saved[0])
    with pytest.raises(MatrixError, match="already carries a MATRIX adapter"):
        load_adapter(pipe, saved[0])


def copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_broken_folders(saved: tuple[Path, Tensor, Tensor], tmp_path: Path) -> None:
    pipe = tiny_pipeline(0)
    with pytest.raises(
        MatrixError, match=r"nowhere/pytorch_lora_weights.*is missing.*<run>/adapter"
    ):
        load_adapter(pipe, tmp_path / "nowhere")

    folder = copy(saved[0], tmp_path / "a")
    (folder / LORA_FILE).write_bytes(b"\x80\x04pickle")
    with pytest.raises(MatrixError, match="not a readable safetensors file"):
        load_adapter(pipe, folder)

    folder = copy(saved[0], tmp_path / "b")
    (folder / "matrix_cond.safetensors").unlink()
    with pytest.raises(MatrixError, match=r"matrix_cond\.safetensors: the file is missing"):
        load_adapter(pipe, folder)

    folder = copy(saved[0], tmp_path / "c")
    told = json.loads((folder / "matrix_cond.json").read_text())
    (folder / "matrix_cond.json").write_text(json.dumps(told | {"channels": "many"}))
    with pytest.raises(MatrixError, match=r"matrix_cond\.json: channels: not an adapter descr"):
        load_adapter(pipe, folder)
    (folder / "matrix_cond.json").write_text(json.dumps(told | {"site": "patch_embed.other"}))
    with pytest.raises(MatrixError, match=r"it has no patch layer patch_embed\.other"):
        load_adapter(pipe, folder)

    folder = copy(saved[0], tmp_path / "d")
    weights = load_file(folder / "matrix_cond.safetensors")
    save_file({k: v[:1] for k, v in weights.items()}, folder / "matrix_cond.safetensors")
    with pytest.raises(MatrixError, match="the projection's weights do not fit"):
        load_adapter(pipe, folder)
    assert not pipe.transformer.patch_embed.proj._forward_hooks
    assert not getattr(pipe.transformer, "peft_config", {})


def test_saving_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_pipeline(0)
    condition = trained(pipe)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matrix_video.backbones.adapter.write_json", full)
    with pytest.raises(MatrixError, match="no space is left"):
        save_adapter(tmp_path / "adapter", pipe.transformer, condition=condition)
    assert not list(tmp_path.iterdir())
