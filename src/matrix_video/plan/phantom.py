"""Running a model's code on tensors that have shapes and no memory.

Weights and activations are PyTorch's fake tensors. What decides the course of the code (masks,
indices, positions: small tensors made from nothing or handed in) is real, so that code which looks
at values goes the way it would go. Where it asks for a value of a fake tensor it is told 0.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,  # pyright: ignore[reportPrivateUsage]
)
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.flop_counter import flop_registry

from matrix_video.plan.machine import Kind, Work
from matrix_video.plan.meter import AFTER, BACKWARD, FORWARD, Meter

_ATEN: Final = torch.ops.aten
_FLASH: Final = _ATEN._scaled_dot_product_flash_attention_for_cpu.default
_FLASH_BACKWARD: Final = _ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default
_INDEXING: Final = {
    _ATEN.index.Tensor,
    _ATEN.index_put.default,
    _ATEN.index_put_.default,
    _ATEN._index_put_impl_.default,
}
_CONTROL: Final = 1 << 22
"""Elements up to which a tensor may be one that decides the course of the code."""


class Phantom(TorchDispatchMode):
    """Within, operations on fakes are counted and not done.

    ``flash`` says whether attention runs through the kernel that the tap's fast engine reads (a
    CPU's). A GPU's kernels keep the same tensors for the backward pass, and are modelled by it.
    """

    def __init__(self, meter: Meter, *, flash: bool) -> None:
        super().__init__()
        self.meter, self.flash = meter, flash
        self._fakes = FakeTensorMode(allow_non_fake_inputs=True)

    def fake(self, tensor: Tensor) -> Tensor:
        """A fake of the tensor's shape and dtype (of a meta tensor too)."""
        if isinstance(tensor, FakeTensor):
            return tensor
        if tensor.is_meta:
            make = self._fakes.fake_tensor_converter.from_meta_and_device
            return make(self._fakes, tensor.detach(), torch.device("cpu"))
        return self._fakes.from_tensor(tensor.detach())

    def adopt(self, module: nn.Module) -> None:
        """Make fakes of a module's parameters and buffers; tied ones stay tied."""
        made: dict[int, Any] = {}
        for part in module.modules():
            for name, own in list(part.named_parameters(recurse=False)):
                if id(own) not in made:
                    made[id(own)] = nn.Parameter(self.fake(own), requires_grad=own.requires_grad)
                setattr(part, name, made[id(own)])
            for name, own in list(part.named_buffers(recurse=False)):
                made.setdefault(id(own), self.fake(own))
                setattr(part, name, made[id(own)])
        for tensor in made.values():
            self.meter.saw(tensor)

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Any = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return func(*args, **kwargs)
        given = _tensors((*args, *kwargs.values()))
        fakes = [x for x in given if isinstance(x, FakeTensor)]
        if func is _ATEN._local_scalar_dense.default and fakes:
            return torch.zeros((), dtype=fakes[0].dtype).item()
        if func is _ATEN._fused_sdp_choice.default and fakes:
            chosen = SDPBackend.FLASH_ATTENTION if self.flash else SDPBackend.EFFICIENT_ATTENTION
            return chosen.value
        if not fakes and (func.is_view or all(x.numel() <= _CONTROL for x in given)):
            out = self._from_nothing(func, args, kwargs) if not given else func(*args, **kwargs)
        else:
            if func in _INDEXING:
                args = (args[0], _places(args[1]), *args[2:])
            if len(fakes) < len(given):
                args, kwargs = tree_map_only(Tensor, self.fake, (args, kwargs))
            with self._fakes:
                out = func(*args, **kwargs)
        self._count(func, args, kwargs, given, out)
        return out

    def _from_nothing(self, func: Any, args: Any, kwargs: Any) -> Any:
        with self._fakes:
            out = func(*args, **kwargs)
        small = isinstance(out, Tensor) and out.numel() <= _CONTROL
        return func(*args, **kwargs) if small else out

    def _count(self, func: Any, args: Any, kwargs: Any, given: list[Tensor], out: Any) -> None:
        made = _tensors((out,))
        fresh = [self.meter.saw(x) for x in made]
        if func is _ATEN.convolution.default and not self.meter.machine.gpu:
            self.meter.needed(_columns(args, out))
        kind, flops = _arithmetic(func, args, kwargs, out)
        if not made or not (flops or any(fresh) or func._schema.is_mutable):
            return  # a view: nothing moves
        moved = sum(x.numel() * x.element_size() for x in (*given, *made))
        self.meter.worked(Work(kind, flops, moved, made[0].dtype))


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """Those among an operation's arguments or results, which nest no deeper than this."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [x for x in value if isinstance(x, Tensor)]
    return found


def _places(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Positions in the place of real masks: how many they choose must be known."""
    out: list[Tensor | None] = []
    for index in indices:
        if index is None or isinstance(index, FakeTensor):
            out.append(index)
        elif index.dtype == torch.bool:
            out += index.nonzero().unbind(dim=1)
        else:
            out.append(index)
    return out


