"""Precision of a transformer's forward pass, by autocast: weights keep the dtype they have."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["no", "bf16"]


def autocast(device: torch.device | str, precision: Precision) -> AbstractContextManager[object]:
    """Autocast to bfloat16 on the kind of ``device``, or nothing."""
    import torch  # here, because the command line's help needs the choices alone

    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")
