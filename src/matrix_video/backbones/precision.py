"""Precision of a transformer's forward pass, by autocast: weights keep the dtype they have."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["no", "bf16", "auto"]
"""``auto``: bf16 where the device multiplies in it by itself, else no."""
Weights = Literal["float32", "bf16"]
"""In which a pipeline's weights are held."""

_NATIVE: Final = ("amx_bf16", "avx512_bf16", "bf16")
"""CPU capabilities, of x86 and ARM; a CPU without one emulates bfloat16, some ten times slower than
float32."""


def resolved(device: torch.device | str, precision: Precision) -> Literal["no", "bf16"]:
    """What ``precision`` means on this device."""
    if precision != "auto":
        return precision
    import torch

    place = torch.device(device).type
    if place == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities() if place == "cpu" else {}
        native = any(capabilities.get(name) for name in _NATIVE)
    return "bf16" if native else "no"


def autocast(device: torch.device | str, precision: Precision) -> AbstractContextManager[object]:
    """Autocast to bfloat16 on the kind of ``device``, or nothing."""
    import torch  # here, because the command line's help needs the choices alone

    on = resolved(device, precision) == "bf16"
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=on)


def dtype_of(weights: Weights) -> torch.dtype:
    """For `loading.load_pipeline`."""
    import torch

    return torch.bfloat16 if weights == "bf16" else torch.float32
