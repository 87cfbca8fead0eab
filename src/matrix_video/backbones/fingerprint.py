"""Short hashes that tell one model from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, cast

import torch
from accelerate.utils.modeling import get_state_dict_offloaded_model
from diffusers.configuration_utils import ConfigMixin
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from matrix_video.backbones.quantize import QUANTIZED, is_quantized

_PICKED: Final = 16


class Fingerprint(BaseModel):
    """Which model something was made for.

    Neither the dtype that a checkpoint was loaded in nor LoRA on top of it counts: it is the base
    that layers are chosen on and adapters are trained for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Class name."""
    architecture: str
    """Hash of the configuration and of the parameters' names and shapes."""
    weights: str
    """Hash of a few values of every parameter, rounded to bfloat16. Empty for a quantised model,
    which has them no more."""

    def other_weights(self, other: Fingerprint) -> bool:
        """Whether both are known to have weights that differ."""
        return bool(self.weights and other.weights) and self.weights != other.weights


def fingerprint(module: nn.Module) -> Fingerprint:
    """Fingerprint of a module, whether or not LoRA is on it."""
    shapes, values = hashlib.sha256(), hashlib.sha256()
    quantized = is_quantized(module)
    shapes.update(config_text(module).encode())
    for name, parameter in sorted(_parameters(module).items()):
        if ".lora_" in name:
            continue
        name = name.replace(".base_layer.", ".")
        shapes.update(f"{name}{tuple(parameter.shape)};".encode())
        if quantized:
            continue
        flat = parameter.detach().flatten()
        # Evenly spaced in integers: float32 cannot count beyond 2^24 and would point past the end.
        steps = torch.arange(_PICKED, device=flat.device) * (flat.numel() - 1)
        picked = flat[steps // (_PICKED - 1)] if flat.numel() else flat
        rounded = picked.to(torch.bfloat16).view(torch.int16).cpu()
        values.update(name.encode() + rounded.numpy().tobytes())
    return Fingerprint(
        name=type(module).__name__,
        architecture=shapes.hexdigest()[:16],
        weights="" if quantized else values.hexdigest()[:16],
    )


def _parameters(module: nn.Module) -> dict[str, Tensor]:
    """Named parameters, also of a module whose parts are offloaded one by one (accelerate): these
    lie in their hooks, and the module itself holds tensors without content, tied ones twice."""
    named: dict[str, Tensor] = dict(module.named_parameters())
    if not any(parameter.is_meta for parameter in named.values()):
        return named
    stored = get_state_dict_offloaded_model(module)
    first: dict[int, str] = {}
    for name in named:
        first.setdefault(stored[name].data_ptr(), name)
    return {name: stored[name] for name in first.values()}


def config_text(part: object) -> str:
    """The configuration of a part of a pipeline as canonical text, without what its file adds and
    without how it is quantised.

    Empty for parts that are not diffusers' own: transformers' configurations hold paths and
    versions, and what of them shapes a text encoder shows in its parameters.
    """
    if not isinstance(part, ConfigMixin):
        return ""
    stated = cast("Mapping[str, Any]", part.config)
    public = {key: value for key, value in stated.items() if not key.startswith("_")}
    public.pop(QUANTIZED, None)
    return json.dumps(public, sort_keys=True, default=str)
