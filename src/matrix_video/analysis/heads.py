"""Heads: which of a layer's attention heads follow the masks.

Shapes: S samples, A attention heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from matrix_video.analysis.records import Measure, Table, Words
from matrix_video.attention.site import Kind

BEST: Final = 3
"""Heads named of each layer and class of words."""


@dataclass(frozen=True)
class HeadEvidence:
    """One head of a chosen layer; means over samples as for whole layers."""

    kind: Kind
    words: Words
    layer: int
    head: int
    aas: float
    log_lift: float
    binding: float | None
    """None where no sample has a rival."""


def best_heads(
    table: Table, kind: Kind, words: Words, layers: Sequence[int], *, count: int = BEST
) -> tuple[HeadEvidence, ...]:
    """The ``count`` heads of highest AAS of each layer, best first; none in a table without heads.

    A head's AAS is the mean over samples of the mean over noise levels and phrases. A head's map
    can follow a mask better than the layer's, which is the mean of all its heads.
    """
    of_heads = table.of(kind, words, heads=True)
    found: list[HeadEvidence] = []
    for layer in layers:
        rows = of_heads.take(of_heads.index("layer") == layer)
        if not len(rows):
            continue
        aas_A, lift_A, binding_A = (_means(rows, m) for m in ("aas", "log_lift", "binding"))
        for head in np.argsort(-aas_A, kind="stable")[:count]:
            binding = float(binding_A[head])
            found.append(
                HeadEvidence(
                    kind=kind,
                    words=words,
                    layer=layer,
                    head=int(head),
                    aas=float(aas_A[head]),
                    log_lift=float(lift_A[head]),
                    binding=None if np.isnan(binding) else binding,
                )
            )
    return tuple(found)


def _means(rows: Table, measure: Measure) -> NDArray[np.float64]:
    """Mean [A] over samples, of those in which the measure is there."""
    samples, of_sample = np.unique(rows.text("sample"), return_inverse=True)
    heads = rows.index("head")
    mean_SA = rows.means(measure, of_sample, heads, (len(samples), int(heads.max()) + 1))
    present_SA = ~np.isnan(mean_SA)
    total_A = np.where(present_SA, mean_SA, 0).sum(axis=0)
    count_A = present_SA.sum(axis=0)
    return np.divide(total_A, count_A, out=np.full(len(count_A), np.nan), where=count_A > 0)
