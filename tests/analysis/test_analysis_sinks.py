"""Attention sinks: shares of kinds of tokens, their table, their warning.

Shapes: B batch, A heads, Nq queries, Nk keys, D head size, L text tokens, N video tokens.
"""

from __future__ import annotations

import math
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from matrix_video.analysis.caveats import caveats
from matrix_video.analysis.collect import Probe, measure_clip
from matrix_video.analysis.layers import LayerSinks
from matrix_video.analysis.sink_records import (
    SinkRow,
    join_sinks,
    read_sinks,
    to_sink_table,
    write_sinks,
)
from matrix_video.analysis.sinks import Share, attention_shares
from matrix_video.attention.site import Call, Site
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.text import TokenKind
from matrix_video.data.dataset import Dataset
from matrix_video.services.errors import MatrixError

_B, _A, _D, _L, _N = 2, 3, 8, 7, 12
_KINDS = (
    TokenKind.SPECIAL,
    *(TokenKind.WORD,) * 3,
    TokenKind.SPECIAL,
    *(TokenKind.PADDING,) * 2,
)
_JOINT = Site("joint", _L + _N, _L + _N, video_start=_L, num_video=_N, num_text=_L)
_CROSS = Site("cross", _N, _L, video_start=0, num_video=_N, num_text=_L, video_keys=False)


def _call(site: Site, seed: int = 0, batch: int = _B, mask: Tensor | None = None) -> Call:
    random = torch.Generator().manual_seed(seed)
    q, k = (
        2 * torch.randn(batch, _A, length, _D, generator=random)
        for length in (site.num_queries, site.num_keys)
    )
    return Call(q, k, mask=mask)


def _dense(call: Call, site: Site) -> Tensor:
    """Mean attention of the video tokens to each key, [B,Nk]."""
    logits = call.q.double() @ call.k.double().transpose(-1, -2) / math.sqrt(_D)
    if call.mask is not None:
        logits = logits.masked_fill(~call.mask, -torch.inf)
    return logits.softmax(-1)[:, :, site.video].mean(dim=(1, 2))


def _by_name(shares: tuple[Share, ...]) -> dict[str, tuple[int, list[float]]]:
    return {share.tokens: (share.count, share.share_B.tolist()) for share in shares}


@pytest.mark.parametrize("site", [_JOINT, _CROSS], ids=lambda site: site.module)
def test_shares_are_those_of_the_dense_softmax(site: Site) -> None:
    call = _call(site)
    found = _by_name(attention_shares(call, site, _KINDS))
    dense = _dense(call, site)
    expected = {"word": (1, 2, 3), "special": (0, 4), "padding": (5, 6)}
    assert set(found) == {*expected, *(("video",) if site is _JOINT else ())}
    for name, tokens in expected.items():
        count, share_B = found[name]
        assert count == len(tokens)
        assert share_B == pytest.approx(dense[:, list(tokens)].sum(1).tolist(), rel=1e-5)
    if site is _JOINT:
        assert found["video"][0] == _N
        assert found["video"][1] == pytest.approx(dense[:, site.video].sum(1).tolist(), rel=1e-5)
    assert np.sum([share for _, share in found.values()], axis=0) == pytest.approx([1.0] * _B)


def test_masked_padding_gets_nothing_and_strange_keys_are_not_called_video() -> None:
    mask = torch.ones(1, 1, 1, _L + _N, dtype=torch.bool)
    mask[..., 5:7] = False
    found = _by_name(attention_shares(_call(_JOINT, mask=mask), _JOINT, _KINDS))
    assert found["padding"] == (2, [0.0, 0.0])
    wider = replace(_JOINT, num_queries=_L + _N + 2, num_keys=_L + _N + 2)
    found = _by_name(attention_shares(_call(wider), wider, _KINDS))
    assert "video" not in found
    assert found["other"][0] == _N + 2


def test_text_beyond_a_samples_own_is_no_key() -> None:
    """Where samples attend one by one, to their video and their valid text."""
    site = Site("one by one", _N + _L, _N + _L, 0, _N, _N, _L, per_sample=True)
    own = site.shortened(_N + 5)
    calls = tuple(_call(own, seed, batch=1) for seed in range(2))
    found = _by_name(attention_shares(calls, site, _KINDS))
    assert {name: count for name, (count, _) in found.items()} == {
        "word": 3,
        "special": 2,
        "video": _N,
    }
    words = [float(_dense(call, own)[0, _N + 1 : _N + 4].sum()) for call in calls]
    assert found["word"][1] == pytest.approx(words, rel=1e-5)


