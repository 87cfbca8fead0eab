"""LoRA files of all families in all trainers' names: every tensor arrives, or an error names it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from matrix_video.backbones.adapter import ADAPTER_NAME, LORA_FILE, load_adapter, save_adapter
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.loading import backbone_for, families
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.backbones.wan import WanBackbone
from matrix_video.services.errors import MatrixError

FAMILIES: dict[str, type[Backbone]] = {
    name.removesuffix("Transformer3DModel"): point.load() for name, point in families().items()
}
RANK, ALPHA = 2, 8.0
State = dict[str, Tensor]


def lora_of(pipe: Any, targets: str | None = None, seed: int = 0) -> State:
    """LoRA without a zero in it, by the transformer's own names; the pipeline stays as it was."""
    backbone = backbone_for(pipe)
    chosen = targets or backbone.lora_targets(range(backbone.num_layers))
    pipe.transformer.add_adapter(LoraConfig(r=RANK, target_modules=chosen), adapter_name="made")
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: torch.randn(value.shape, generator=generator)
        for key, value in get_peft_model_state_dict(pipe.transformer, adapter_name="made").items()
    }
    pipe.transformer.delete_adapters("made")
    pipe.transformer.unload_lora()
    return state


@pytest.fixture(scope="module", params=FAMILIES)
def known(request: pytest.FixtureRequest) -> tuple[str, Any, State]:
    kind = FAMILIES[request.param]
    pipe = kind.tiny(kind.variants[0])
    return request.param, pipe, lora_of(pipe)


