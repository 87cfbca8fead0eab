"""Plots hold the numbers that they are made from."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from matrix_video.analysis.layers import DataFacts, ModelFacts, choose_layers
from matrix_video.analysis.plots import draw_plots, level_means
from matrix_video.analysis.records import KINDS, Row, Table, to_table
from matrix_video.backbones.fingerprint import Fingerprint
from matrix_video.data.sample import Role

_LAYERS = 4


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
        draws=50,
    )
    paths = draw_plots(tmp_path / "one", table, choice)
    assert sorted(path.name for path in paths) == sorted(
        [f"{what}_{kind}_{words}.svg" for what in ("layers", "gaps") for kind in KINDS
         for words in ("nouns", "verbs")]
        + [f"levels_{kind}.svg" for kind in KINDS]
    )  # fmt: skip
    again = draw_plots(tmp_path / "two", table, choice)
    for path, other in zip(paths, again, strict=True):
        text = path.read_text()
        assert text == other.read_text()
        assert "</svg>" in text
    assert "video to text, nouns: 8 samples" in paths[0].read_text()


def test_level_means_are_means() -> None:
    found = level_means(_table(), "v2v", "nouns", _LAYERS)
    expected = np.arange(_LAYERS)[:, None] + 0.1 * np.arange(3)[None, :]
    np.testing.assert_allclose(found, expected, atol=0.02)
    verbs_only = Table(_table().data.filter(_table().text("role") == "verb"))
    assert np.isnan(level_means(verbs_only, "v2v", "nouns", _LAYERS)).all()
