"""Plain warnings where the evidence behind a choice of layers is thin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from matrix_video.analysis import stability
from matrix_video.analysis.dominance import ENOUGH
from matrix_video.analysis.layers import GroupEvidence, LayerEvidence, LayerSinks
from matrix_video.analysis.records import KINDS
from matrix_video.attention.site import Kind

FEW_SAMPLES: Final = 16
"""Samples below which a warning says that the ranking is thin."""
FAINT: Final = 0.1
"""Mean log-lift below which a layer does not count as following anything (our choice; planted
layers and layers held at chance lie on its two sides, see docs/log.md)."""
ERRORS: Final = 3.0
"""Standard errors by which the mean log-lift has to lie above 0."""
SINK: Final = 0.5
"""Part of a layer's attention to text above which a warning says that it goes to no words."""


def caveats(
    groups: Sequence[GroupEvidence],
    chosen: Mapping[Kind, tuple[int, ...]],
    sinks: Sequence[LayerSinks],
) -> tuple[str, ...]:
    """All warnings about rankings, chosen layers and attention sinks, in that order."""
    found = [warning for group in groups for warning in _of_group(group)]
    found += [
        f"{kind}: layer {layer} is chosen although its log-lift is hardly above chance"
        for kind in KINDS
        for layer in chosen[kind]
        if not any(
            layer in g.dominant or follows(g.layers[layer]) for g in groups if g.kind == kind
        )
    ]
    return (*found, *_of_sinks([s for s in sinks if s.layer in chosen["v2t"]]))


def follows(layer: LayerEvidence) -> bool:
    """Whether the layer's maps lie above chance, by more than noise and by enough to matter."""
    return layer.log_lift >= max(FAINT, ERRORS * (layer.log_lift_error or 0.0))


def _of_group(group: GroupEvidence) -> list[str]:
    where = f"{group.kind} {group.words}"
    found: list[str] = []
    if group.samples < FEW_SAMPLES:
        found.append(f"{where}: ranked on {group.samples} samples only; the order may not hold")
    halves = group.stability
    if group.samples < stability.LEAST:
        found.append(
            f"{where}: too few samples to halve ({group.samples}; at least {stability.LEAST} are "
            "needed), so that it is not known how stable the order is"
        )
    elif halves is not None and halves.unstable:
        found.append(
            f"{where}: the order is unstable: between random halves of the samples its rank "
            f"correlation is {halves.mean:.2f} ({halves.low:.2f} to {halves.high:.2f}; below "
            f"{stability.LOW} the top is in doubt), and of the top {group.k} layers "
            f"{halves.top_shared:.0%} are the same; measure more samples"
        )
    if group.dominance == "not measured":
        found.append(f"{where}: dominance not measured ({group.reason})")
    elif min(group.successes, group.failures) < ENOUGH:
        found.append(
            f"{where}: dominance rests on {group.successes} successes and {group.failures} "
            f"failures; with fewer than {ENOUGH} of each it may not hold"
        )
    if all(layer.binding is None for layer in group.layers):
        found.append(f"{where}: no sample has a rival instance, so binding is not measured")
    return found


def _of_sinks(chosen: Sequence[LayerSinks]) -> list[str]:
    """One line for all chosen layers: where padding is attended to, these may be all of them."""
    wordless = {sinks.layer: sinks.wordless for sinks in chosen if sinks.wordless > SINK}
    if not wordless:
        return []
    listed = ", ".join(f"{layer} ({share:.0%})" for layer, share in wordless.items())
    layers = "layer" if len(wordless) == 1 else "layers"
    return [
        f"v2t: more than {SINK:.0%} of the attention to text goes to tokens that are no words of "
        f"the caption in {layers} {listed}; see sinks.svg"
    ]
