"""Charts: marks stand where their numbers say, tooltips say the numbers."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.attention.site import Kind
from matrix_video.report.charts import (
    ForestRow,
    apart,
    contrast_chart,
    forest_chart,
    heldout_chart,
    layer_chart,
    loss_chart,
    smooth,
    thin,
)
from matrix_video.report.content import Curve, HeldOut

from .conftest import contrast, estimate, group


def marks(svg: str, tag: str, css: str) -> list[ET.Element]:
    root = ET.fromstring(svg)
    return [e for e in root.iter(tag) if set(css.split()) <= set(e.get("class", "").split())]


def titles(svg: str) -> list[str]:
    return [e.text or "" for e in ET.fromstring(svg).iter("title")]


@given(st.lists(st.floats(-6, 6), min_size=1, max_size=42))
def test_bars_are_as_high_as_their_values(lifts: list[float]) -> None:
    svg = layer_chart([group(lifts)], "log_lift", chosen=[0], kind="v2t")
    bars = marks(svg, "rect", "bar nouns")
    assert len(bars) == len(lifts)
    zero = float(marks(svg, "line", "zero")[0].get("y1", "nan"))
    best = max(range(len(lifts)), key=lambda i: abs(lifts[i]))
    if abs(lifts[best]) < 1e-2:
        return
    unit = float(bars[best].get("height", "nan")) / abs(lifts[best])
    for bar, lift in zip(bars, lifts, strict=True):
        height, top = float(bar.get("height", "nan")), float(bar.get("y", "nan"))
        assert height == pytest.approx(max(abs(lift) * unit, 0.75), abs=0.05 + abs(lift) * 0.02)
        if height > 1:
            end = top if lift > 0 else top + height
            assert (zero - end) * lift > 0  # above zero for lift above chance, below for below


def test_chosen_layers_stand_on_a_band_and_dominant_ones_have_a_star() -> None:
    nouns = group([0.1, 2.0, 0.3, 0.2], dominant=(1,))
    svg = layer_chart([nouns, group([0.2] * 4, "verbs")], "aas", [1, 2], "v2t")
    assert len(marks(svg, "rect", "band")) == 2
    assert [e.text for e in marks(svg, "text", "mark")] == ["1", "2"]
    assert len(marks(svg, "text", "star nouns")) == 1
    assert len(marks(svg, "rect", "bar faint")) == 4
    assert "layer 1, nouns: AAS 0.200, dominant" in titles(svg)
    assert ET.fromstring(svg).get("aria-label") == "V2T AAS by layer, nouns and verbs"


@given(st.integers(1, 60), st.sets(st.integers(0, 59), max_size=12))
def test_layer_numbers_do_not_overlap(count: int, chosen: set[int]) -> None:
    svg = layer_chart([group([1.0] * count)], "aas", sorted(chosen), "v2t")
    texts = [e for e in ET.fromstring(svg).iter("text") if (e.text or "").isdigit()]
    foot = max(float(e.get("y", "nan")) for e in texts)
    labels = sorted(
        (float(e.get("x", "nan")), e.text or "") for e in texts if float(e.get("y", "nan")) == foot
    )
    assert labels
    for (x, left), (next_x, right) in pairwise(labels):
        assert next_x - x >= 3.25 * (len(left) + len(right)) + 3  # 6.5 wide a digit, and a gap
        assert int(left) < int(right)


@given(
    st.lists(
        st.tuples(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5)), min_size=1, max_size=6
    ),
    st.floats(0, 1),
)
def test_whiskers_scale_with_their_intervals(
    found: list[tuple[float, float, float]], extra: float
) -> None:
    rows = [
        ForestRow(f"row {i}", estimate(mean, mean - below, mean + above + extra, 10))
        for i, (mean, below, above) in enumerate(found)
    ]
    svg = forest_chart(rows, "IF")
    dots = marks(svg, "circle", "dot")
    spans = [e for e in marks(svg, "line", "whisker") if e.get("y1") == e.get("y2")]
    assert len(dots) == len(spans) == len(rows)
    ends = [(float(e.get("x1", "nan")), float(e.get("x2", "nan"))) for e in spans]
    lows = [mean - below for mean, below, _ in found]
    highs = [mean + above + extra for mean, _, above in found]
    # Pixels per unit, from the widest interval; all others must agree with it.
    widest = max(range(len(rows)), key=lambda i: highs[i] - lows[i])
    if highs[widest] - lows[widest] < 0.05:
        return
    unit = (ends[widest][1] - ends[widest][0]) / (highs[widest] - lows[widest])
    origin = ends[widest][0] - unit * lows[widest]
    for i, dot in enumerate(dots):
        assert ends[i][0] == pytest.approx(origin + unit * lows[i], abs=0.6)
        assert ends[i][1] == pytest.approx(origin + unit * highs[i], abs=0.6)
        assert float(dot.get("cx", "nan")) == pytest.approx(origin + unit * found[i][0], abs=0.6)


def test_a_forest_says_its_numbers_and_shortens_long_names() -> None:
    name = "ground truth after a round trip through the VAE"
    svg = forest_chart(
        [
            ForestRow(name, estimate(0.967, 0.9, 1.0, 24)),
            ForestRow("one", estimate(0.5, None, None, 1)),
        ],
        "IF",
    )
    assert f"{name}: 0.967 [0.900, 1.000], n = 24" in titles(svg)
    assert "one: 0.500, n = 1" in titles(svg)
    assert [e.text for e in marks(svg, "text", "row")] == ["ground truth after a rou…", "one"]


def test_contrasts_say_which_way_they_separate() -> None:
    found = [contrast(5, 0.3, 0.1, 0.5), contrast(6, 0.1, -0.1, 0.3), contrast(1, -0.3, -0.5, -0.1)]
    svg = contrast_chart(found, [5], 40)
    for css in ("run", "unresolved", "below"):
        assert len(marks(svg, "circle", f"dot {css}")) == 1
    assert [e.text for e in marks(svg, "text", "note")] == ["dominant", "higher in failures"]


def test_text_in_a_chart_is_escaped() -> None:
    svg = forest_chart([ForestRow("<script>&", estimate(0.5, 0.4, 0.6, 9))], "IF")
    assert "<script>" not in svg
    assert marks(svg, "text", "row")[0].text == "<script>&"


curves = st.lists(st.floats(0, 10), min_size=1, max_size=2000).map(
    lambda values: Curve(tuple(float(i) for i in range(len(values))), tuple(values))
)


@given(curves)
def test_thinning_keeps_the_mean_and_the_order(curve: Curve) -> None:
    found = thin(curve, 100)
    assert len(found.values) == min(100, len(curve.values))
    assert list(found.steps) == sorted(found.steps)
    if len(curve.values) % 100 == 0:
        mean = sum(curve.values) / len(curve.values)
        assert sum(found.values) / 100 == pytest.approx(mean, abs=1e-9)
    assert min(curve.values) - 1e-9 <= min(found.values)
    assert max(found.values) <= max(curve.values) + 1e-9


@given(curves)
def test_smoothing_stays_in_range_and_keeps_straight_lines(curve: Curve) -> None:
    found = smooth(curve)
    assert found.steps == curve.steps
    assert min(curve.values) - 1e-9 <= min(found.values)
    assert max(found.values) <= max(curve.values) + 1e-9
    line = Curve(curve.steps, tuple(2 * s + 1 for s in curve.steps))
    assert smooth(line).values == pytest.approx(line.values)


def test_a_loss_is_drawn_twice_and_shares_its_ceiling() -> None:
    curve = Curve(tuple(map(float, range(500))), tuple(1.0 + i % 2 for i in range(500)))
    svg = loss_chart(curve, "SGA", ceiling=8.0)
    assert len(marks(svg, "path", "line faint")) == len(marks(svg, "path", "line strong")) == 1
    labels = [e.text for e in ET.fromstring(svg).iter("text")]
    assert "8" in labels
    assert "SGA loss" in labels


def test_heldout_has_a_tooltip_per_point_and_tags_apart() -> None:
    ends: tuple[tuple[Kind, int, float], ...] = (
        ("v2t", 5, 0.4),
        ("v2v", 1, 0.4),
        ("v2v", 2, 0.401),
    )
    found = [HeldOut(kind, layer, Curve((0.0, 50.0), (0.3, end))) for kind, layer, end in ends]
    svg = heldout_chart(found, high=0.401)
    assert "V2T layer 5, step 50: AAS 0.400" in titles(svg)
    tags = marks(svg, "text", "tag")
    assert sorted(e.text or "" for e in tags) == ["V2T 5", "V2V 1", "V2V 2"]
    places = sorted(float(e.get("y", "nan")) for e in tags)
    assert min(b - a for a, b in pairwise(places)) >= 11.9


def test_heldout_shares_the_highest_value_of_all_runs() -> None:
    found = [HeldOut("v2t", 5, Curve((0.0, 50.0), (0.1, 0.2)))]

    def top(high: float) -> float:
        svg = heldout_chart(found, high)
        return min(float(e.get("cy", "nan")) for e in marks(svg, "circle", "point v2t"))

    low, foot = top(0.2), 192.0
    assert foot - top(0.8) == pytest.approx((foot - low) / 4, abs=0.1)


@given(st.lists(st.floats(20, 190), min_size=1, max_size=12))
def test_tags_move_apart(places: list[float]) -> None:
    held = HeldOut("v2t", 5, Curve((0.0,), (0.3,)))
    found = [place for place, _ in apart([(p, held) for p in places], 12.0, 20.0, 190.0)]
    assert all(b - a >= 12.0 - 1e-9 for a, b in pairwise(found))
    assert all(20.0 - 1e-9 <= place <= 190.0 + 1e-9 for place in found)


def test_a_curve_must_ascend_and_be_of_one_length() -> None:
    with pytest.raises(ValueError, match="2 steps but 1 values"):
        Curve((0.0, 1.0), (1.0,))
    with pytest.raises(ValueError, match="ascend"):
        Curve((1.0, 0.0), (1.0, 1.0))
