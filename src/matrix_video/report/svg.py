"""A small pen for inline SVG: escaped by construction, coloured by the page's style sheet."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Literal

from markupsafe import Markup

Anchor = Literal["start", "middle", "end"]


def _round(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


class Pen:
    """Draws marks of one chart. ``title`` of a mark is its tooltip; ``css`` its classes."""

    def __init__(self, width: float, height: float, name: str) -> None:
        self.width, self.height = width, height
        self._root = ET.Element(
            "svg",
            {
                "viewBox": f"0 0 {_round(width)} {_round(height)}",
                "class": "chart",
                "role": "img",
                "aria-label": name,
            },
        )

    def _add(self, tag: str, attributes: dict[str, str], css: str, title: str = "") -> ET.Element:
        if css:
            attributes["class"] = css
        element = ET.SubElement(self._root, tag, attributes)
        if title:
            ET.SubElement(element, "title").text = title
        return element

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str, title: str = "") -> None:
        ends = {"x1": _round(x1), "y1": _round(y1), "x2": _round(x2), "y2": _round(y2)}
        self._add("line", ends, css, title)

    def rect(
        self, x: float, y: float, width: float, height: float, css: str, title: str = ""
    ) -> None:
        box = {"x": _round(x), "y": _round(y), "width": _round(width), "height": _round(height)}
        self._add("rect", box, css, title)

    def dot(self, x: float, y: float, radius: float, css: str, title: str = "") -> None:
        place = {"cx": _round(x), "cy": _round(y), "r": _round(radius)}
        self._add("circle", place, css, title)

    def path(self, points: Sequence[tuple[float, float]], css: str, title: str = "") -> None:
        if points:
            steps = " L".join(f"{_round(x)} {_round(y)}" for x, y in points)
            self._add("path", {"d": f"M{steps}"}, css, title)

    def text(self, x: float, y: float, text: str, css: str = "", anchor: Anchor = "start") -> None:
        place = {"x": _round(x), "y": _round(y), "text-anchor": anchor}
        self._add("text", place, css).text = text

    def markup(self) -> Markup:
        """The finished SVG element."""
        return Markup(ET.tostring(self._root, encoding="unicode"))  # ElementTree has escaped it
