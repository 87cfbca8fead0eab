"""Plain warnings where the evidence behind a choice of layers is thin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from matrix_video.analysis import stability
from matrix_video.analysis.dominance import ENOUGH
from matrix_video.analysis.layers import Evidence, GroupEvidence, LayerEvidence, LayerSinks
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
    for kind in KINDS:
        own = [group for group in groups if group.kind == kind]
        if not own:
            found.append(
                f"{kind}: no layer is chosen, because no sample has a map that could be scored; "
                f"name layers with --{kind}, or train without their loss"
            )
        for layer in chosen[kind]:
            if not any(layer in g.dominant or follows(g.layers[layer]) for g in own):
                figures = ", ".join(f"{g.words} {_lift(g.layers[layer])}" for g in own)
                found.append(
                    f"{kind}: layer {layer} is chosen although it does not follow the masks: "
                    f"log-lift of {figures}"
                )
    return (*found, *_of_sinks([s for s in sinks if s.layer in chosen["v2t"]]))


def basis_text(evidence: Evidence, kind: Kind) -> str:
    """On what the choice of one kind rests, in words; names layers that speak against it."""
    match evidence.basis[kind]:
        case "none":
            return "no sample could be scored"
        case "binding":
            return "influential, in order of binding contrast; dominance was not measured"
        case "dominance":
            return "log-lift is higher in videos that succeed than in those that fail"
        case "influence":
            text = "influential; no layer that follows the masks has a higher log-lift in successes"
    lower = [
        f"layer {c.layer} ({g.words} {c.difference:+.3f} [{c.low:+.3f}, {c.high:+.3f}])"
        for g in evidence.groups
        for c in g.contrasts
        if g.kind == kind and c.high < 0
    ]
    if lower:
        verb = "separates" if len(lower) == 1 else "separate"
        text += f"; {', '.join(lower)} {verb} them the other way round: higher in failures"
    return text


def follows(layer: LayerEvidence) -> bool:
    """Whether the layer's maps lie above chance, by more than noise and by enough to matter."""
    return layer.log_lift >= max(FAINT, ERRORS * (layer.log_lift_error or 0.0))


def _lift(layer: LayerEvidence) -> str:
    """The figure, and where it lies: "-0.52 (13 standard errors below chance)"."""
    text = f"{layer.log_lift:+.2f}"
    if not layer.log_lift_error:
        return text
    errors = abs(layer.log_lift) / layer.log_lift_error
    if errors < ERRORS:
        return f"{text} (within {ERRORS:g} standard errors of chance)"
    if layer.log_lift < 0:
        return f"{text} ({errors:.0f} standard errors below chance)"
    return f"{text} (above chance, by less than {FAINT})"


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
