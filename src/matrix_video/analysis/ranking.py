"""Influential layers: those that look at the right place in most samples.

Shapes: S samples, L layers.

Paper section 4: the ten layers of highest AAS of CogVideoX-5B's 42 are taken per sample, and layers
are ordered by how often they are among them and by their mean AAS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matrix_video.analysis.records import Measure, Table, Words
from matrix_video.attention.site import Kind


@dataclass(frozen=True)
class Group:
    """One kind of map and one class of words, averaged over noise levels, then over phrases."""

    kind: Kind
    words: Words
    samples: tuple[str, ...]
    aas_SL: NDArray[np.float64]
    log_lift_SL: NDArray[np.float64]
    binding_SL: NDArray[np.float64]
    """NaN where a sample has no rival."""
    area_S: NDArray[np.float64]

    @property
    def num_layers(self) -> int:
        return self.aas_SL.shape[1]


def top_count(num_layers: int) -> int:
    """How many layers are influential: ``max(2, round(10·L/42))``, at most all.

    Paper: the top ten of 42. The share is kept for models of other depth (our choice).
    """
    return min(num_layers, max(2, round(10 * num_layers / 42)))


def make_group(table: Table, kind: Kind, words: Words, num_layers: int) -> Group:
    """Collect the table's whole-layer rows of one kind and class of words.

    A sample's value in a layer is the mean over its noise levels and phrases. Samples without such
    a phrase, or with nothing visible to score, are left out. Raises ``ValueError`` when a sample
    lacks a layer: then its rows are incomplete.
    """
    table = table.of(kind, words)
    samples, rows = np.unique(table.text("sample"), return_inverse=True)
    layers = table.index("layer")

    def mean(measure: Measure) -> NDArray[np.float64]:
        return table.means(measure, rows, layers, (len(samples), num_layers))

    aas_SL, area_SL = mean("aas"), mean("area")
    if np.isnan(aas_SL).any():
        bad = samples[np.isnan(aas_SL).any(axis=1)][0]
        raise ValueError(f"sample {bad} was not measured in all {num_layers} layers")
    return Group(
        kind=kind,
        words=words,
        samples=tuple(str(name) for name in samples),
        aas_SL=aas_SL,
        log_lift_SL=mean("log_lift"),
        binding_SL=mean("binding"),
        area_S=area_SL.mean(axis=1) if len(samples) else np.zeros(0),
    )


@dataclass(frozen=True)
class Ranking:
    """Layers in order of influence, best first, with what the order rests on."""

    order: tuple[int, ...]
    """All layers."""
    count: int
    """How many of them are influential."""
    frequency_L: NDArray[np.float64]
    """Share of samples in which the layer is among the ``count`` of highest AAS."""
    mean_aas_L: NDArray[np.float64]

    @property
    def influential(self) -> tuple[int, ...]:
        return self.order[: self.count]


def rank_layers(aas_SL: NDArray[np.float64]) -> Ranking:
    """Order layers by the sum of two ranks: frequency among the top `top_count`, and mean AAS.

    Equal values share a rank; equal rank sums go to the higher mean AAS, then to the lower index.
    Raises ``ValueError`` without samples.
    """
    samples, layers = aas_SL.shape
    if samples == 0:
        raise ValueError("no samples to rank layers by")
    count = top_count(layers)
    top_SK = np.argsort(-aas_SL, axis=1, kind="stable")[:, :count]
    frequency_L = np.bincount(top_SK.ravel(), minlength=layers) / samples
    mean_aas_L = aas_SL.mean(axis=0)
    total_L = _ranks(frequency_L) + _ranks(mean_aas_L)
    order = sorted(range(layers), key=lambda i: (int(total_L[i]), -float(mean_aas_L[i]), i))
    return Ranking(tuple(order), count, frequency_L, mean_aas_L)


def _ranks(values_L: NDArray[np.float64]) -> NDArray[np.int64]:
    """1 for the greatest; equal values share the better rank."""
    return 1 + (values_L[None, :] > values_L[:, None]).sum(axis=1)