def _columns(args: Any, out: Tensor) -> int:
    """Bytes of the unfolded input of a CPU convolution whose kernel unfolds it: the one for three
    axes does, and takes the kernel's volume times as much memory as the input."""
    weight = args[1]
    if weight.ndim != 5 or weight[0, 0].numel() == 1:
        return 0
    native: Any = torch._C  # pyright: ignore[reportPrivateUsage] # no public way to ask
    with _disable_current_modes():
        # Never touched, so without memory: the choice depends on shapes and dtype alone.
        like = [None if x is None else torch.empty(x.shape, dtype=x.dtype) for x in args[:3]]
        backend = native._select_conv_backend(*like, *args[3:9])
    if backend != native._ConvBackend.Slow3d:
        return 0
    places = out.shape[0] * out[0, 0].numel()
    return places * weight[0].numel() * out.element_size()


def _arithmetic(func: Any, args: Any, kwargs: Any, out: Any) -> tuple[Kind, float]:
    if func is _FLASH:
        return "attention", 4.0 * args[0].numel() * args[1].shape[-2]
    if func is _FLASH_BACKWARD:  # five products in the place of two, P among them once more
        return "attention", 10.0 * args[1].numel() * args[2].shape[-2]
    packet = func._overloadpacket
    if packet in flop_registry:
        return "matmul", float(flop_registry[packet](*args, **kwargs, out_val=out))
    return "memory", 0.0


@contextmanager
def as_on_gpu(model: nn.Module) -> Generator[None]:
    """Within, norms under autocast run in float32, as a GPU's autocast does and a CPU's does not.

    By hooks: they see the second forward of checkpointing too.
    """

    def widen(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not torch.is_autocast_enabled("cpu"):
            return None
        return tuple(x.float() if isinstance(x, Tensor) else x for x in inputs)

    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm)]
    handles = [norm.register_forward_pre_hook(widen) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def layers_marked(
    meter: Meter, layers: Mapping[int, nn.Module], model: nn.Module
) -> Generator[Callable[[], None]]:
    """Within, each layer's forward, and its backward, is a segment of its own.

    What ``model`` does between two is the first one's, and what follows its forward is "losses".
    What is yielded says that forwards which come now are those of checkpointing, and part of a
    backward.
    """
    state = {"backward": False}
    handles: list[Any] = []

    def watch(index: int, layer: nn.Module) -> None:
        def begin(*_: object) -> None:
            if not state["backward"]:
                meter.mark(FORWARD, index)

        def end(_module: nn.Module, _inputs: object, output: object) -> None:
            if state["backward"]:
                return
            meter.mark(AFTER, index)
            for tensor in tree_iter(output):
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    tensor.register_hook(arrived)

        marked: list[bool] = []

        def arrived(_gradient: Tensor) -> None:
            if not marked:
                marked.append(True)
                meter.mark(BACKWARD, index)

        handles.append(layer.register_forward_pre_hook(begin))
        handles.append(layer.register_forward_hook(end))

    def left(*_: object) -> None:
        meter.mark("losses")

    def only_again() -> None:
        state["backward"] = True

    for index, layer in layers.items():
        watch(index, layer)
    handles.append(model.register_forward_hook(left))
    try:
        yield only_again
    finally:
        for handle in handles:
            handle.remove()