def written(
    folder: Path, state: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({k: v.contiguous().clone() for k, v in state.items()}, folder / LORA_FILE, metadata)
    return folder


def changes(transformer: nn.Module, name: str) -> dict[str, Tensor]:
    """What LoRA adds to each layer's weight."""
    found: dict[str, Tensor] = {}
    for layer, module in transformer.named_modules():
        if name in getattr(module, "lora_A", {}):
            delta: Any = module.get_delta_weight  # type: ignore[attr-defined]
            found[layer] = delta(name)
    return found


def loaded(pipe: Any, folder: Path) -> dict[str, Tensor]:
    adapter = load_adapter(pipe, folder)
    found = changes(pipe.transformer, ADAPTER_NAME)
    adapter.detach()
    return found


def products(state: State, scale: float = 1.0) -> dict[str, Tensor]:
    layers = {key.partition(".lora_")[0] for key in state}
    return {
        layer: scale * state[f"{layer}.lora_B.weight"] @ state[f"{layer}.lora_A.weight"]
        for layer in layers
    }


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for layer, delta in expected.items():
        torch.testing.assert_close(found[layer], delta, msg=layer)


def peft_names(key: str) -> str:
    return "base_model.model." + key.replace(".weight", ".default.weight")


def kohya(state: State) -> State:
    """Underscores, down and up, and alpha beside each pair."""
    found: State = {}
    for key, value in state.items():
        layer, _, rest = key.partition(".lora_")
        flat = f"lora_unet_{layer.replace('.', '_')}"
        half = "down" if rest.startswith("A") else "up"
        found[f"{flat}.lora_{half}.weight"] = value
        found[f"{flat}.alpha"] = torch.tensor(ALPHA)
    return found


def comfy_wan(key: str) -> str:
    for ours, theirs in (
        ("attn1", "self_attn"), ("attn2", "cross_attn"), ("to_out.0", "o"), ("to_", ""),
        ("ffn.net.0.proj", "ffn.0"), ("ffn.net.2", "ffn.2"),
    ):  # fmt: skip
        key = key.replace(ours, theirs)
    return key


def renamed(change: Callable[[str], str]) -> Callable[[State], State]:
    return lambda state: {change(key): value for key, value in state.items()}


NAMES: dict[str, tuple[Callable[[State], State], float]] = {
    "pipeline": (renamed(lambda key: f"transformer.{key}"), 1.0),
    "transformer": (renamed(lambda key: key), 1.0),
    "peft": (renamed(peft_names), 1.0),
    "kohya": (kohya, ALPHA / RANK),
    "dotted kohya": (
        renamed(lambda k: k.replace("lora_A", "lora_down").replace("lora_B", "lora_up")),
        1.0,
    ),
}


@pytest.mark.parametrize("names", NAMES)
def test_every_trainers_names_arrive(
    known: tuple[str, Any, State], names: str, tmp_path: Path
) -> None:
    _, pipe, state = known
    rename, scale = NAMES[names]
    same(loaded(pipe, written(tmp_path, rename(state))), products(state, scale))
    assert not getattr(pipe.transformer, "peft_config", {})


@pytest.mark.parametrize("name", ["transformer.{}", "module.transformer._orig_mod.{}"])
def test_floats_of_8_bits_and_names_of_wrapped_models_arrive(name: str, tmp_path: Path) -> None:
    pipe: Any = tiny_pipeline(layers=1)
    state = {key: value.to(torch.float8_e4m3fn) for key, value in lora_of(pipe).items()}
    wide = {key: value.float() for key, value in state.items()}
    same(loaded(pipe, written(tmp_path, renamed(name.format)(state))), products(wide))


def test_comfyui_names_arrive(known: tuple[str, Any, State], tmp_path: Path) -> None:
    """diffusion-pipe writes them so too; of Wan the layers have their own names, with or without
    underscores."""
    family, pipe, state = known
    theirs = {comfy_wan(k) if family == "Wan" else k: v for k, v in state.items()}
    prefixed = {f"diffusion_model.{key}": value for key, value in theirs.items()}
    same(loaded(pipe, written(tmp_path / "a", prefixed)), products(state))
    same(loaded(pipe, written(tmp_path / "b", kohya(theirs))), products(state, ALPHA / RANK))


@pytest.mark.parametrize("flat", [False, True])
def test_wan_is_as_the_stock_pipeline_converts_it(flat: bool, tmp_path: Path) -> None:
    """With feed-forward layers, which its own converter demands."""
    pipe: Any = WanBackbone.tiny("t2v")
    everywhere = r"blocks\.\d+\.(attn[12]\.to_(q|k|v|out\.0)|ffn\.net\.(0\.proj|2))"
    state = {comfy_wan(key): value for key, value in lora_of(pipe, everywhere).items()}
    given = kohya(state) if flat else {f"diffusion_model.{k}": v for k, v in state.items()}
    found = loaded(pipe, written(tmp_path, given))
    pipe.load_lora_weights(str(tmp_path), adapter_name="stock")
    same(found, changes(pipe.transformer, "stock"))
    assert len(found) == len(state) // 2


def test_hunyuans_fused_projections_are_as_the_stock_pipeline_splits_them(tmp_path: Path) -> None:
    kind = FAMILIES["HunyuanVideo"]
    pipe: Any = kind.tiny("t2v")
    width = pipe.transformer.transformer_blocks[0].attn.to_q.in_features
    state: State = {}
    for which in ("img", "txt"):
        layer = f"double_blocks.0.{which}_attn_qkv"
        state[f"{layer}.lora_A.weight"] = torch.randn(RANK, width)
        state[f"{layer}.lora_B.weight"] = torch.randn(3 * width, RANK)
    given = {f"diffusion_model.{key}": value for key, value in state.items()}
    found = loaded(pipe, written(tmp_path, given))
    same(loaded(pipe, written(tmp_path / "flat", kohya(state))), {
        layer: delta * ALPHA / RANK for layer, delta in found.items()
    })  # fmt: skip
    pipe.load_lora_weights(str(tmp_path), adapter_name="stock")
    same(found, changes(pipe.transformer, "stock"))
    assert len(found) == 6


@pytest.mark.parametrize("where", ["pipeline", "transformer", "adapter_config.json"])
def test_alpha_of_the_metadata_is_kept(
    known: tuple[str, Any, State], where: str, tmp_path: Path
) -> None:
    _, pipe, state = known
    config: dict[str, object] = {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["to_q"]}
    prefix = "transformer." if where == "pipeline" else ""
    told = {f"{prefix}{name}": value for name, value in config.items()}
    given = {f"{prefix}{key}": value for key, value in state.items()}
    metadata = {"lora_adapter_metadata": json.dumps(told)}
    if where == "adapter_config.json":
        given, metadata = {peft_names(key): value for key, value in state.items()}, {}
        (tmp_path / where).write_text(json.dumps({"peft_type": "LORA", **config}))
    same(loaded(pipe, written(tmp_path, given, metadata)), products(state, ALPHA / RANK))


def first_of(state: State, half: str) -> str:
    return next(key for key in sorted(state) if f"lora_{half}" in key)


def without(half: str) -> Callable[[State], State]:
    return lambda state: {k: v for k, v in state.items() if k != first_of(state, half)}


def with_value(value: float) -> Callable[[State], State]:
    def plant(state: State) -> State:
        key = first_of(state, "B")
        hurt = state[key].clone()
        hurt[-1, -1] = value
        return {**state, key: hurt}

    return plant


def with_tensor(name: str) -> Callable[[State], State]:
    return lambda state: {**state, name.format(first_of(state, "A")): torch.ones(RANK, 3)}


def resized(half: str, axis: int) -> Callable[[State], State]:
    def change(state: State) -> State:
        key = first_of(state, half)
        return {**state, key: torch.cat([state[key]] * 2, dim=axis)}

    return change


FAULTS: dict[str, tuple[Callable[[State], State], str]] = {
    "half a pair, without A": (without("A"), r"is half a pair: lora_A is missing"),
    "half a pair, without B": (without("B"), r"is half a pair: lora_B is missing"),
    "not a number": (with_value(float("nan")), r"lora_B\.weight is not a number in 1 of"),
    "infinite": (with_value(float("inf")), r"lora_B\.weight is not a number in 1 of"),
    "two ranks": (resized("B", 1), r"has ranks 2 and 4"),
    "another width in": (resized("A", 1), r"layer \S+ is \(.*\), which \S+lora_A.* does not fit"),
    "another width out": (resized("B", 0), r"layer \S+ is \(.*\), which \S+lora_B.* does not fit"),
    "a layer that is not there": (
        with_tensor("transformer.other.0.to_q.lora_A.weight"),
        r"it has no layer other\.0\.to_q",
    ),
    "a layer of nothing": (
        with_tensor("other.0.to_q.lora_A.weight"),
        r"1 of its \d+ tensors are of no layer, other\.0\.to_q",
    ),
    "the text encoder": (
        with_tensor("text_encoder.to_q.lora_A.weight"),
        r"text_encoder\.to_q",
    ),
    "DoRA": (with_tensor("{}.dora_scale"), r"dora_scale is no part of a pair; this is DoRA"),
    "LoKr": (with_tensor("transformer.a.lokr_w1"), r"no part of a pair; this is LoKr"),
    "whole weights": (with_tensor("diffusion_model.a.diff"), r"differences of whole weights"),
    "alpha of nothing": (with_tensor("other.0.to_q.alpha"), r"alpha has no pair"),
    "musubi's of nothing": (
        with_tensor("lora_unet_other_0_to_q.lora_down.weight"),
        r"tensors are of no layer, lora_unet_other_0_to_q",
    ),
    "nothing": (lambda _: {}, "it holds no tensor"),
    "twice": (
        lambda state: {**state, **{k.removeprefix("transformer."): v for k, v in state.items()}},
        r"\d+ of its tensors are of the same layers as others",
    ),
    "integers": (
        lambda state: {key: value.to(torch.int8) for key, value in state.items()},
        r"holds integers \(torch\.int8\)",
    ),
    "old diffusers": (
        renamed(lambda key: key.replace("lora_A", "lora.down").replace("lora_B", "lora.up")),
        "this is a file of diffusers before it used peft",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_arrive_is_refused(
    known: tuple[str, Any, State], fault: str, tmp_path: Path
) -> None:
    """Before anything is changed on the model."""
    _, pipe, state = known
    plant, problem = FAULTS[fault]
    keys = {*pipe.transformer.state_dict()}
    given = {f"transformer.{key}": value for key, value in state.items()}
    with pytest.raises(MatrixError, match=problem) as told:
        load_adapter(pipe, written(tmp_path, plant(given)))
    assert told.value.file == tmp_path / LORA_FILE
    assert {*pipe.transformer.state_dict()} == keys


@pytest.mark.parametrize("other", FAMILIES)
def test_another_familys_lora_is_refused(
    known: tuple[str, Any, State], other: str, tmp_path: Path
) -> None:
    family, pipe, _ = known
    if other == family:
        return
    kind = FAMILIES[other]
    # Of another width than the tiny LTX-Video, whose layers have the same names.
    there = tiny_pipeline(heads=3) if other == "CogVideoX" else kind.tiny(kind.variants[0])
    state = lora_of(there)
    for names, (rename, _) in NAMES.items():
        with pytest.raises(MatrixError, match=f"adapter does not fit this {family}Transformer3D"):
            load_adapter(pipe, written(tmp_path / names, rename(state)))
    assert not getattr(pipe.transformer, "peft_config", {})


def test_what_the_loader_itself_loses_is_told(
    known: tuple[str, Any, State], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever diffusers and peft do with a file: the model is compared with it afterwards."""
    _, pipe, state = known
    stock = type(pipe.transformer).load_lora_adapter

    def lossy(model: Any, given: State, **options: Any) -> None:
        layer = first_of(given, "A").partition(".lora_")[0]
        stock(model, {k: v for k, v in given.items() if not k.startswith(layer)}, **options)

    monkeypatch.setattr(type(pipe.transformer), "load_lora_adapter", lossy)
    with pytest.raises(MatrixError, match=rf"2 of {len(state)} tensors: \S+ did not arrive"):
        load_adapter(pipe, written(tmp_path, state))
    assert not getattr(pipe.transformer, "peft_config", {})


def test_both_experts_of_wan_are_served(tmp_path: Path) -> None:
    """A file with both goes onto both; one of ours onto the expert that it was trained on."""
    pipe: Any = WanBackbone.tiny("t2v-2.2")
    high, low = lora_of(pipe, seed=1), lora_of(pipe, seed=2)
    both = {f"transformer.{k}": v for k, v in high.items()}
    both |= {f"transformer_2.{k}": v for k, v in low.items()}
    adapter = load_adapter(pipe, written(tmp_path / "both", both))
    same(changes(pipe.transformer, ADAPTER_NAME), products(high))
    same(changes(pipe.transformer_2, ADAPTER_NAME), products(low))
    adapter.detach()
    trained: Any = WanBackbone.tiny("t2v-2.2")
    backbone = WanBackbone(trained, expert="low")
    config = LoraConfig(r=RANK, target_modules=backbone.lora_targets([0]))
    trained.transformer_2.add_adapter(config)
    save_adapter(tmp_path / "low", trained.transformer_2)
    load_adapter(pipe, tmp_path / "low")
    assert not changes(pipe.transformer, ADAPTER_NAME)
    assert len(changes(pipe.transformer_2, ADAPTER_NAME)) == 8
