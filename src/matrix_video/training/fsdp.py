"""accelerate's own FSDP, where its launcher asks for it: which of it a run can do with, and how.

accelerate reads the launcher's environment; so do we, before it does: what it makes of version 1 on
a CPU is an error of its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

from matrix_video.services.errors import MatrixError


def check_fsdp_environment() -> None:
    """`MatrixError` where the launcher asks for an FSDP that would not be one, or for version 1."""
    if not _asked("ACCELERATE_USE_FSDP"):
        return
    if _asked("ACCELERATE_USE_CPU") or not torch.accelerator.is_available():
        raise _not_there()
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise _refused("version 1 of FSDP, whose parameters are no DTensors", "--fsdp_version 2")


def fsdp_plugin(accelerator: Accelerator) -> FullyShardedDataParallelPlugin | None:
    """What the launcher told of FSDP; None where it did not ask for it.

    Raises `MatrixError` for what a run cannot do with.
    """
    if not _asked("ACCELERATE_USE_FSDP"):
        return None
    if accelerator.state.distributed_type != DistributedType.FSDP:
        raise _not_there()
    plugin = cast("FullyShardedDataParallelPlugin", accelerator.state.fsdp_plugin)
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise _refused("FSDP that offloads to the CPU", "--fsdp_offload_params false")
    if plugin.activation_checkpointing:
        raise _refused(
            "FSDP that recomputes blocks",
            "--fsdp_activation_checkpointing false, and train with --gradient-checkpointing",
        )
    if plugin.ignored_modules is not None:
        raise _refused("FSDP that leaves modules out", "no fsdp_ignored_modules")
    if accelerator.parallelism_config is not None:
        raise _refused("another parallelism beside FSDP", "no --use_parallelism_config")
    return plugin


def sharded_by_accelerate(
    accelerator: Accelerator,
    plugin: FullyShardedDataParallelPlugin,
    module: nn.Module,
    blocks: Sequence[nn.Module],
) -> FSDPModule:
    """``module`` split, each of ``blocks`` a unit of its own, gathered for its own pass alone:
    whatever the launcher says of those."""
    plugin.auto_wrap_policy = transformer_auto_wrap_policy
    plugin.transformer_cls_names_to_wrap = sorted({type(block).__name__ for block in blocks})
    # Every process has loaded the base and attached the same LoRA: none waits for another's.
    plugin.cpu_ram_efficient_loading = False
    # accelerate takes a model with its optimizer alone. Ours is made of the new parameters.
    unused = torch.optim.SGD([p for p in module.parameters() if p.requires_grad])
    wrapped = accelerator.prepare(module, unused)[0]
    assert isinstance(wrapped, FSDPModule)
    # What stays gathered after a forward without backward (a held-out score, maybe of averaged
    # weights) would be what the next update runs with.
    wrapped.set_reshard_after_forward(True)
    return wrapped


def _asked(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true")


def _not_there() -> MatrixError:
    return MatrixError(
        "accelerate was asked for FSDP, which it does only in processes that its launcher starts "
        "on GPUs; elsewhere it silently is data parallelism",
        remedy="launch without --use_fsdp and train with --shard: PyTorch's fully_shard on GPUs "
        "and CPUs",
        field="shard",
    )


def _refused(what: str, instead: str) -> MatrixError:
    return MatrixError(
        f"accelerate was asked for {what}", remedy=f"launch with {instead}", field="shard"
    )
