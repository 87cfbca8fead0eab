"""A LoRA file in whatever names its trainer gave it, as tensors by the names of our transformers.

A key that diffusers does not know is left out without a word, and the base then makes the video. So
everything here is counted: each tensor of a file is converted or named in an error, and `arrived`
compares what is on the model with what the file held.

Where a trainer keeps alpha as a tensor beside each pair, it is multiplied into the pair (alpha over
rank), as the stock pipelines do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from peft import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from matrix_video.services.errors import MatrixError
from matrix_video.services.files import parse_json, read_json

_PART: Final = re.compile(r"(.+)\.(lora_A\.weight|lora_B\.weight|lora_B\.bias)")
_ADAPTER_NAME: Final = re.compile(r"\.lora_([AB])\.[^.]+\.(weight|bias)$")
_WRAPPED: Final = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module)\.")
"""What data parallelism, compilation and FSDP put into names."""
_FLAT: Final = "lora_unet_"
_FLAT_WAN: Final = re.compile(r"blocks_(\d+)_(?:(self_attn|cross_attn)_(\w+)|ffn_(\d))")
_FLAT_HUNYUAN: Final = re.compile(r"(double|single)_blocks_(\d+)_(\w+?)(?:_(fc1|fc2|linear))?")
_SCALES: Final = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora")
_ORIGINS: Final = (
    ("lokr_", "LoKr, which is no LoRA"),
    ("hada_", "LoHa, which is no LoRA"),
    ("dora_scale", "DoRA"),
    ("lora_magnitude", "DoRA"),
    (".diff", "differences of whole weights, beside LoRA or in its place"),
    ("text_encoder", "LoRA on the text encoder"),
    ("lora_te", "LoRA on the text encoder"),
    (".lora.", "a file of diffusers before it used peft"),
    ("lora_linear_layer", "a file of diffusers before it used peft"),
    (".processor.", "a file of diffusers before it used peft"),
    ("lycoris_", "a file of LyCORIS"),
    (_FLAT, "a file of kohya's or musubi's trainers"),
    ("diffusion_model.", "a file for ComfyUI, as diffusion-pipe writes them"),
)
"""What a key is a sign of; the first that fits is told."""


class _Misfit(ValueError):
    """What is wrong, and the key, as the file has it, that shows where the file is from."""

    def __init__(self, problem: str, key: str = "") -> None:
        super().__init__(problem)
        self.origin = next((f"; this is {what}" for sign, what in _ORIGINS if sign in key), "")


@dataclass(frozen=True)
class Lora:
    """LoRA of one transformer."""

    state: Mapping[str, Tensor]
    """By the transformer's own names, without the pipeline's prefix."""
    config: Mapping[str, Any] | None
    """Of peft: rank and alpha. None: alpha is the rank everywhere."""


def read_lora(file: Path, pipe: DiffusionPipeline, names: tuple[str, ...]) -> dict[str, Lora]:
    """LoRA of each of the pipeline's transformers ``names`` that the file has some for.

    Raises `MatrixError` naming a tensor for: anything that is no LoRA of these, half a pair, a pair
    of two ranks, another layer or width than the transformer's, and values that are no numbers,
    or integers, whose scales are not known here.
    """
    tensors, stored = read_tensors(file)
    state = {key: _computable(value) for key, value in tensors.items()}
    packed = stored.get(LORA_ADAPTER_METADATA_KEY)
    try:
        metadata: dict[str, Any] | None = None if packed is None else parse_json(packed)
    except ValueError as error:
        raise MatrixError(
            f"its metadata are not valid JSON ({error})",
            remedy="save the adapter again, or take the metadata out",
            file=file,
        ) from error
    beside = file.with_name("adapter_config.json")
    if metadata is None and beside.is_file():  # as peft writes it
        metadata = read_json(beside)
    for key, value in state.items():
        if not value.is_floating_point() and value.numel() > 1:
            raise MatrixError(
                f"{key} holds integers ({value.dtype}), expected floating-point numbers",
                remedy="save the LoRA without quantising it",
                file=file,
            )
        if not bool(value.isfinite().all()):
            raise MatrixError(
                f"{key} is not a number in {int((~value.isfinite()).sum())} of {value.numel()} "
                "places",
                remedy="take an earlier checkpoint, or train again with a lower --lr",
                file=file,
            )
    loras: dict[str, Lora] = {}
    experts: dict[str, nn.Module] = {name: getattr(pipe, name) for name in names}
    try:
        found, folded = _named(state, pipe, experts)
        for name, expert in experts.items():
            own = under(f"{name}.", found)
            if own:
                _check(own, expert)
                layers = sorted({key.partition(".lora_")[0] for key in own})
                loras[name] = Lora(own, _config(None if folded else metadata, name, layers))
    except _Misfit as error:
        raise _misfit(file, experts[names[0]], error) from error
    return loras


def arrived(file: Path, lora: Lora, transformer: nn.Module, adapter_name: str) -> None:
    """`MatrixError` unless the transformer's adapter is the file's, tensor by tensor."""
    here = get_peft_model_state_dict(transformer, adapter_name=adapter_name)
    wrong = [f"{key} did not arrive" for key in lora.state.keys() - here.keys()]
    wrong += [f"the file has nothing for {key}" for key in here.keys() - lora.state.keys()]
    for key in () if wrong else lora.state:
        mine, value = here[key], lora.state[key]
        # Offloaded weights are elsewhere.
        if not mine.is_meta and not torch.equal(mine.cpu(), value.to(mine.dtype)):
            wrong.append(f"{key} is not as in the file")
    if wrong:
        count = f"{len(wrong)} of {len(lora.state)} tensors: {min(wrong)}"
        raise _misfit(file, transformer, _Misfit(count))


def _computable(value: Tensor) -> Tensor:
    """Floats of 8 bits, with which torch does not compute, as the same numbers in bfloat16."""
    small = value.is_floating_point() and value.element_size() == 1
    return value.to(torch.bfloat16) if small else value


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin so, by the rest of their names."""
    return {n.removeprefix(prefix): w for n, w in tensors.items() if n.startswith(prefix)}


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a safetensors file, and the text beside them."""
    if not file.is_file():
        others = sorted(one.name for one in file.parent.glob("*.safetensors"))
        remedy = "give the adapter folder of a finished training run, usually <run>/adapter"
        if others and not (file.parent / "matrix_adapter.json").exists():
            remedy = f"of LoRA of another trainer, name the file so ({', '.join(others)} is there)"
        raise MatrixError("the file is missing", remedy=remedy, file=file)
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in sorted(opened.keys())}
            return tensors, opened.metadata() or {}
    except SafetensorError as error:
        raise MatrixError(
            f"not a readable safetensors file ({error})",
            remedy="copy the adapter folder again, or train again",
            file=file,
        ) from error


def _named(
    state: Mapping[str, Tensor], pipe: DiffusionPipeline, experts: Mapping[str, nn.Module]
) -> tuple[dict[str, Tensor], bool]:
    """The tensors by the pipeline's names, and whether alphas were multiplied into them."""
    if not state:
        raise _Misfit("it holds no tensor")
    first = next(iter(experts))
    modules = dict(experts[first].named_modules())
    flat = {name.replace(".", "_"): name for name in modules}
    origin: dict[str, str] = {}
    plain: dict[str, Tensor] = {}
    for key, value in state.items():
        name = _WRAPPED.sub("", key).removeprefix("base_model.model.")
        name = _ADAPTER_NAME.sub(r".lora_\1.\2", name)
        name = name.replace(".lora_down.", ".lora_A.").replace(".lora_up.", ".lora_B.")
        name = _dotted(name, flat)
        plain[name], origin[name] = value, key
    _check_apart(plain, state)
    found = _folded(plain)
    for name in found:
        if _PART.fullmatch(name) is None:
            raise _Misfit(f"{origin[name]} is no part of a pair", origin[name])
    if any(name.startswith("diffusion_model.") or "img_attn_qkv" in name for name in found):
        found = _converted(found, pipe)
    named: dict[str, Tensor] = {}
    prefixes = tuple(f"{name}." for name in experts)
    for name, value in found.items():
        layer = name.partition(".lora_")[0]
        ours = name if name.startswith(prefixes) or layer not in modules else f"{first}.{name}"
        named[ours] = value
    _check_apart(named, found)
    strangers = [name for name in named if not name.startswith(prefixes)]
    if strangers:
        problem = f"{len(strangers)} of its {len(named)} tensors are of no layer, {strangers[0]}"
        raise _Misfit(problem, next(iter(state)))
    return named, len(plain) > len(found)


