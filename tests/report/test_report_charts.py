"""Charts: marks stand where their numbers say, tooltips say the numbers."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.report.charts import (
    Figure,
    ForestRow,
    contrast_chart,
    forest_chart,
    heldout_chart,
    layer_chart,
    loss_chart,
    smooth,
    thin,
)
from matrix_video.report.content import Curve

from .conftest import contrast, estimate, group


def marks(figure: Figure, tag: str, css: str) -> list[ET.Element]:
    root = ET.fromstring(figure.chart)
    return [e for e in root.iter(tag) if set(css.split()) <= set(e.get("class", "").split())]


def texts(figure: Figure, tag: str = "title", css: str = "") -> list[str]:
    return [e.text or "" for e in marks(figure, tag, css)]


def at(element: ET.Element, name: str) -> float:
    return float(element.get(name, "nan"))


@given(st.lists(st.floats(-6, 6), min_size=1, max_size=42))
def test_bars_are_as_high_as_their_values(lifts: list[float]) -> None:
    found = layer_chart([group(lifts)], "log_lift", chosen=[0])
    bars = marks(found, "rect", "bar nouns")
    assert len(bars) == len(lifts)
    zero = at(marks(found, "line", "zero")[0], "y1")
    best = max(range(len(lifts)), key=lambda i: abs(lifts[i]))
    if abs(lifts[best]) < 1e-2:
        return
    unit = at(bars[best], "height") / abs(lifts[best])
    for bar, lift in zip(bars, lifts, strict=True):
        height, top = at(bar, "height"), at(bar, "y")
        assert height == pytest.approx(max(abs(lift) * unit, 0.75), abs=0.05 + abs(lift) * 0.02)
        if height > 1:
            end = top if lift > 0 else top + height
            assert (zero - end) * lift > 0  # above zero for lift above chance, below for below


def test_chosen_layers_stand_on_a_band_and_dominant_ones_have_a_star() -> None:
    nouns = group([0.1, 2.0, 0.3, 0.2], dominant=(1,))
    found = layer_chart([nouns, group([0.2] * 4, "verbs")], "aas", [1, 2])
    assert len(marks(found, "rect", "band")) == 2
    assert texts(found, "text", "mark") == ["1", "2"]
    assert len(marks(found, "text", "star nouns")) == 1
    assert len(marks(found, "rect", "bar faint")) == 4
    assert "layer 1, nouns: AAS 0.200, dominant" in texts(found)
    assert 'aria-label="V2T: AAS by layer, nouns and verbs"' in found.chart


def test_a_forest_says_its_numbers_and_whiskers_end_where_they_say() -> None:
    name = "ground truth after a round trip through the VAE"
    found = forest_chart(
        [
            ForestRow(name, estimate(0.967, 0.9, 1.0, 24)),
            ForestRow("two", estimate(-0.2, -0.5, 0.4, 9)),
            ForestRow("one", estimate(0.5, None, None, 1)),
        ],
        "Of every row",
        "IF",
    )
    assert f"{name}: 0.967 [0.900, 1.000], n = 24" in texts(found)
    assert "one: 0.500, n = 1" in texts(found)
    assert texts(found, "text", "row") == ["ground truth after a round …", "two", "one"]
    dots = [at(dot, "cx") for dot in marks(found, "circle", "dot")]
    lines = [e for e in marks(found, "line", "whisker") if e.get("y1") == e.get("y2")]
    unit = (dots[0] - dots[1]) / (0.967 + 0.2)
    ends = [(at(e, "x1"), at(e, "x2")) for e in lines]
    for (low, high), (left, right) in zip([(0.9, 1.0), (-0.5, 0.4)], ends, strict=True):
        assert left == pytest.approx(dots[0] + unit * (low - 0.967), abs=0.1)
        assert right == pytest.approx(dots[0] + unit * (high - 0.967), abs=0.1)
    with pytest.raises(ValueError, match="none has no mean to draw"):
        forest_chart([ForestRow("none", estimate(None, None, None, 0))], "", "IF")


def test_contrasts_say_which_way_they_separate() -> None:
    given = (contrast(5, 0.3, 0.1, 0.5), contrast(6, 0.1, -0.1, 0.3), contrast(1, -0.3, -0.5, -0.1))
    found = contrast_chart(group([1.0] * 7, contrasts=given, dominant=(5,), successes=40))
    for css in ("run", "unresolved", "below"):
        assert len(marks(found, "circle", f"dot {css}")) == 1
    assert texts(found, "text", "note") == ["dominant", "higher in failures"]


curves = st.lists(st.floats(0, 10), min_size=1, max_size=2000).map(
    lambda values: tuple((float(i), value) for i, value in enumerate(values))
)


@given(curves)
def test_thinning_and_smoothing_keep_the_range_the_order_and_the_mean(curve: Curve) -> None:
    values = [value for _, value in curve]
    found, smoothed = thin(curve, 100), smooth(curve)
    assert len(found) == min(100, len(curve))
    assert list(found) == sorted(found)
    assert [step for step, _ in smoothed] == [step for step, _ in curve]
    for _, value in (*found, *smoothed):
        assert min(values) - 1e-9 <= value <= max(values) + 1e-9
    if len(curve) % 100 == 0:
        mean = sum(values) / len(values)
        assert sum(value for _, value in found) / 100 == pytest.approx(mean, abs=1e-9)
    line = tuple((step, 2 * step + 1) for step, _ in curve)
    assert [v for _, v in smooth(line)] == pytest.approx([v for _, v in line])


def test_a_loss_is_drawn_twice_and_shares_its_ceiling() -> None:
    found = loss_chart(tuple((float(i), 1.0 + i % 2) for i in range(500)), "SGA", ceiling=8.0)
    assert len(marks(found, "path", "line faint")) == len(marks(found, "path", "line strong")) == 1
    assert "8" in texts(found, "text")
    assert found.caption == "SGA loss"


def test_heldout_has_a_tooltip_per_point_and_shares_the_highest_value_of_all_runs() -> None:
    def top(high: float) -> float:
        found = heldout_chart({("v2t", 5): ((0.0, 0.1), (50.0, 0.2))}, high)
        assert "V2T layer 5, step 50: AAS 0.200" in texts(found)
        assert texts(found, "text", "tag") == ["V2T 5"]
        return min(at(e, "cy") for e in marks(found, "circle", "point v2t"))

    foot = 180.0
    assert foot - top(0.8) == pytest.approx((foot - top(0.2)) / 4, abs=0.1)
