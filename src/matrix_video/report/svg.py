"""What charts are drawn with: a pen for inline SVG, and linear scales with round ticks."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from markupsafe import Markup

from matrix_video.report.wording import number

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Scale:
    """Maps data in [low, high] linearly to pixels; ``start`` is where ``low`` lies."""

    low: float
    high: float
    start: float
    end: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"scale over [{self.low}, {self.high}]")

    def __call__(self, value: float) -> float:
        # Clamped: rounding must not push the ends of the data out of the plot.
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return self.start + share * (self.end - self.start)

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float) -> Self:
        """Round limits that hold all values and 0; not empty even where all are 0."""
        found = [0.0, *values]
        low, high = min(found), max(found)
        if high - low <= 1e-9:
            low, high = -1e-3, 1e-3
        step = _nice_step(low, high, 4)
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        return cls(low, high, start, end)

    def ticks(self, count: int = 4) -> list[tuple[float, str]]:
        """About ``count`` round values inside the scale, ascending, each as the axis writes it."""
        step = _nice_step(self.low, self.high, count)
        places = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-6), math.floor(self.high / step + 1e-6)
        return [(i * step, number(i * step, places)) for i in range(first, last + 1)]


def _nice_step(low: float, high: float, count: int) -> float:
    """1, 2 or 5 times a power of ten, so that about ``count`` steps span the range."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    return next((m * power for m in (1, 2, 5) if m * power >= raw * (1 - 1e-9)), 10 * power)


class Pen:
    """Draws marks of one chart, escaped by construction and coloured by the page's style sheet.

    ``title`` of a mark is its tooltip; ``css`` its classes.
    """

    def __init__(self, width: float, height: float, name: str) -> None:
        self._root = ET.Element("svg", {"viewBox": f"0 0 {_round(width)} {_round(height)}"})
        self._root.attrib |= {"class": "chart", "role": "img", "aria-label": name}

    def _add(self, tag: str, place: Mapping[str, float], css: str, title: str = "") -> ET.Element:
        attributes = {name: _round(value) for name, value in place.items()}
        element = ET.SubElement(self._root, tag, attributes | ({"class": css} if css else {}))
        if title:
            ET.SubElement(element, "title").text = title
        return element

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str, title: str = "") -> None:
        self._add("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2}, css, title)

    def rect(
        self, x: float, y: float, width: float, height: float, css: str, title: str = ""
    ) -> None:
        self._add("rect", {"x": x, "y": y, "width": width, "height": height}, css, title)

    def dot(self, x: float, y: float, radius: float, css: str, title: str = "") -> None:
        self._add("circle", {"cx": x, "cy": y, "r": radius}, css, title)

    def path(self, points: Sequence[tuple[float, float]], css: str, title: str = "") -> None:
        steps = " L".join(f"{_round(x)} {_round(y)}" for x, y in points)
        self._add("path", {}, css, title).set("d", f"M{steps}")

    def text(self, x: float, y: float, text: str, css: str = "", anchor: Anchor = "start") -> None:
        element = self._add("text", {"x": x, "y": y}, css)
        element.set("text-anchor", anchor)
        element.text = text

    def markup(self) -> Markup:
        """The finished SVG element."""
        return Markup(ET.tostring(self._root, encoding="unicode"))  # ElementTree has escaped it


def _round(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
