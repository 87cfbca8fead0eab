"""Short hashes that tell one model from another."""

from __future__ import annotations

import hashlib

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn


class Fingerprint(BaseModel):
    """Which model something was made for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Class name."""
    architecture: str
    """Hash of the parameters' names and shapes."""
    weights: str
    """Hash of a few values of every parameter, rounded to bfloat16."""


def fingerprint(module: nn.Module) -> Fingerprint:
    """Fingerprint of a module, whether or not LoRA is on it."""
    shapes, values = hashlib.sha256(), hashlib.sha256()
    for name, parameter in sorted(module.named_parameters()):
        if ".lora_" in name:
            continue
        name = name.replace(".base_layer.", ".")
        shapes.update(f"{name}{tuple(parameter.shape)};".encode())
        flat = parameter.detach().flatten()
        picked = flat[torch.linspace(0, flat.numel() - 1, 16, device=flat.device).long()]
        rounded = picked.to(torch.bfloat16).view(torch.int16).cpu()
        values.update(name.encode() + rounded.numpy().tobytes())
    return Fingerprint(
        name=type(module).__name__,
        architecture=shapes.hexdigest()[:16],
        weights=values.hexdigest()[:16],
    )
