"""LoRA on the attention of the chosen layers, and nowhere else.

Paper section 5 (and its ablation: IF 0.486 on all layers, 0.542 on the chosen ones).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import torch
from diffusers.loaders.peft import PeftAdapterMixin
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import nn

from matrix_video.services.errors import MatrixError
from matrix_video.training.config import Projections

_QUERY_KEY: Final = "to_q|to_k|add_q_proj|add_k_proj"
"""Names of diffusers for a query's and a key's projection, of video and of text."""


def projected(targets: str, projections: Projections) -> str:
    """``targets``, a regular expression on attention projections, or its query and key alone."""
    if projections == "qkvo":
        return targets
    return rf"(?=.*\.(?:{_QUERY_KEY})$)(?:{targets})"


def add_lora(
    transformer: nn.Module,
    targets: str,
    layer_names: Sequence[str],
    *,
    rank: int,
    alpha: float,
    seed: int,
) -> dict[str, nn.Parameter]:
    """Put LoRA on every linear layer of the (frozen) transformer that ``targets`` matches in full.

    ``layer_names`` are the blocks that must be reached, each of them. The start depends
    on ``seed`` alone. LoRA's parameters are float32 (float64 in such a base), returned by name.
    Raises `MatrixError` when nothing, or nothing in one of the layers, or something outside them
    is matched.
    """
    if not isinstance(transformer, PeftAdapterMixin):
        raise MatrixError(
            f"{type(transformer).__name__} does not take LoRA",
            remedy="use a family whose diffusers model has PeftAdapterMixin",
            field="model",
        )
    if any(isinstance(module, LoraLayer) for module in transformer.modules()):
        raise MatrixError(
            "the pipeline already carries LoRA",
            remedy="fuse or unload it first: a run trains one adapter on a plain base",
            field="model",
        )
    pattern = re.compile(targets)
    linear = {name for name, m in transformer.named_modules() if isinstance(m, nn.Linear)}
    matched = [name for name in linear if pattern.fullmatch(name)]
    for layer in layer_names:
        if not any(name.startswith(f"{layer}.") for name in matched):
            raise MatrixError(
                f"LoRA target {targets!r} matches no linear layer in {layer}",
                remedy="choose layers that the model has; `matrix analyze` names them",
                field="layers",
            )
    outside = [n for n in matched if not any(n.startswith(f"{block}.") for block in layer_names)]
    if outside:
        raise MatrixError(
            f"LoRA target {targets!r} also matches {min(outside)}, which is in none of the chosen "
            "layers",
            remedy="mend the backbone's lora_targets: it should match the attention projections "
            "of these layers alone",
            field="layers",
        )
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets)  # pyright: ignore[reportArgumentType] # peft says int, and takes float
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer.add_adapter(config)
    parameters = {
        name: parameter for name, parameter in transformer.named_parameters() if ".lora_" in name
    }
    for parameter in parameters.values():
        if parameter.dtype != torch.float64:  # a base in float64 is one whose numbers are checked
            parameter.data = parameter.data.float()
    return parameters


def remove_lora(transformer: nn.Module) -> None:
    """Undo `add_lora`; parameters stay frozen."""
    assert isinstance(transformer, PeftAdapterMixin)
    transformer.unload_lora()