def test_kinds_must_be_of_the_sites_length() -> None:
    with pytest.raises(ValueError, match="joint: 6 kinds of 7 text tokens"):
        attention_shares(_call(_JOINT), _JOINT, _KINDS[:-1])


def test_a_clip_has_a_row_for_every_layer_level_and_kind(data: Path, backbone: Backbone) -> None:
    measured = measure_clip(backbone, Dataset(data)[0], Probe(levels=2, layers_at_once=2, batch=1))
    kinds = backbone.token_kinds(Dataset(data)[0].sample.caption)
    rows = measured.sinks
    assert len(rows) == len({(r.layer, r.level, r.tokens) for r in rows}) == 3 * 2 * 4
    assert {r.tokens: r.count for r in rows} == {
        "word": 11,
        "special": 1,
        "padding": len(kinds) - 12,
        "video": 3 * 16,
    }
    for layer in range(3):
        for level in range(2):
            cell = [r.share for r in rows if (r.layer, r.level) == (layer, level)]
            assert sum(cell) == pytest.approx(1.0)
            assert min(cell) > 0
    assert [r.timestep for r in rows[:1]] == backbone.noise_levels(2).tolist()[:1]


_ROWS = [
    SinkRow("a", 0, 0, 1.0, "word", 3, 0.2),
    SinkRow("a", 0, 0, 1.0, "padding", 5, 0.8),
    SinkRow("a", 0, 1, 2.0, "word", 3, 0.4),
    SinkRow("a", 0, 1, 2.0, "padding", 5, 0.6),
    SinkRow("b", 0, 0, 1.0, "word", 8, 1.0),
    SinkRow("b", 0, 1, 2.0, "word", 8, 1.0),
]


def test_table_round_trip_and_means(tmp_path: Path) -> None:
    path = tmp_path / "sinks.parquet"
    write_sinks(path, join_sinks([to_sink_table(_ROWS[:2]), to_sink_table(_ROWS[2:])]))
    table = read_sinks(path)
    assert [tuple(row.values()) for row in table.data.to_pylist()] == [astuple(r) for r in _ROWS]
    shares = table.layer_shares(2)
    assert list(shares) == ["word", "padding"]
    # A sample without padding gave it nothing: (0.8 + 0.6 + 0 + 0) / 4.
    np.testing.assert_allclose(shares["word"], [0.65, np.nan])
    np.testing.assert_allclose(shares["padding"], [0.35, np.nan])
    assert table.even_shares() == pytest.approx({"word": 22 / 32, "padding": 10 / 32})
    pq.write_table(table.data.drop_columns(["share"]), path)
    with pytest.raises(MatrixError, match=r"sinks.parquet: its columns are \['sample', 'layer'"):
        read_sinks(path)


def test_chosen_layers_that_look_at_no_words_are_warned_of() -> None:
    text = {"word": 0.1, "special": 0.05, "padding": 0.15, "video": 0.7}
    sinks = [
        LayerSinks.model_validate({"layer": 0, "shares": text}),
        LayerSinks.model_validate({"layer": 1, "shares": {**text, "word": 0.2, "padding": 0.05}}),
        LayerSinks.model_validate({"layer": 2, "shares": {**text, "padding": 0.75, "video": 0.1}}),
    ]
    assert [layer.wordless for layer in sinks] == pytest.approx([2 / 3, 1 / 3, 8 / 9])
    assert _of_sinks((2, 1, 0), sinks) == [
        "v2t: more than 50% of the attention to text goes to tokens that are no words of the "
        "caption in layers 0 (67%), 2 (89%); see sinks.svg"
    ]
    (warning,) = _of_sinks((0,), sinks)
    assert warning.endswith("of the caption in layer 0 (67%); see sinks.svg")
    assert _of_sinks((1,), sinks) == []  # the other two are chosen for V2V alone


def _of_sinks(v2t: tuple[int, ...], sinks: list[LayerSinks]) -> list[str]:
    found = caveats([], {"v2t": v2t, "v2v": (0, 2)}, sinks)
    return [warning for warning in found if "words" in warning]
