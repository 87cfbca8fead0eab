"""A run on one process or on many: whose parameters are where, and what is averaged.

accelerate starts the processes and wraps the student: for data parallelism (DDP), or, on GPUs and
where the launcher asks for it, by FSDP2. `--shard` splits the parameters in the same way with
PyTorch's ``fully_shard``, on CPUs too, where accelerate's FSDP would silently be DDP.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import InitProcessGroupKwargs, gather_object
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from matrix_video.backbones.processes import PATIENCE
from matrix_video.services.errors import MatrixError
from matrix_video.training.config import TrainConfig
from matrix_video.training.fsdp import check_fsdp_environment, fsdp_plugin, sharded_by_accelerate


class Trainee(nn.Module):
    """All modules that a run's forward passes use, so that one wrapper sees them all.

    Its forward is whatever it is given to run: wrappers do their work around it.
    """

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, run: Callable[[], Tensor]) -> Tensor:
        return run()


class Parallel:
    """The processes of a run, and the student as they share it."""

    def __init__(self, accelerator: Accelerator, *, shard: bool) -> None:
        """``shard``: parameters are split, and DTensors; so they are where accelerate's launcher
        asks for FSDP.

        Raises `MatrixError` where that would not be FSDP, or not one that a run can do with.
        """
        self.accelerator = accelerator
        self._plugin = fsdp_plugin(accelerator)
        self.shard = shard or self._plugin is not None
        self._wrapped: nn.Module | None = None
        self._alone = False

    @property
    def processes(self) -> int:
        return self.accelerator.num_processes

    @property
    def index(self) -> int:
        """Rank of this process."""
        return self.accelerator.process_index

    def place(self, trainee: Trainee, blocks: Sequence[nn.Module]) -> None:
        """Wrap ``trainee``; its parameters are replaced where they are split. ``blocks`` are the
        parts of it that are gathered one at a time."""
        if self._plugin is not None:
            wrapped = sharded_by_accelerate(self.accelerator, self._plugin, trainee, blocks)
            self._wrapped = cast("nn.Module", wrapped)
        elif self.shard:
            device = self.accelerator.device
            self._alone = not torch.distributed.is_initialized()
            if self._alone:
                _start_alone(device)
            mesh = init_device_mesh(device.type, (self.processes,))
            for block in blocks:
                fully_shard(block, mesh=mesh)
            # Also of the root, which by default would stay whole after a forward without backward.
            fully_shard(trainee, mesh=mesh, reshard_after_forward=True)
            self._wrapped = trainee
        elif self.processes > 1:
            self._wrapped = cast("nn.Module", self.accelerator.prepare(trainee))
        else:
            self._wrapped = trainee

    def run(self, work: Callable[[], Tensor]) -> Tensor:
        """``work`` as a forward pass of the wrapped student; returns what it returns."""
        assert self._wrapped is not None
        return cast("Tensor", self._wrapped(work))

    def accumulating(self, *, last: bool) -> AbstractContextManager[object]:
        """Around forward and backward of one part of an update: gradients are averaged over
        processes in the ``last`` one alone."""
        if isinstance(self._wrapped, FSDPModule):
            self._wrapped.set_requires_gradient_sync(last)
            return nullcontext()
        if last or self.processes == 1:
            return nullcontext()
        return cast("AbstractContextManager[object]", self.accelerator.no_sync(self._wrapped))

    def gathered(self, values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """``values`` of all processes, in all processes."""
        if self.processes == 1:
            return [values]
        return cast("list[Mapping[str, Any]]", gather_object([dict(values)]))

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is up in any process."""
        return any(found["flag"] for found in self.gathered({"flag": flag}))

    def end(self) -> None:
        """Close trackers; the run writes no more."""
        for tracker in self.accelerator.trackers:
            tracker.finish()
        if self._alone:
            torch.distributed.destroy_process_group()

    def wait(self) -> None:
        """Until all processes are here."""
        self.accelerator.wait_for_everyone()


def make_accelerator(config: TrainConfig) -> Accelerator:
    """What accelerate finds in the environment, with the tracker that is asked for.

    Parameters that an update leaves out (a decoder whose terms have no map there) are allowed for.
    Raises `MatrixError` where the launcher was asked for another precision than the run, or for
    FSDP that would not be.
    """
    unused = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    tracked = None if config.tracker == "none" else config.tracker
    _check_precision(config)
    check_fsdp_environment()
    accelerator = Accelerator(
        mixed_precision="no",  # ours is around the transformer alone: maps and losses are float32
        kwargs_handlers=[unused, InitProcessGroupKwargs(timeout=PATIENCE)],
        log_with=tracked,
        project_dir=str(config.out),
    )
    if tracked is not None:
        if not accelerator.log_with:
            raise MatrixError(
                f"{tracked} is not installed",
                remedy="install the extra: pip install 'matrix-video[tracking]'",
                field="tracker",
            )
        told = {k: v for k, v in config.model_dump(mode="json").items() if _simple(v)}
        accelerator.init_trackers("matrix", config=told)
    return accelerator


def _check_precision(config: TrainConfig) -> None:
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if asked == "no" or (asked == "bf16" and config.precision != "no"):
        return
    raise MatrixError(
        f"accelerate was asked for mixed precision {asked}, the run for --precision "
        f"{config.precision}",
        remedy="launch with --mixed_precision no, and choose with --precision: bf16 is that of the "
        "transformer's forward pass, maps and losses stay in float32",
        field="precision",
    )


def _simple(value: object) -> bool:
    return isinstance(value, int | float | str | bool)


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of one that may be split; all processes must ask together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def placed_as(tensor: Tensor, like: Tensor) -> Tensor:
    """A full tensor split, and put on a device, as ``like`` is."""
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    mesh = like.device_mesh
    return distribute_tensor(tensor.to(mesh.device_type), mesh, like.placements)


def clip_gradients(parameters: Iterable[Tensor], largest: float) -> float:
    """Scale gradients down to a norm of at most ``largest``; the norm before, of all parts."""
    return whole(nn.utils.clip_grad_norm_(parameters, largest)).item()


def _start_alone(device: torch.device) -> None:
    """A process group of one, where no launcher has made one."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
