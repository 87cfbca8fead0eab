"""Storing a frozen transformer in 8 bit, through diffusers' own quantisation.

torchao of the backends that diffusers has: it runs on CPUs and GPUs alike, LoRA trains on it (peft
knows it), and the other that does so, quanto, is deprecated in diffusers. Our choice.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal

from matrix_video.services.errors import MatrixError

if TYPE_CHECKING:
    from diffusers import PipelineQuantizationConfig
    from torch import nn

Quantize = Literal["none", "int8"]
"""``int8``: weights of linear layers as integers, with a float32 scale for each row; products are
computed in the dtype of the input."""

PART: Final = "transformer"
"""What of a pipeline is quantised: the others are gone before training, or convolutions."""
QUANTIZED: Final = "quantization_config"
"""Where diffusers' models keep how they are quantised, in their configuration."""


def quantization(quantize: Quantize) -> PipelineQuantizationConfig | None:
    """What ``from_pretrained`` of a pipeline needs to know; None for ``none``.

    Raises `MatrixError` where torchao is not installed.
    """
    if quantize == "none":
        return None
    if find_spec("torchao") is None:
        raise MatrixError(
            "a quantised base needs torchao, which is not installed",
            remedy="install the extra: pip install 'matrix-video[quantize]'",
            field="quantize",
        )
    from diffusers import PipelineQuantizationConfig, TorchAoConfig
    from torchao.quantization import (  # pyright: ignore[reportMissingImports] # an extra
        Int8WeightOnlyConfig,
    )

    # Without its settings for the compiler, which would be the whole process's.
    kind: Any = Int8WeightOnlyConfig(set_inductor_config=False)
    return PipelineQuantizationConfig(quant_mapping={PART: TorchAoConfig(kind)})


def follow_autocast(model: nn.Module) -> None:
    """Let the model's linear layers take, and so give, autocast's dtype, as plain ones do.

    Autocast does not see torchao's products, whose results have the dtype of the input: float32,
    and twice the memory, wherever a norm stands before them.
    """
    import torch
    from torch import nn

    def cast(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        place = inputs[0].device.type
        if not torch.is_autocast_enabled(place):
            return inputs
        return (inputs[0].to(torch.get_autocast_dtype(place)), *inputs[1:])

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(cast)


def is_quantized(module: nn.Module) -> bool:
    """Whether a model was loaded so, by whichever backend."""
    from diffusers.configuration_utils import ConfigMixin

    return isinstance(module, ConfigMixin) and module.config.get(QUANTIZED) is not None
