"""Counting what a run allocates and computes, piece by piece.

A run is cut into segments: a layer's forward, the losses, a layer's backward, and so on. Each knows
how much it left behind and how far it reached above its start. Layers that are alike give alike
segments, so a model of forty layers need not be run in full: segments are repeated (`stretched`)
and the timeline is put together again (`peak_of`).
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from torch import Tensor

from matrix_video.plan.machine import Machine, Work


@dataclass(frozen=True)
class Segment:
    """Part of a run. Bytes are relative to what was live when it began."""

    name: str
    layer: int | None = None
    """Layer whose forward, maps or backward it is."""
    grew: int = 0
    """Bytes that it left behind; negative where it freed more."""
    peak: int = 0
    """Largest growth within."""
    gradients: int = 0
    """Part of what it left behind that is gradients of trained parameters."""
    flops: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Peak:
    """The moment of a run at which most is allocated."""

    bytes: int
    """Above what was live before the first segment."""
    segment: Segment
    gradients: int
    """Part of it that is gradients of trained parameters."""


@dataclass(eq=False)
class Meter:
    """Live bytes of tensors without memory, by storage, and the work done on them."""

    machine: Machine
    live: int = 0
    segments: list[Segment] = field(default_factory=list[Segment])
    _name: str = ""
    _layer: int | None = None
    _start: int = 0
    _top: int = 0
    _gradients: int = 0
    _flops: float = 0.0
    _seconds: float = 0.0
    _known: set[int] = field(default_factory=set[int])

    def mark(self, name: str, layer: int | None = None) -> None:
        """End the current segment and begin another."""
        self.close()
        self._name, self._layer = name, layer
        self._start = self._top = self.live
        self._gradients, self._flops, self._seconds = 0, 0.0, 0.0

    def close(self) -> None:
        """End the current segment."""
        if self._name:
            self.segments.append(
                Segment(
                    self._name,
                    self._layer,
                    self.live - self._start,
                    self._top - self._start,
                    self._gradients,
                    self._flops,
                    self._seconds,
                )
            )
        self._name = ""

    def take(self) -> tuple[Segment, ...]:
        """All segments until now, which are then forgotten."""
        self.close()
        taken, self.segments = tuple(self.segments), []
        return taken

    def saw(self, tensor: Tensor) -> bool:
        """Count the tensor's storage unless it is known; whether it was new."""
        storage = tensor.untyped_storage()
        key: int = storage._cdata  # pyright: ignore[reportPrivateUsage] # the storage's identity
        if key in self._known:
            return False
        size = storage.nbytes()
        self._known.add(key)
        self.live += size
        self._top = max(self._top, self.live)
        # The Python object of a storage lives as long as the storage, whoever holds it.
        weakref.finalize(storage, self._forget, key, size)
        return True

    def worked(self, work: Work) -> None:
        """Count an operation."""
        self._flops += work.flops
        self._seconds += self.machine.seconds(work)

    def needed(self, scratch: int) -> None:
        """Count memory that an operation took beside its result, and gave back."""
        self._top = max(self._top, self.live + scratch)

    def gradient(self, gradient: Tensor) -> None:
        """Say that this is the gradient of a trained parameter."""
        self._gradients += gradient.untyped_storage().nbytes()

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def stretched(segments: Sequence[Segment], runs: Sequence[tuple[int, ...]]) -> tuple[Segment, ...]:
    """The segments of the whole model; ``runs[i]`` are the layers that layer ``i`` stands for.

    What belongs to one layer and stands together is repeated together; forwards in the order of
    the layers, backwards in the reverse one.
    """
    out: list[Segment] = []
    for layer, members in groupby(segments, key=lambda segment: segment.layer):
        group = list(members)
        if layer is None:
            out += group
            continue
        run = runs[layer]
        backward = any(segment.name == BACKWARD for segment in group)
        for own in reversed(run) if backward else run:
            out += [replace(segment, layer=own) for segment in group]
    return tuple(out)


def peak_of(segments: Sequence[Segment]) -> Peak:
    """The largest sum along the timeline."""
    live = gradients = 0
    best = Peak(0, segments[0], 0)
    for segment in segments:
        if live + segment.peak > best.bytes:
            best = Peak(live + segment.peak, segment, gradients)
        live += segment.grew
        gradients += segment.gradients
    return best


def by_layer(segments: Sequence[Segment], name: str) -> Mapping[int, Segment]:
    """Segments of this name, by layer; several of one layer are added."""
    found: dict[int, Segment] = {}
    for one in segments:
        if one.name != name or one.layer is None:
            continue
        had = found.get(one.layer, Segment(name, one.layer))
        found[one.layer] = Segment(
            name,
            one.layer,
            had.grew + one.grew,
            max(had.peak, had.grew + one.peak),
            had.gradients + one.gradients,
            had.flops + one.flops,
            had.seconds + one.seconds,
        )
    return found


FORWARD = "forward"
AFTER = "after the layer"
BACKWARD = "backward"
MAPS = "maps"
