"""The charts of the page, as inline SVG.

Every chart has a caption that says what its axis measures, which is also its name for screen
readers, and a tooltip on each mark that gives the number as the page writes it. Colours come from
the page's style sheet through classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Final, Literal

from markupsafe import Markup

from matrix_video.analysis.layers import GroupEvidence
from matrix_video.attention.site import Kind
from matrix_video.evaluation.estimates import Estimate
from matrix_video.report.content import Curve
from matrix_video.report.svg import Pen, Scale
from matrix_video.report.wording import interval, number, signed

KIND_NAMES: Final[dict[Kind, str]] = {"v2t": "V2T", "v2v": "V2V"}
_WIDTH, _HEIGHT = 460.0, 216.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 10.0, 14.0, 36.0


@dataclass(frozen=True)
class Figure:
    """A chart with its caption."""

    caption: str
    chart: Markup


def layer_chart(
    groups: Sequence[GroupEvidence], measure: Literal["aas", "log_lift"], chosen: Sequence[int]
) -> Figure:
    """AAS or log-lift by layer: a bar for nouns, one for verbs; chosen layers on a band."""
    caption = "AAS by layer" if measure == "aas" else "Log-lift by layer (0 = chance)"
    pen = Pen(_WIDTH, _HEIGHT, f"{KIND_NAMES[groups[0].kind]}: {caption}, nouns and verbs")
    values = {
        (group.words, score.layer): score.aas if measure == "aas" else score.log_lift
        for group in groups
        for score in group.layers
    }
    layers = sorted({layer for _, layer in values})
    slot = (_WIDTH - _LEFT - _RIGHT) / max(1, len(layers))
    middles = {layer: _LEFT + (i + 0.5) * slot for i, layer in enumerate(layers)}
    y = _y_axis(pen, values.values())
    labelled = _labelled(middles, chosen)
    for layer, middle in middles.items():
        if layer in chosen:
            text = f"layer {layer}: chosen"
            pen.rect(middle - slot / 2, _TOP, slot, y.start - _TOP, "band", text)
        if layer in labelled:
            pen.text(middle, y.start + 14, str(layer), "mark" if layer in chosen else "", "middle")
    bar = min(14.0, slot * 0.36)
    dominant = {(group.words, layer) for group in groups for layer in group.dominant}
    for (words, layer), value in values.items():
        middle = middles[layer] + (-1 if words == "nouns" else 1) * (bar / 2 + 0.5)
        top, foot = sorted((y(value), y(0)))
        written = f"AAS {number(value)}" if measure == "aas" else f"log-lift {signed(value, 2)}"
        text = f"layer {layer}, {words}: {written}"
        if (words, layer) in dominant:
            text += ", dominant"
            pen.text(middle, top - 2, "★", f"star {words}", "middle")
        css = f"bar {words}" + ("" if layer in chosen else " faint")
        pen.rect(middle - bar / 2, top, bar, max(foot - top, 0.75), css, text)
    pen.line(_LEFT, y(0), _WIDTH - _RIGHT, y(0), "zero")
    pen.text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, "layer", "label", "middle")
    return Figure(caption, pen.markup())


def _labelled(middles: Mapping[int, float], chosen: Sequence[int]) -> set[int]:
    """Layers whose number fits below the axis: chosen ones first, then every fifth, of few all."""
    fifths = [layer for layer in middles if layer % 5 == 0]
    few = middles if len(middles) <= 20 else ()
    kept: set[int] = set()
    for layer in (*[c for c in chosen if c in middles], *fifths, *few):
        if all(
            abs(middles[layer] - middles[other]) >= 3 + 3.5 * len(f"{layer}{other}")
            for other in kept - {layer}
        ):
            kept.add(layer)
    return kept


@dataclass(frozen=True)
class ForestRow:
    """One estimate of a forest chart; ``css`` colours it, ``note`` stands at its right."""

    label: str
    estimate: Estimate
    css: str = "run"
    note: str = ""


def forest_chart(
    rows: Sequence[ForestRow], caption: str, axis: str, *, sign: bool = False
) -> Figure:
    """Estimates with their intervals as whiskers (few videos have none), one row each; a line at 0.

    ``ValueError`` for an estimate without a mean.
    """
    pitch = 36.0 if any(row.note for row in rows) else 30.0
    height = pitch * len(rows) + 44
    left, right, foot = 196.0, 14.0, height - 38
    pen = Pen(_WIDTH, height, f"{axis} with 95 % intervals: " + ", ".join(r.label for r in rows))
    found = [(r.estimate.low, r.estimate.high, r.estimate.mean) for r in rows]
    ends = [value for row in found for value in row if value is not None]
    x = Scale.over(ends, left, _WIDTH - right)
    for value, text in x.ticks(5):
        pen.line(x(value), 4, x(value), foot, "zero" if value == 0 else "grid")
        pen.text(x(value), foot + 14, text, "", "middle")
    for index, (row, (low, high, mean)) in enumerate(zip(rows, found, strict=True)):
        y = 5 + pitch * (index + 0.5)
        if mean is None:
            raise ValueError(f"{row.label} has no mean to draw")
        value = signed(mean) if sign else number(mean)
        ends_text = f" {interval(row.estimate, sign=sign)}".rstrip()
        text = f"{row.label}: {value}{ends_text}, n = {row.estimate.n}"
        label = row.label if len(row.label) <= 28 else f"{row.label[:27]}…"
        pen.text(left - 10, y + (-1 if row.note else 4), label, "row", "end")
        if row.note:
            pen.text(left - 10, y + 11, row.note, "note", "end")
        if low is not None and high is not None:
            pen.line(x(low), y, x(high), y, f"whisker {row.css}", text)
            for end in (low, high):
                pen.line(x(end), y - 4, x(end), y + 4, f"whisker {row.css}")
        pen.dot(x(mean), y, 4.5, f"dot {row.css}", text)
    pen.text((left + _WIDTH - right) / 2, height - 6, axis, "label", "middle")
    return Figure(caption, pen.markup())


def contrast_chart(group: GroupEvidence) -> Figure:
    """Success less failure in log-lift by layer, the evidence of dominance."""
    count = group.successes + group.failures
    rows: list[ForestRow] = []
    for c in group.contrasts:
        css, note = "unresolved", ""
        if c.layer in group.dominant:
            css, note = "run", "dominant"
        elif c.high < 0:
            css, note = "below", "higher in failures"
        found = Estimate(mean=c.difference, low=c.low, high=c.high, n=count)
        rows.append(ForestRow(f"layer {c.layer}", found, css, note))
    caption = (
        f"Evidence of dominance, {group.words}: {group.successes} successful against "
        f"{group.failures} failed videos at equal mask area"
    )
    return forest_chart(rows, caption, "log-lift, success − failure", sign=True)


def loss_chart(curve: Curve, name: str, ceiling: float) -> Figure:
    """A loss over steps: every update faint, a running mean strong.

    ``ceiling`` is the largest value of this term in any run, so that runs can be compared.
    """
    caption = f"{name} loss"
    pen = Pen(_WIDTH, _HEIGHT, f"{caption} over training steps")
    y = _y_axis(pen, [ceiling, *(value for _, value in curve)])
    x = _x_axis(pen, [curve], y.start)
    strong = thin(smooth(curve))
    last = f"{caption}, running mean: {number(strong[-1][1], 4)} at the end"
    pen.path([(x(s), y(v)) for s, v in thin(curve)], "line faint")
    pen.path([(x(s), y(v)) for s, v in strong], "line strong", last)
    return Figure(caption, pen.markup())


def heldout_chart(curves: Mapping[tuple[Kind, int], Curve], high: float) -> Figure:
    """Held-out AAS of each supervised layer over steps; ``high`` as ``ceiling`` above."""
    caption = "Held-out AAS of the supervised layers, without the decoder"
    pen = Pen(_WIDTH, _HEIGHT, caption)
    y = _y_axis(pen, [high, *(v for curve in curves.values() for _, v in curve)])
    x = _x_axis(pen, list(curves.values()), y.start, room=44)
    for (kind, layer), curve in curves.items():
        points = [(s, v, x(s), y(v)) for s, v in curve]
        pen.path([(px, py) for _, _, px, py in points], f"line {kind}")
        for s, v, px, py in points:
            where = f"{KIND_NAMES[kind]} layer {layer}, step {s:g}: AAS {number(v)}"
            pen.dot(px, py, 2.6, f"point {kind}", where)
    ordered = sorted(curves, key=lambda one: y(curves[one][-1][1]))
    places = apart([y(curves[one][-1][1]) for one in ordered], 12.0, _TOP + 6, y.start)
    for place, (kind, layer) in zip(places, ordered, strict=True):
        pen.text(x.end + 7, place + 3.5, f"{KIND_NAMES[kind]} {layer}", f"tag {kind}")
    return Figure(caption, pen.markup())


def smooth(curve: Curve) -> Curve:
    """Centred running mean over a twentieth of the curve; narrower near its ends."""
    count = len(curve)
    halves = [min(count // 40, i, count - 1 - i) for i in range(count)]
    return tuple(
        (step, fmean(value for _, value in curve[i - half : i + half + 1]))
        for i, ((step, _), half) in enumerate(zip(curve, halves, strict=True))
    )


def thin(curve: Curve, most: int = 240) -> Curve:
    """At most ``most`` points: means of equal pieces; the curve itself if it is short."""
    if len(curve) <= most:
        return curve
    cuts = pairwise(len(curve) * i // most for i in range(most + 1))
    pieces = [curve[a:b] for a, b in cuts]
    return tuple((fmean(s for s, _ in piece), fmean(v for _, v in piece)) for piece in pieces)


def apart(ascending: Sequence[float], gap: float, top: float, foot: float) -> list[float]:
    """Places moved down, then up, until neighbours are ``gap`` apart and, if they fit, in range."""
    places: list[float] = []
    for place in ascending:
        places.append(max(place, places[-1] + gap if places else top))
    for i in reversed(range(len(places))):
        places[i] = min(places[i], places[i + 1] - gap if i + 1 < len(places) else foot)
    return places


def _y_axis(pen: Pen, values: Iterable[float]) -> Scale:
    y = Scale.over(values, _HEIGHT - _BOTTOM, _TOP)
    for value, text in y.ticks():
        pen.line(_LEFT, y(value), _WIDTH - _RIGHT, y(value), "grid")
        pen.text(_LEFT - 6, y(value) + 3.5, text, "", "end")
    return y


def _x_axis(pen: Pen, curves: Sequence[Curve], foot: float, room: float = 0.0) -> Scale:
    """Training steps; ``room`` is left free at the right."""
    last = max(step for curve in curves for step, _ in curve)
    x = Scale(0.0, max(last, 1.0), _LEFT, _WIDTH - _RIGHT - room)
    for value, text in x.ticks(5):
        pen.line(x(value), foot, x(value), foot + 4, "axis")
        pen.text(x(value), foot + 15, text, "", "middle")
    pen.line(x.start, foot, x.end, foot, "axis")
    pen.text((x.start + x.end) / 2, _HEIGHT - 4, "step", "label", "middle")
    return x
