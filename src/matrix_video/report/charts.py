"""The charts of the page, as inline SVG.

Every chart has axes with labels, a name for screen readers, and a tooltip on each mark that gives
the number as the page writes it. Colours come from the page's style sheet through classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from markupsafe import Markup

from matrix_video.analysis.dominance import Contrast
from matrix_video.analysis.layers import GroupEvidence
from matrix_video.analysis.records import KINDS
from matrix_video.attention.site import Kind
from matrix_video.evaluation.estimates import Estimate
from matrix_video.report.content import Curve, HeldOut
from matrix_video.report.scale import Scale, ticks
from matrix_video.report.svg import Pen
from matrix_video.report.wording import interval, number, signed, tick_label

Measure = Literal["aas", "log_lift"]

KIND_NAMES: Final[dict[Kind, str]] = {"v2t": "V2T", "v2v": "V2V"}
_WIDTH, _HEIGHT = 460.0, 228.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 10.0, 26.0, 36.0
_POINTS: Final = 240
"""Most points of a drawn curve; longer ones are drawn as means of equal pieces."""


def layer_chart(
    groups: Sequence[GroupEvidence], measure: Measure, chosen: Sequence[int], kind: Kind
) -> Markup:
    """AAS or log-lift by layer: a bar for nouns, one for verbs; chosen layers on a band."""
    label = "AAS" if measure == "aas" else "log-lift (0 = chance)"
    pen = Pen(_WIDTH, _HEIGHT, f"{KIND_NAMES[kind]} {label} by layer, nouns and verbs")
    layers = sorted({score.layer for group in groups for score in group.layers})
    values = [_value(score.aas, score.log_lift, measure) for g in groups for score in g.layers]
    y = Scale.over(values, _HEIGHT - _BOTTOM, _TOP, include=(0.0,))
    _y_axis(pen, y, label)
    slot = (_WIDTH - _LEFT - _RIGHT) / max(1, len(layers))
    bar = min(14.0, slot * 0.36)
    labelled = _labelled(layers, chosen, slot)
    for index, layer in enumerate(layers):
        middle = _LEFT + (index + 0.5) * slot
        if layer in chosen:
            pen.rect(
                middle - slot / 2, _TOP, slot, y.start - _TOP, "band", f"layer {layer}: chosen"
            )
        if layer in labelled:
            pen.text(middle, y.start + 14, str(layer), "mark" if layer in chosen else "", "middle")
    for group in groups:
        side = -1 if group.words == "nouns" else 1
        for score in group.layers:
            value = _value(score.aas, score.log_lift, measure)
            middle = _LEFT + (layers.index(score.layer) + 0.5) * slot + side * (bar / 2 + 0.5)
            css = f"bar {group.words}" + ("" if score.layer in chosen else " faint")
            text = f"layer {score.layer}, {group.words}: {_written(value, measure)}"
            if score.layer in group.dominant:
                text += ", dominant"
                pen.text(middle, min(y(value), y(0)) - 2, "★", f"star {group.words}", "middle")
            top, foot = sorted((y(value), y(0)))
            pen.rect(middle - bar / 2, top, bar, max(foot - top, 0.75), css, text)
    pen.line(_LEFT, y(0), _WIDTH - _RIGHT, y(0), "zero")
    pen.text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, "layer", "label", "middle")
    return pen.markup()


def _labelled(layers: Sequence[int], chosen: Sequence[int], slot: float) -> set[int]:
    """Layers whose number fits below the axis: chosen ones first, then every fifth, of few all."""
    fifths = [layer for layer in layers if layer % 5 == 0]
    few = layers if len(layers) <= 20 else ()
    places: dict[int, float] = {}
    for layer in (*[c for c in chosen if c in layers], *fifths, *few):
        place = layers.index(layer) * slot
        if all(
            abs(place - other) >= 3 + 3.5 * (len(str(layer)) + len(str(known)))
            for known, other in places.items()
        ):
            places[layer] = place
    return set(places)


def _value(aas: float, log_lift: float, measure: Measure) -> float:
    return aas if measure == "aas" else log_lift


def _written(value: float, measure: Measure) -> str:
    return f"AAS {number(value)}" if measure == "aas" else f"log-lift {signed(value, 2)}"


@dataclass(frozen=True)
class ForestRow:
    """One estimate of a forest chart; ``css`` colours it, ``note`` stands at its right."""

    label: str
    estimate: Estimate
    css: str = "run"
    note: str = ""


def forest_chart(rows: Sequence[ForestRow], axis: str, *, sign: bool = False) -> Markup:
    """Estimates with their intervals as whiskers (few videos have none), one row each; a line at 0.

    ``ValueError`` for an estimate without a mean.
    """
    height = 30.0 * len(rows) + 44
    left, right = 172.0, 14.0
    pen = Pen(_WIDTH, height, f"{axis} with 95 % intervals: " + ", ".join(r.label for r in rows))
    found = [(r.estimate.low, r.estimate.high, r.estimate.mean) for r in rows]
    ends = [value for row in found for value in row if value is not None]
    x = Scale.over(ends, left, _WIDTH - right, include=(0.0,))
    foot = height - 38
    values, step = ticks(x, 5)
    for value in values:
        pen.line(x(value), 4, x(value), foot, "zero" if value == 0 else "grid")
        pen.text(x(value), foot + 14, tick_label(value, step), "", "middle")
    for index, row in enumerate(rows):
        y = 20.0 + 30 * index
        low, high, mean = found[index]
        if mean is None:
            raise ValueError(f"{row.label} has no mean to draw")
        value = signed(mean) if sign else number(mean)
        ends_text = f" {interval(row.estimate, sign=sign)}".rstrip()
        text = f"{row.label}: {value}{ends_text}, n = {row.estimate.n}"
        pen.text(left - 10, y + (4 if not row.note else -1), _short(row.label), "row", "end")
        if row.note:
            pen.text(left - 10, y + 11, row.note, "note", "end")
        if low is not None and high is not None:
            pen.line(x(low), y, x(high), y, f"whisker {row.css}", text)
            for end in (low, high):
                pen.line(x(end), y - 4, x(end), y + 4, f"whisker {row.css}")
        pen.dot(x(mean), y, 4.5, f"dot {row.css}", text)
    pen.text((left + _WIDTH - right) / 2, height - 6, axis, "label", "middle")
    return pen.markup()


def contrast_chart(contrasts: Sequence[Contrast], dominant: Sequence[int], n: int) -> Markup:
    """Success less failure in log-lift by layer, the evidence of dominance."""
    rows = [
        ForestRow(
            f"layer {c.layer}",
            Estimate(mean=c.difference, low=c.low, high=c.high, n=n),
            "run" if c.layer in dominant else "below" if c.high < 0 else "unresolved",
            "dominant" if c.layer in dominant else "higher in failures" if c.high < 0 else "",
        )
        for c in contrasts
    ]
    return forest_chart(rows, "log-lift, success − failure", sign=True)


def _short(label: str, most: int = 25) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def loss_chart(curve: Curve, name: str, ceiling: float) -> Markup:
    """A loss over steps: every update faint, a running mean strong.

    ``ceiling`` is the largest value of this term in any run, so that runs can be compared.
    """
    pen = Pen(_WIDTH, _HEIGHT, f"{name} loss over training steps")
    faint = thin(curve)
    strong = thin(smooth(curve))
    x = _step_scale([curve])
    y = Scale.over((*faint.values, ceiling), _HEIGHT - _BOTTOM, _TOP, include=(0.0,))
    _y_axis(pen, y, f"{name} loss")
    _x_axis(pen, x, y.start)
    pen.path([(x(s), y(v)) for s, v in zip(faint.steps, faint.values, strict=True)], "line faint")
    last = f"{name} loss, running mean: {number(strong.values[-1], 4)} at the end"
    points = [(x(s), y(v)) for s, v in zip(strong.steps, strong.values, strict=True)]
    pen.path(points, "line strong", last)
    return pen.markup()


def heldout_chart(curves: Sequence[HeldOut], high: float) -> Markup:
    """Held-out AAS of each supervised layer over steps; ``high`` as ``ceiling`` above."""
    pen = Pen(_WIDTH, _HEIGHT, "held-out AAS of the supervised layers, without the decoder")
    values = [v for held in curves for v in held.curve.values]
    x = _step_scale([held.curve for held in curves], room=44)
    y = Scale.over([*values, high], _HEIGHT - _BOTTOM, _TOP, include=(0.0,))
    _y_axis(pen, y, "AAS, no decoder")
    _x_axis(pen, x, y.start)
    tags: list[tuple[float, HeldOut]] = []
    for held in sorted(curves, key=lambda h: KINDS.index(h.kind)):
        points = [(x(s), y(v)) for s, v in zip(held.curve.steps, held.curve.values, strict=True)]
        pen.path(points, f"line {held.kind}")
        for (px, py), s, v in zip(points, held.curve.steps, held.curve.values, strict=True):
            where = f"{KIND_NAMES[held.kind]} layer {held.layer}, step {s:g}"
            pen.dot(px, py, 2.6, f"point {held.kind}", f"{where}: AAS {number(v)}")
        tags.append((points[-1][1], held))
    for place, held in apart(tags, 12.0, _TOP + 6, y.start):
        text = f"{KIND_NAMES[held.kind]} {held.layer}"
        pen.text(x.end + 7, place + 3.5, text, f"tag {held.kind}")
    return pen.markup()


def smooth(curve: Curve) -> Curve:
    """Centred running mean over a twentieth of the curve; narrower near its ends."""
    count = len(curve.values)
    reach = count // 40
    values: list[float] = []
    for i in range(count):
        half = min(reach, i, count - 1 - i)
        piece = curve.values[i - half : i + half + 1]
        values.append(sum(piece) / len(piece))
    return Curve(curve.steps, tuple(values))


def thin(curve: Curve, most: int = _POINTS) -> Curve:
    """At most ``most`` points: means of equal pieces; the curve itself if it is short."""
    count = len(curve.values)
    if count <= most:
        return curve
    cuts = [count * i // most for i in range(most + 1)]
    pieces = list(pairwise(cuts))
    return Curve(
        tuple(sum(curve.steps[a:b]) / (b - a) for a, b in pieces),
        tuple(sum(curve.values[a:b]) / (b - a) for a, b in pieces),
    )


def apart(
    tags: Sequence[tuple[float, HeldOut]], gap: float, top: float, foot: float
) -> list[tuple[float, HeldOut]]:
    """Tags moved down, then up, until neighbours are ``gap`` apart and, if they fit, in range."""
    placed = sorted(tags, key=lambda tag: tag[0])
    places = [place for place, _ in placed]
    for i in range(len(places)):
        places[i] = max(places[i], top if i == 0 else places[i - 1] + gap)
    for i in reversed(range(len(places))):
        places[i] = min(places[i], foot if i == len(places) - 1 else places[i + 1] - gap)
    return [(place, held) for place, (_, held) in zip(places, placed, strict=True)]


def _step_scale(curves: Sequence[Curve], room: float = 0.0) -> Scale:
    last = max(step for curve in curves for step in curve.steps)
    return Scale(0.0, max(last, 1.0), _LEFT, _WIDTH - _RIGHT - room)


def _y_axis(pen: Pen, y: Scale, label: str) -> None:
    values, step = ticks(y)
    for value in values:
        pen.line(_LEFT, y(value), _WIDTH - _RIGHT, y(value), "grid")
        pen.text(_LEFT - 6, y(value) + 3.5, tick_label(value, step), "", "end")
    pen.text(0, 10, label, "label")


def _x_axis(pen: Pen, x: Scale, foot: float) -> None:
    values, step = ticks(x, 5)
    for value in values:
        pen.line(x(value), foot, x(value), foot + 4, "axis")
        pen.text(x(value), foot + 15, tick_label(value, step), "", "middle")
    pen.line(x.start, foot, x.end, foot, "axis")
    pen.text((x.start + x.end) / 2, _HEIGHT - 4, "step", "label", "middle")