def _check_apart(named: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Whether no two of the given tensors came to the same name."""
    if len(named) < len(given):
        raise _Misfit(f"{len(given) - len(named)} of its tensors are of the same layers as others")


def _folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The pairs, with their own alphas multiplied in."""
    found = {key: value for key, value in state.items() if not key.endswith(".alpha")}
    for key in state.keys() - found.keys():
        down = f"{key.removesuffix('.alpha')}.lora_A.weight"
        if down not in found or state[key].numel() != 1:
            raise _Misfit(f"{key} has no pair that it belongs to", key)
        found[down] = found[down] * (state[key].item() / found[down].shape[0])
    return found


def _dotted(key: str, flat: Mapping[str, str]) -> str:
    """A key whose layer is written with underscores, as kohya's trainers do, with dots."""
    layer, dot, rest = key.removeprefix(_FLAT).partition(".")
    if not key.startswith(_FLAT):
        return key
    if layer in flat:
        return f"{flat[layer]}{dot}{rest}"
    wan, hunyuan = _FLAT_WAN.fullmatch(layer), _FLAT_HUNYUAN.fullmatch(layer)
    if wan is not None:
        block, attention, projection, ffn = wan.groups()
        inside = f"ffn.{ffn}" if attention is None else f"{attention}.{projection}"
        return f"diffusion_model.blocks.{block}.{inside}{dot}{rest}"
    if hunyuan is not None:
        kind, block, inside, end = hunyuan.groups()
        inside = inside if end is None else f"{inside}.{end}"
        return f"diffusion_model.{kind}_blocks.{block}.{inside}{dot}{rest}"
    return key


def _converted(state: Mapping[str, Tensor], pipe: DiffusionPipeline) -> dict[str, Tensor]:
    """As the stock pipeline converts names; every tensor must be in what it makes of them."""
    stock: Any = pipe
    given = {key: value.clone() for key, value in state.items()}
    try:
        found: dict[str, Tensor] = stock.lora_state_dict(dict(given))
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        reason = f"{type(pipe).__name__} cannot convert its names ({error})"
        raise _Misfit(reason, next(iter(state))) from error
    kept = {value.untyped_storage().data_ptr() for value in found.values()}
    for key, value in given.items():
        if value.untyped_storage().data_ptr() not in kept:
            raise _Misfit(f"{type(pipe).__name__} has no place for {key}", key)
    return {key.removeprefix("diffusion_model."): value for key, value in found.items()}


def _check(state: Mapping[str, Tensor], transformer: nn.Module) -> None:
    """Whole pairs, of one rank, that fit the transformer's layers."""
    modules = dict(transformer.named_modules())
    for key, value in state.items():
        name, _, rest = key.partition(".lora_")
        weight = getattr(modules.get(name), "weight", None)
        if not isinstance(weight, Tensor):
            raise _Misfit(f"it has no layer {name}")
        axis = 1 if rest.startswith("A") else 0
        if weight.shape[axis] != value.shape[axis]:
            shapes = f"{tuple(weight.shape)}, which {key} {tuple(value.shape)} does not fit"
            raise _Misfit(f"layer {name} is {shapes}")
        down, up = (state.get(f"{name}.lora_{half}.weight") for half in "AB")
        if down is None or up is None:
            raise _Misfit(f"{key} is half a pair: lora_{'A' if down is None else 'B'} is missing")
        if down.shape[0] != up.shape[1]:
            raise _Misfit(f"the pair of {name} has ranks {down.shape[0]} and {up.shape[1]}")


def _config(
    metadata: Mapping[str, Any] | None, name: str, layers: list[str]
) -> dict[str, Any] | None:
    """What metadata say of one transformer, by its prefix or, of the only one, without; the layers
    are those that there are tensors for."""
    if metadata is None:
        return None
    own = {k.removeprefix(f"{name}."): v for k, v in metadata.items() if k.startswith(f"{name}.")}
    if not own:
        own = {key: metadata[key] for key in _SCALES if key in metadata}
    return {**own, "target_modules": layers} if own else None


def _misfit(file: Path, transformer: nn.Module, error: _Misfit) -> MatrixError:
    remedy = "load it into the pipeline that it was trained on"
    if error.origin:
        remedy += ", or save it in diffusers' names (transformer.<layer>.lora_A.weight)"
    problem = f"the adapter does not fit this {type(transformer).__name__}: {error}{error.origin}"
    return MatrixError(problem, remedy=remedy, file=file)
