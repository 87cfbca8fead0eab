"""Adapter folders: what fine-tuning leaves behind, and how a pipeline takes it up again.

    pytorch_lora_weights.safetensors   LoRA in diffusers' keys, with its metadata (rank, alpha)
    matrix_adapter.json                which base it belongs to, and facts of the run
    matrix_cond.safetensors + .json    projection of the id map (runs with id map)
    matrix_decoder.safetensors + .json map decoder (runs with alignment; not needed to generate)

``pipe.load_lora_weights(folder)`` alone gives the fine-tuned model with the id map absent;
`load_adapter` attaches everything. No pickle is written or read.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from peft import PeftConfig, get_peft_model_state_dict
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from matrix_video.backbones.condition import Condition
from matrix_video.backbones.fingerprint import Fingerprint, fingerprint
from matrix_video.backbones.lora_file import Lora, arrived, read_lora, read_tensors, under
from matrix_video.backbones.tensors import save_tensors
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import atomic_dir, read_json, write_json
from matrix_video.services.records import invalid_record, read_record

LORA_FILE: Final = "pytorch_lora_weights.safetensors"
INFO_FILE: Final = "matrix_adapter.json"
CONDITION_NAME: Final = "matrix_cond"
DECODER_NAME: Final = "matrix_decoder"
ADAPTER_NAME: Final = "matrix"
_PREFIX: Final = "transformer."
_DESCRIPTION: Final = "an adapter description"
_AGAIN: Final = "copy the adapter folder again, or train again"


class AdapterInfo(BaseModel):
    """Contents of ``matrix_adapter.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    base: Fingerprint
    facts: dict[str, Any] = {}
    """What the run wants to be remembered by: layers, steps, losses."""


class ConditionInfo(BaseModel):
    """Contents of ``matrix_cond.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    site: str
    """Name of the patch layer that the projection stands beside."""
    channels: int
    """Latent channels of the id map."""
    patch: tuple[int, int, int]
    """Latent frames, rows and columns of a token."""


@dataclass(frozen=True)
class ModuleFiles:
    """A module that is stored beside the LoRA: its JSON facts and its weights."""

    facts: Mapping[str, Any]
    state: Mapping[str, Tensor]


@dataclass
class Adapter:
    """An adapter in use. ``condition`` None: trained without id map."""

    transformers: tuple[nn.Module, ...]
    """Those that carry LoRA: of Wan 2.2 both experts, where the file has some for both."""
    condition: Condition | None

    def detach(self) -> None:
        """Take LoRA and projection off the pipeline again."""
        if self.condition is not None:
            self.condition.detach()
        for transformer in self.transformers:
            model = _peft(transformer)
            if ADAPTER_NAME in _configs(transformer):
                model.delete_adapters(ADAPTER_NAME)
            if not _configs(transformer):
                model.unload_lora()  # what is left are wrappers without an adapter


def save_adapter(
    directory: Path,
    transformer: nn.Module,
    *,
    condition: Condition | None = None,
    decoder: ModuleFiles | None = None,
    facts: Mapping[str, Any] | None = None,
    base: Fingerprint | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the whole folder, or nothing.

    ``weights``: values to write in the place of the modules' own, full tensors named as the
    transformer's parameters and "condition." + those of the projection. ``base`` is the base's
    fingerprint, where the transformer's own weights are not whole any more.
    """
    told_weights = dict(weights) if weights is not None else None
    state = get_peft_model_state_dict(transformer, state_dict=told_weights)
    config = _configs(transformer)["default"].to_dict()
    metadata = {f"{_PREFIX}{key}": _plain(value) for key, value in sorted(config.items())}
    with atomic_dir(directory) as temporary:
        save_tensors(
            {f"{_PREFIX}{key}": value for key, value in state.items()},
            temporary / LORA_FILE,
            {"format": "pt", LORA_ADAPTER_METADATA_KEY: json.dumps(metadata, sort_keys=True)},
        )
        known = fingerprint(transformer) if base is None else base
        info = AdapterInfo(base=known, facts=dict(facts or {}))
        write_json(temporary / INFO_FILE, info.model_dump())
        if condition is not None:
            projection = condition.projection
            told = ConditionInfo(
                site=condition.site, channels=projection.channels, patch=projection.patch
            )
            own = projection.state_dict() if weights is None else under("condition.", weights)
            _write_module(temporary, CONDITION_NAME, ModuleFiles(told.model_dump(), own))
        if decoder is not None:
            _write_module(temporary, DECODER_NAME, decoder)


