"""Plots hold the numbers that they are made from."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from matrix_video.analysis.choose import choose_layers
from matrix_video.analysis.layers import DataFacts, LayerSinks, ModelFacts
from matrix_video.analysis.plots import draw_plots
from matrix_video.analysis.plots_depth import draw_sinks, level_means
from matrix_video.analysis.plots_shared import svg_figure
from matrix_video.analysis.records import KINDS, Row, Table, to_table
from matrix_video.analysis.sink_records import SinkRow, to_sink_table
from matrix_video.backbones.fingerprint import Fingerprint
from matrix_video.data.sample import Role

_LAYERS = 4


_SINKS = to_sink_table(
    SinkRow(f"clip{s}", layer, 0, 0.0, tokens, 4, 0.25 if tokens != "video" else 0.5)
    for s in range(8)
    for layer in range(_LAYERS)
    for tokens in ("word", "padding", "video")
)


def _table(samples: int = 8) -> Table:
    random = np.random.default_rng(0)
    roles: tuple[Role, ...] = ("subject", "verb")
    rows = [
        Row(
            f"clip{s}",
            layer,
            level,
            float(level),
            role,
            kind,
            phrase,
            "id1",
            None,
            aas=float(random.uniform()),
            log_lift=layer + 0.1 * level + float(random.normal()) * 0.01,
            mean_in_mask=0.1,
            average_precision=0.5,
            binding=math.nan,
            area=float(0.1 + 0.01 * s),
        )
        for s in range(samples)
        for layer in range(_LAYERS)
        for level in range(3)
        for phrase, role in enumerate(roles)
        for kind in KINDS
    ]
    return to_table(rows)


def test_all_plots_are_written_and_equal_each_time(tmp_path: Path) -> None:
    table = _table()
    mark = Fingerprint(name="T", architecture="a", weights="w")
    model = ModelFacts(name="m", family="f", num_layers=_LAYERS, fingerprint=mark)
    labels = {f"clip{s}": s % 2 == 0 for s in range(8)}
    choice = choose_layers(
        table,
        num_layers=_LAYERS,
        model=model,
        data=DataFacts(path="d", samples=8, hash="h"),
        labels=labels,
        sinks=_SINKS,
        draws=50,
    )
    paths = draw_plots(tmp_path / "one", table, choice, _SINKS)
    assert sorted(path.name for path in paths) == sorted(
        [f"{what}_{kind}_{words}.svg" for what in ("layers", "gaps") for kind in KINDS
         for words in ("nouns", "verbs")]
        + [f"levels_{kind}.svg" for kind in KINDS]
        + ["sinks.svg"]
    )  # fmt: skip
    fewer = choice.evidence.model_copy(update={"groups": choice.evidence.groups[:1]})
    again = draw_plots(
        tmp_path / "two", table, choice.model_copy(update={"evidence": fewer}), _SINKS
    )
    assert len(again) == 5
    for path in again:
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()
    text = {path.stem: path.read_text() for path in paths}
    for name, words in {
        "layers_v2t_nouns": ("Video to text, nouns", "8 samples; halves agree on the order at "),
        "gaps_v2v_verbs": ("success (4 videos)", "failure (4 videos)", "less the mean"),
        "levels_v2v": ("log-lift (ln; 0 = chance)", "timestep of the model"),
        "sinks": ("words of the caption", "padding", "of the attention", "even"),
    }.items():
        for word in words:
            assert word in text[name], (name, word)
        assert "fill: #ffffff" in text[name]  # its own ground, whatever the page's


def test_sinks_without_video_keys_are_drawn_of_text_alone(tmp_path: Path) -> None:
    shares = {
        True: {"word": 0.1, "padding": 0.2, "video": 0.7},
        False: {"word": 0.4, "padding": 0.6},
    }
    drawn: dict[bool, str] = {}
    for joint, even in shares.items():
        layers = [LayerSinks.model_validate({"layer": i, "shares": even}) for i in range(3)]
        with svg_figure(tmp_path / "sinks.svg", (6, 4)) as figure:
            draw_sinks(figure, layers, layers[0].shares, [1])
        drawn[joint] = (tmp_path / "sinks.svg").read_text()
    assert [drawn[joint].count("of the video tokens") for joint in (True, False)] == [1, 0]
    assert [drawn[joint].count("of the attention") for joint in (True, False)] == [1, 1]


def test_level_means_are_means() -> None:
    found = level_means(_table(), "v2v", "nouns", _LAYERS)
    expected = np.arange(_LAYERS)[:, None] + 0.1 * np.arange(3)[None, :]
    np.testing.assert_allclose(found, expected, atol=0.02)
    verbs_only = Table(_table().data.filter(_table().text("role") == "verb"))
    assert np.isnan(level_means(verbs_only, "v2v", "nouns", _LAYERS)).all()
