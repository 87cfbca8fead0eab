"""Which layers must be run: of many that are alike, three.

The first and the last of a row of layers that are alike may differ from the rest by what stands
beside them (the first needs no gradient of its input, say), so both are kept, and one between them
stands for all between them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

_KEYS: Final = {"single_transformer_blocks": "num_single_layers"}
"""Configuration that counts a list of layers, where it is not ``num_layers``."""


@dataclass(frozen=True)
class Depth:
    """``runs[i]``: the layers that layer ``i`` of the shortened model stands for, in order."""

    runs: tuple[tuple[int, ...], ...]
    config: Mapping[str, int]
    """What makes the transformer that short."""

    def short(self, layers: Sequence[int]) -> tuple[int, ...]:
        """Positions of ``layers`` in the shortened model, those that stand for any of them."""
        return tuple(i for i, run in enumerate(self.runs) if set(run) & set(layers))


def shortened(names: Sequence[str], kinds: Sequence[Hashable], config: Mapping[str, Any]) -> Depth:
    """A depth at which all that is unlike is still there.

    ``names`` of the layers, what each of them is (None: alike to none), and the transformer's
    configuration. All layers stay where it does not say how many there are.
    """
    lists = [name.rpartition(".")[0] for name in names]
    runs: list[tuple[int, ...]] = []
    counts: dict[str, int] = {}
    for group, members in groupby(range(len(names)), key=lists.__getitem__):
        layers = list(members)
        key = _KEYS.get(group, "num_layers")
        if config.get(key) != len(layers) or key in counts:
            return Depth(tuple((i,) for i in range(len(names))), {})
        before = len(runs)
        for kind, alike in groupby(layers, key=kinds.__getitem__):
            run = tuple(alike)
            if kind is None or len(run) <= 3:
                runs += [(i,) for i in run]
            else:
                runs += [run[:1], run[1:-1], run[-1:]]
        counts[key] = len(runs) - before
    return Depth(tuple(runs), counts)