def load_adapter(pipe: DiffusionPipeline, directory: Path, lora_scale: float = 1.0) -> Adapter:
    """Attach the LoRA, scaled by ``lora_scale``, and the id map's projection, if there is one.

    LoRA of other trainers is taken too, where its names can be converted. An adapter of ours that
    was trained on the low-noise expert of Wan 2.2 goes onto that one.

    Raises `MatrixError` when a file is missing or broken, when a tensor of it did not arrive on the
    model, when the adapter was trained on another architecture, or when the pipeline already
    carries a MATRIX adapter. Another base of the same architecture is only warned about.
    """
    experts = _experts(pipe)
    if not experts:
        raise MatrixError(
            f"{type(pipe).__name__} has no transformer that takes LoRA",
            remedy="use a pipeline of a family that diffusers can load LoRA into",
            file=directory,
        )
    if any(ADAPTER_NAME in _configs(expert) for expert in experts.values()):
        raise MatrixError(
            "the pipeline already carries a MATRIX adapter",
            remedy="detach it, or load the pipeline anew",
            file=directory,
        )
    file = directory / LORA_FILE
    loras = read_lora(file, pipe, tuple(experts))
    own = _trained_on(experts, loras, read_info(directory), directory)
    if own is not None:
        loras = {own: loras[next(iter(loras))]}
    adapter = Adapter(
        tuple(experts[name] for name in loras),
        _read_condition(experts[own or next(iter(loras))], directory),
    )
    try:
        for name, lora in loras.items():
            _attach(experts[name], lora, file)
            _peft(experts[name]).set_adapters([ADAPTER_NAME], [lora_scale])
    except BaseException:
        adapter.detach()
        raise
    return adapter


def _experts(pipe: DiffusionPipeline) -> dict[str, nn.Module]:
    """The pipeline's transformers that take LoRA, by name: of Wan 2.2 two."""
    found: dict[str, nn.Module] = {}
    for name in ("transformer", "transformer_2"):
        part = cast("object", pipe.components.get(name))
        if isinstance(part, nn.Module) and isinstance(part, PeftAdapterMixin):
            found[name] = part
    return found


def _attach(transformer: nn.Module, lora: Lora, file: Path) -> None:
    config = None if lora.config is None else dict(lora.config)
    model: Any = transformer  # its `prefix` may be None, which its types do not say
    try:
        model.load_lora_adapter(
            dict(lora.state), prefix=None, metadata=config, adapter_name=ADAPTER_NAME
        )
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise _other_base(transformer, file, f"peft does not take it ({reason})") from error
    arrived(file, lora, transformer, ADAPTER_NAME)


def read_module(directory: Path, name: str) -> ModuleFiles | None:
    """``<name>.json`` and ``<name>.safetensors`` of an adapter folder; None without them."""
    facts_file, weights_file = directory / f"{name}.json", directory / f"{name}.safetensors"
    if not facts_file.exists() and not weights_file.exists():
        return None
    facts = cast("dict[str, Any]", read_json(facts_file))
    return ModuleFiles(facts, read_tensors(weights_file)[0])


def _write_module(directory: Path, name: str, files: ModuleFiles) -> None:
    write_json(directory / f"{name}.json", dict(files.facts))
    save_tensors(files.state, directory / f"{name}.safetensors", {"format": "pt"})


def read_info(directory: Path) -> AdapterInfo | None:
    """What an adapter folder says of itself; None for plain LoRA of another origin."""
    file = directory / INFO_FILE
    if not file.exists():
        return None
    return read_record(file, AdapterInfo, what=_DESCRIPTION, remedy=_AGAIN)


def _read_condition(transformer: nn.Module, directory: Path) -> Condition | None:
    files = read_module(directory, CONDITION_NAME)
    if files is None:
        return None
    file = directory / f"{CONDITION_NAME}.json"
    try:
        told = ConditionInfo.model_validate(files.facts)
    except ValidationError as error:
        raise invalid_record(file, error, what=_DESCRIPTION, remedy=_AGAIN) from error
    try:
        condition = Condition(transformer, told.site, told.channels, told.patch)
    except (AttributeError, ValueError) as error:
        raise _other_base(transformer, file, f"it has no patch layer {told.site}") from error
    try:
        condition.projection.load_state_dict(dict(files.state))
    except RuntimeError as error:
        condition.detach()
        raise _other_base(transformer, file, "the projection's weights do not fit") from error
    condition.projection.requires_grad_(False)
    return condition


def _trained_on(
    experts: Mapping[str, nn.Module],
    loras: Mapping[str, Lora],
    info: AdapterInfo | None,
    directory: Path,
) -> str | None:
    """Of an adapter of ours the transformer that it was trained on; None: of another origin."""
    if info is None:
        return None
    here = {name: fingerprint(expert) for name, expert in experts.items()}
    exact = [name for name, known in here.items() if known == info.base]
    name = exact[0] if exact else next(iter(loras))
    if here[name].architecture != info.base.architecture:
        problem = f"the adapter was trained on another architecture ({info.base.name})"
        raise _other_base(experts[name], directory / INFO_FILE, problem)
    if here[name].other_weights(info.base):
        warnings.warn(
            f"{directory}: trained on other weights of the same architecture; results may differ",
            stacklevel=3,
        )
    return name


def _other_base(transformer: nn.Module, file: Path, problem: str) -> MatrixError:
    return MatrixError(
        f"the adapter does not fit this {type(transformer).__name__}: {problem}",
        remedy="load it into the pipeline that it was trained on",
        file=file,
    )


def _configs(transformer: nn.Module) -> dict[str, PeftConfig]:
    return cast("dict[str, PeftConfig]", getattr(transformer, "peft_config", {}))


def _peft(transformer: nn.Module) -> PeftAdapterMixin:
    assert isinstance(transformer, PeftAdapterMixin)
    return transformer


def _plain(value: Any) -> Any:
    """JSON has neither sets nor enumerations."""
    if isinstance(value, set):
        return sorted(cast("set[str]", value))
    return getattr(value, "value", value)
