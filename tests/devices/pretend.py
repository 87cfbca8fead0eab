"""A GPU that is none: tensors that say ``cuda:0``, and compute on the CPU what a GPU would.

What a GPU refuses is refused: operations on tensors of both devices, a CPU's generator for a GPU's
noise, numpy's view of a GPU's memory. So code that forgets to move a tensor fails here as it would
there, and what does not fail has the values of the CPU. It says nothing of speed, of memory, of
kernels or of autocast, which is off.

A `GpuTensor` looks like a CPU's to PyTorch's own C++ code, which has no CUDA where this is needed;
Python alone is told otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda:0")
CPU = torch.device("cpu")
aten = torch.ops.aten
WRITES_AT_INDICES = (aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)


def is_gpu(device: object) -> bool:
    return device is not None and torch.device(device).type == "cuda"


class GpuTensor(Tensor):
    """A tensor of the GPU; ``inner`` has the values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> GpuTensor:
        assert type(inner) in (Tensor, nn.Parameter), type(inner)
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=CPU,
        )
        made.inner = inner
        return made

    @property
    def device(self) -> torch.device:
        return GPU

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return _called(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _computed(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"GpuTensor({self.inner!r})"


class _Move(torch.autograd.Function):
    """To the other device, and gradients back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
        ctx.was_gpu, ctx.dtype = isinstance(tensor, GpuTensor), tensor.dtype
        moved = _inner(tensor).detach().clone().to(dtype or tensor.dtype)
        return moved if ctx.was_gpu else GpuTensor(moved)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = _inner(gradients[0]).to(ctx.dtype)
        return (GpuTensor(gradient) if ctx.was_gpu else gradient), None


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, GpuTensor) else value


def _called(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A function of PyTorch that moves a tensor or leaves PyTorch, or any other one as it is."""
    first = args[0] if args else None
    if func is Tensor.to:
        device, dtype = kwargs.get("device"), kwargs.get("dtype")
        for given in args[1:]:
            if isinstance(given, torch.dtype):
                dtype = given
            elif isinstance(given, str | torch.device):
                device = given
            elif isinstance(given, int) and not isinstance(given, bool):
                device = GPU
            elif isinstance(given, Tensor):
                device, dtype = given.device, given.dtype
        mine = isinstance(first, GpuTensor)
        if device is not None and is_gpu(device) != mine:
            return _Move.apply(first, dtype)
        copy = bool(kwargs.get("copy"))
        return first if dtype is None and not copy else func(first, dtype or first.dtype, copy=copy)
    if isinstance(first, GpuTensor):
        if func is Tensor.cpu:
            return _Move.apply(first, None)
        if func is Tensor.tolist:
            return first.inner.tolist()
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy: use Tensor.cpu()")
    return func(*args, **kwargs)


def _computed(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """One operation, on the device that its tensors, or else its options, name."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    mine = any(isinstance(tensor, GpuTensor) for tensor in tensors)
    # Gradients of what was not used are zeros that C++ makes, for a CPU as it thinks.
    unused = func is aten.zeros.default and torch._C._current_graph_task_id() != -1
    gpu = mine or unused or is_gpu(kwargs.get("device"))
    if mine:
        _check_places(func, args, tensors)
    generator = kwargs.get("generator")
    if gpu and generator is not None and generator.device.type == "cpu":
        raise RuntimeError("expected a 'cuda' device type for generator but found 'cpu'")
    told = {**kwargs, "device": CPU} if is_gpu(kwargs.get("device")) else kwargs
    plain_args, plain_kwargs = tree_map(_inner, (args, told))
    found = func(*plain_args, **plain_kwargs)
    written = [a for a in func._schema.arguments if _written(a)]
    if written and isinstance(found, Tensor):  # in place: what was given is returned
        name = written[0].name
        names = [argument.name for argument in func._schema.arguments]
        return kwargs[name] if name in kwargs else args[names.index(name)]
    return tree_map(lambda x: GpuTensor(x) if type(x) is Tensor else x, found) if gpu else found


def _written(argument: Any) -> bool:
    """Whether an operation writes to this argument."""
    return argument.alias_info is not None and argument.alias_info.is_write


def _check_places(func: Any, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    """What a GPU says of tensors that are elsewhere. A CPU's number may be read elementwise."""
    if func is aten.copy_.default:
        return
    numbers = torch.Tag.pointwise in func.tags or func is aten.fill_.Tensor
    if func is aten.index.Tensor:  # indices may be anywhere, but for a CPU's tensor
        tensors = args[:1]
    elif func in WRITES_AT_INDICES:
        tensors, numbers = [args[0], args[2]], True
    written = [a for a, told in zip(args, func._schema.arguments, strict=False) if _written(told)]
    others = [
        tuple(t.shape)
        for t in tensors
        if not isinstance(t, GpuTensor)
        and not (numbers and t.dim() == 0 and not any(t is w for w in written))
    ]
    if others:
        raise RuntimeError(f"{func}: some tensors are on cuda:0, and of shape {others} on the cpu")


class _Functions(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _called(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _computed(func, args, kwargs or {})


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """``cuda:0`` exists within."""
    lazy_init = torch.cuda._lazy_init
    lifts = torch._C._only_lift_cpu_tensors()
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.cuda._lazy_init = lambda: None
    torch._C._set_only_lift_cpu_tensors(True)
    # A parameter cannot turn into one of another class; modules get new ones.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Functions(), _Operations():
            yield
    finally:
        torch.cuda._lazy_init = lazy_init
        torch._C._set_only_lift_cpu_tensors(lifts)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
