"""Analyses: ``layers.json`` and the overlays beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matrix_video.report.charts import KIND_NAMES
from matrix_video.report.collect.runs import LAYERS, OVERLAYS, Record, Run
from matrix_video.report.content import (
    Agreement,
    Contrast,
    HeadScore,
    Kind,
    LayerGroup,
    LayerScore,
    LayerScores,
    Overlay,
    Sinks,
    Words,
)
from matrix_video.services.records import read_record

_OVERLAY = re.compile(r"(?P<sample>.+)_(?P<kind>v2t|v2v)_layer(?P<layer>[0-9]+)")


class _Named(Record):
    name: str


class _Data(Record):
    path: str
    samples: int


class _Layer(Record):
    layer: int
    aas: float
    log_lift: float
    binding: float | None


class _Contrast(Record):
    layer: int
    difference: float
    low: float
    high: float


class _Stability(Record):
    splits: int
    mean: float
    low: float
    top_shared: float


class _Sinks(Record):
    layer: int
    shares: dict[str, float]


class _Head(Record):
    kind: Kind
    words: Words
    layer: int
    head: int
    aas: float
    log_lift: float


class _Group(Record):
    kind: Kind
    words: Words
    samples: int
    influential: tuple[int, ...]
    layers: tuple[_Layer, ...]
    successes: int
    failures: int
    contrasts: tuple[_Contrast, ...]
    dominant: tuple[int, ...]
    stability: _Stability | None = None


class _Evidence(Record):
    basis: dict[Kind, str]
    groups: tuple[_Group, ...]
    warnings: tuple[str, ...]
    sinks: tuple[_Sinks, ...] = ()
    heads: tuple[_Head, ...] = ()


class _Choice(Record):
    """The part of ``layers.json`` that the page shows."""

    format: Literal[1]
    model: _Named
    data: _Data
    v2t: tuple[int, ...]
    v2v: tuple[int, ...]
    evidence: _Evidence


def layer_scores(run: Run, overlays: Sequence[Overlay] = ()) -> LayerScores:
    """Read an analysis; `MatrixError` names the field that is wrong."""
    choice = read_record(
        run.path / LAYERS,
        _Choice,
        what="a choice of layers",
        remedy="Give the folder of a finished matrix analyze run",
    )
    return LayerScores(
        label=run.label,
        model=choice.model.name,
        data=choice.data.path,
        samples=choice.data.samples,
        chosen={"v2t": choice.v2t, "v2v": choice.v2v},
        basis=choice.evidence.basis,
        groups=tuple(_group(group) for group in choice.evidence.groups),
        warnings=choice.evidence.warnings,
        overlays=tuple(overlays),
        sinks=tuple(Sinks(one.layer, one.shares) for one in choice.evidence.sinks),
        heads=tuple(HeadScore(**one.model_dump()) for one in choice.evidence.heads),
    )


def _group(group: _Group) -> LayerGroup:
    return LayerGroup(
        kind=group.kind,
        words=group.words,
        samples=group.samples,
        layers=tuple(LayerScore(s.layer, s.aas, s.log_lift, s.binding) for s in group.layers),
        influential=group.influential,
        dominant=group.dominant,
        contrasts=tuple(Contrast(c.layer, c.difference, c.low, c.high) for c in group.contrasts),
        successes=group.successes,
        failures=group.failures,
        agreement=None if group.stability is None else Agreement(**group.stability.model_dump()),
    )


@dataclass(frozen=True)
class OverlayFile:
    """One overlay clip of a run, by the sample that it shows."""

    sample: str
    run: str
    kind: Kind
    layer: int
    video: Path

    @property
    def label(self) -> str:
        return f"{self.run}, {KIND_NAMES[self.kind]}, layer {self.layer}"


def overlay_files(runs: Sequence[Run]) -> tuple[OverlayFile, ...]:
    """Overlays of all runs (``overlays/<sample>_<kind>_layer<NN>.mp4``), V2T before V2V."""
    found: list[OverlayFile] = []
    for run in runs:
        for file in sorted((run.path / OVERLAYS).glob("*.mp4")):
            match = _OVERLAY.fullmatch(file.stem)
            if match is not None:
                kind: Kind = "v2t" if match["kind"] == "v2t" else "v2v"
                found.append(
                    OverlayFile(match["sample"], run.label, kind, int(match["layer"]), file)
                )
    return tuple(found)
