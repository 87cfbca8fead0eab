"""Observe queries and keys of chosen attention modules, leaving the model's outputs bit-identical.

How: inside the context each chosen module's class is a subclass of its own, whose forward runs
under a ``TorchFunctionMode`` that sees ``F.scaled_dot_product_attention``. Nothing global is
patched, no module is added, and the state dict is the same. Pre- and post-forward hooks on the
model say when its forward begins and ends: only then is anything captured. So the second forward
that gradient checkpointing makes during backward, which calls the blocks but not the model, never
overwrites a capture, and the context may stay open for a whole training.

Copies and pickles of a tapped model are ordinary, untapped models. While tapped, ``type(module)``
of a chosen module is a subclass of its class, which exact-class look-ups miss.

Works with non-reentrant checkpointing, with LoRA, under autocast, with accelerate's offloading and
with compiled blocks (the tapped module itself runs eagerly; keep one tap open rather than one a
step, since a new class means a new compilation). Does not see fused kernels that bypass PyTorch's
own attention.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from matrix_video.attention.observe import Engine, Observer, part_of
from matrix_video.attention.site import Call, Captured, Site
from matrix_video.services.errors import MatrixError

_NOT_SEEN = (
    "use PyTorch's own attention here (attention backend 'native', no xformers), switch every "
    "cache of the transformer off, and tap layers that this model runs"
)


class Captures(Mapping[str, Captured]):
    """The calls of the model's latest forward, by the names given to `tap`.

    A new forward of the model empties it first. It stays readable after the context has ended.
    """

    def __init__(self) -> None:
        self._calls: dict[str, Captured] = {}

    def __getitem__(self, name: str) -> Captured:
        if name not in self._calls:
            raise KeyError(f"no capture {name!r}; a forward of the tapped model gave {list(self)}")
        return self._calls[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def clear(self) -> None:
        """Forget the captures, which hold the graph of their forward."""
        self._calls.clear()

    def put(self, name: str, call: Captured) -> None:
        """For the tap alone."""
        self._calls[name] = call


@contextmanager
def tap(
    model: nn.Module,
    sites: Mapping[str, Site],
    *,
    keep_output: bool = False,
    require_grad: bool = False,
    engine: Engine = "auto",
    after: Callable[[Captures], None] | None = None,
) -> Generator[Captures]:
    """Observe ``sites`` (by names of the caller's choice) in every forward of ``model``.

    ``keep_output`` also keeps v and the output of each call. ``require_grad`` demands, whenever
    gradients are on, that captures carry one; without it a loss on captures of a reentrantly
    checkpointed or frozen model would train nothing in silence. ``after`` is called with the
    captures at the end of every forward of ``model`` that has any, for those who do not make the
    forwards themselves: a pipeline makes one a denoising step, or two where guidance is separate.
    Its call needs the sites' clip size and text length: pass ``backbone.call_arguments``, for stock
    pipelines have another ``max_sequence_length`` by default.

    Raises `MatrixError` for a module that is not there or whose forward was replaced (caches, hooks
    other than accelerate's); and from the model's forward for a tapped layer that did not run,
    another number of attention calls than the site says (0: another backend), other lengths of
    queries and keys, or a missing gradient.
    """
    tapped = _Tap(Captures(), keep_output, require_grad, engine, after)
    by_module: dict[str, dict[str, Site]] = {}
    for name, site in sites.items():
        by_module.setdefault(site.module, {})[name] = site
    with ExitStack() as stack:
        if by_module:
            begin, end = _Hook(tapped.begin), _Hook(tapped.end)
            stack.callback(model.register_forward_pre_hook(begin).remove)
            stack.callback(model.register_forward_hook(end, always_call=True).remove)
        for name, group in by_module.items():
            watched = _Watched(name, _find(model, name), group, tapped)
            tapped.watched.append(watched)
            stack.enter_context(watched.swapped())
        yield tapped.captures


@dataclass
class _Tap:
    """State of one context: armed between the beginning and the end of a forward of the model."""

    captures: Captures
    keep_output: bool
    require_grad: bool
    engine: Engine
    after: Callable[[Captures], None] | None
    watched: list[_Watched] = field(default_factory=list)
    armed: bool = False
    needs_grad: bool = False

    def begin(self, *_: object) -> None:
        self.captures.clear()
        for watched in self.watched:
            watched.forwards = 0
        # Asked here and not in the layer: reentrant checkpointing runs layers without gradients.
        self.needs_grad = self.require_grad and torch.is_grad_enabled()
        self.armed = True

    def end(self, module: object, inputs: object, output: object) -> None:
        del module, inputs
        if not self.armed:
            return
        self.armed = False
        if output is None:  # the forward raised: its own error tells
            self.captures.clear()
            return
        for watched in self.watched:
            if watched.forwards != 1:
                self.captures.clear()
                raise MatrixError(
                    f"the tapped layer ran {watched.forwards} times in one forward, expected once",
                    remedy=_NOT_SEEN,
                    field=watched.name,
                )
        if self.after is not None and self.captures:
            self.after(self.captures)


@dataclass
class _Watched:
    """One module under observation, and all sites that are read there."""

    name: str
    module: nn.Module
    sites: Mapping[str, Site]
    tap: _Tap
    forwards: int = 0

    @contextmanager
    def swapped(self) -> Generator[None]:
        base = type(self.module)
        # An attribute would hide the class's forward. `_find` has refused all but two kinds: the
        # class's own, as a removed hook leaves it behind, and one that wraps it to move tensors
        # between devices, which then runs inside ours.
        replaced = vars(self.module).pop("forward", None)
        swapped = _tapped_class(base, self, replaced)
        object.__setattr__(self.module, "__class__", swapped)
        try:
            yield
        finally:
            if type(self.module) is not swapped:
                raise RuntimeError(
                    f"{self.name}: its class was changed inside the tap; undo that change (another "
                    "tap, a wrapper) before the tap ends"
                )
            object.__setattr__(self.module, "__class__", base)
            if replaced is not None:
                vars(self.module).setdefault("forward", replaced)

    def observe(self, forward: Callable[[], Any]) -> Any:
        """Run the module's own forward and keep what its sites ask for."""
        if not self.tap.armed:
            return forward()
        every = any(site.per_sample for site in self.sites.values())
        wanted = None if every else {site.call for site in self.sites.values()}
        with Observer(self.name, wanted, self.tap.keep_output, self.tap.engine) as mode:
            output = forward()
        self.forwards += 1
        for name, site in self.sites.items():
            call = mode.found.get(site.call)
            if call is None or call.k.shape[-2] != site.others_keys:
                self.tap.captures.put(name, self._kept(site, mode))
        return output

    def _kept(self, site: Site, mode: Observer) -> Captured:
        """What ``site`` asks for, checked."""
        if site.per_sample:
            self._check_count(mode, 1, at_least=True)
            kept = tuple(mode.found[i] for i in range(mode.count))[site.keep]
            for call in kept:
                keys = min(call.k.shape[-2], site.num_keys)
                self._check_lengths(site.shortened(max(keys, site.text_start)), call)
            calls = kept
        else:
            self._check_count(mode, site.calls)
            self._check_lengths(site, mode.found[site.call])
            kept = part_of(mode.found[site.call], site.keep)
            calls = (kept,)
        if self.tap.needs_grad and not any(c.q.requires_grad or c.k.requires_grad for c in calls):
            raise MatrixError(
                "the captured queries and keys carry no gradient",
                remedy="use non-reentrant gradient checkpointing (use_reentrant=False) and "
                "train something in or before this layer",
                field=self.name,
            )
        return kept

    def _check_count(self, mode: Observer, expected: int, *, at_least: bool = False) -> None:
        if mode.count < expected or (mode.count > expected and not at_least):
            raise MatrixError(
                f"{mode.count} calls of scaled_dot_product_attention, expected {expected}",
                remedy=_NOT_SEEN,
                field=self.name,
            )

    def _check_lengths(self, site: Site, call: Call) -> None:
        for what, found, expected in (
            ("queries", call.q.shape[-2], site.num_queries),
            ("keys", call.k.shape[-2], site.num_keys),
        ):
            if found != expected:
                raise MatrixError(
                    f"attention over {found} {what}, expected {expected}: the site is declared for "
                    f"{site.num_video} video and {site.num_text} text tokens",
                    remedy="call the model with that clip size and text length (in a stock "
                    "pipeline num_frames, height, width and max_sequence_length, as "
                    "backbone.call_arguments gives them), or declare the site for those of the "
                    "call",
                    field=self.name,
                )


def _tapped_class(
    base: type[nn.Module], watched: _Watched, replaced: Callable[..., Any] | None
) -> type[nn.Module]:
    """A subclass of ``base`` that reports to ``watched``. All state is in the class.

    ``replaced``: forward of the one module that will be of this class, if it has one of its own.
    """
    stock: type[nn.Module] = vars(base).get("_matrix_stock", base)  # differs where taps nest
    offloading = vars(base).get("_matrix_replaced", replaced)

    @torch.compiler.disable
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        own = partial(base.forward, self) if replaced is None else replaced
        return watched.observe(lambda: own(*args, **kwargs))

    def reduce(self: nn.Module, protocol: object) -> tuple[Any, ...]:
        # Copies and pickles are ordinary modules: a copy must not report into this tap.
        kept = {} if offloading is None else {"forward": offloading}
        return _blank, (stock,), {**self.__getstate__(), **kept}

    body = {
        "forward": forward,
        "__reduce_ex__": reduce,
        "__module__": base.__module__,
        "_matrix_stock": stock,
        "_matrix_replaced": offloading,
    }
    return type(f"Tapped{stock.__name__}", (base,), body)


def _blank(cls: type[nn.Module]) -> nn.Module:
    return cls.__new__(cls)


class _Hook:
    """A hook of the model that a deep copy of the model does not inherit."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = torch.compiler.disable(function)

    def __call__(self, *args: Any) -> None:
        self.function(*args)

    def __deepcopy__(self, memo: object) -> Callable[..., None]:
        return _nothing

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (_nothing,)


def _nothing(*_: object) -> None:
    """What is left of the tap's hooks in a copy of the model."""


def _find(model: nn.Module, name: str) -> nn.Module:
    modules = dict(model.named_modules())
    if name not in modules or not name:
        near = difflib.get_close_matches(name, modules, n=4, cutoff=0.4)
        raise MatrixError(
            f"{type(model).__name__} has no module of this name",
            remedy=f"near names are {', '.join(near) or 'none'}",
            field=name,
        )
    module = modules[name]
    forward = vars(module).get("forward")
    own = type(module).forward.__get__(module)
    if forward is not None and forward != own and not _offloads(module, forward, own):
        raise MatrixError(
            "the forward of this module was replaced, so it cannot be observed",
            remedy="disable caches and other hooks of the transformer first (accelerate's hooks, "
            "which offload, are fine)",
            field=name,
        )
    return module


def _offloads(module: nn.Module, forward: Any, own: Callable[..., Any]) -> bool:
    """Whether ``forward`` is that of an accelerate hook on this very module, around its ``own``.

    Such hooks move parameters, inputs and outputs, and always run the forward that they wrap. A
    cache, which may leave it out, is recognised by being neither of the two forwards.
    """
    return (
        isinstance(forward, partial)
        and forward.func.__module__ == "accelerate.hooks"
        and forward.args == (module,)
        and vars(module).get("_old_forward") == own
    )
