"""Measuring clips: the maps are the model's own, and batching changes nothing.

Shapes: P noise levels, R phrases, A heads, N video tokens, L text tokens, F token frames,
h w token rows and columns.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from matrix_video.analysis.collect import (
    Probe,
    level_maps,
    measure_clip,
)
from matrix_video.analysis.records import Row
from matrix_video.analysis.targets import clip_targets, rival_ids
from matrix_video.attention.tap import tap
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.seeds import keyed_generator
from matrix_video.data.clip import Clip
from matrix_video.data.dataset import Dataset
from matrix_video.data.grid import TokenGrid
from matrix_video.data.tracks import MaskTrack, State
from matrix_video.services.errors import MatrixError

_PROBE = Probe(levels=3, seed=5, batch=3)


@pytest.fixture
def clip(data: Path) -> Clip:
    return Dataset(data)[0]


def test_targets_know_tokens_masks_and_rivals(clip: Clip, backbone: Backbone) -> None:
    grid = backbone.clip_grid(clip)
    targets = clip_targets(backbone, clip, grid, "full")
    assert [(t.phrase.role, t.phrase.text) for t in targets] == [
        ("subject", "red ball"),
        ("object", "blue ball"),
        ("verb", "pushes"),
    ]
    assert [t.tokens for t in targets] == [(1, 2), (5, 6), (3,)]
    # The verb's rivals: third participants and other balls; there is none of either.
    assert [rival_ids(clip.sample, t.phrase) for t in targets] == [("id2",), ("id1",), ()]
    subject, obj, verb = targets
    assert torch.equal(verb.own.mask_Fhw, subject.own.mask_Fhw | obj.own.mask_Fhw)
    assert subject.own.states == (State.VISIBLE,) * 3
    # Token frame 2 holds pixel frames 5 to 8, in all of which the blue ball is gone.
    assert obj.own.states == (State.VISIBLE, State.VISIBLE, State.ABSENT)
    assert torch.equal(subject.rivals[0].mask_Fhw, obj.own.mask_Fhw)
    for target in targets:
        assert target.region_N is not None
        region_Fhw = target.region_N.unflatten(0, grid.shape)
        assert float(region_Fhw.sum()) == pytest.approx(1.0)
        assert torch.equal(region_Fhw[0] > 0, target.own.mask_Fhw[0])
        assert not bool(region_Fhw[1:].any())


def test_maps_equal_dense_softmax_of_the_same_forward(clip: Clip, backbone: Backbone) -> None:
    grid = backbone.clip_grid(clip)
    targets = clip_targets(backbone, clip, grid, "full")
    (found,) = level_maps(backbone, clip, targets, _PROBE, [0, 2])
    assert found.levels == (0, 1, 2)
    frames = torch.from_numpy(clip.video.frames_THWC)
    latents = backbone.encode_video(frames[None])
    times = backbone.noise_levels(3)
    site = backbone.site(2, "v2t", grid, backbone.num_text_tokens)
    layer = site.module
    for p in range(3):
        noise = torch.randn(
            latents.shape, generator=keyed_generator(5, clip.sample.id, p, "analysis")
        )
        t = times[p : p + 1]
        with torch.no_grad(), tap(backbone.transformer, {layer: site}) as calls:
            backbone.predict(
                backbone.add_noise(latents, noise, t),
                t,
                backbone.encode_text([clip.sample.caption]),
                backbone.encode_image(frames[:1], len(frames)),
            )
        q, k = calls[layer].q[0].double(), calls[layer].k[0].double()
        dense = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1).mean(0)
        for r, target in enumerate(targets):
            assert target.region_N is not None
            v2t_N = dense[site.video][:, list(target.tokens)].mean(-1)
            v2v_N = target.region_N.double() @ dense[site.video, site.video]
            for kind, expected in (("v2t", v2t_N), ("v2v", v2v_N)):
                map_Fhw = found.maps[2, kind][p, r].double()  # pyright: ignore[reportArgumentType]
                torch.testing.assert_close(
                    map_Fhw, expected.unflatten(0, grid.shape), rtol=1e-4, atol=1e-8
                )


def test_rows_are_complete_and_in_range(clip: Clip, backbone: Backbone) -> None:
    rows = measure_clip(backbone, clip, _PROBE).rows
    assert len(rows) == 3 * 3 * 3 * 2  # layers, levels, phrases, kinds
    assert len({(r.layer, r.level, r.phrase, r.kind) for r in rows}) == len(rows)
    assert {r.sample for r in rows} == {"clip0"}
    assert {r.instance for r in rows if r.role == "verb"} == {"id1+id2"}
    for row in rows:
        assert 0 <= row.aas <= 1
        assert 0 < row.average_precision <= 1
        assert row.log_lift == pytest.approx(math.log(row.aas / row.area))
        assert math.isnan(row.binding) == (row.role == "verb")
    levels = {r.level: r.timestep for r in rows}
    assert [levels[p] for p in range(3)] == backbone.noise_levels(3).tolist()


def _values(rows: list[Row]) -> np.ndarray:
    names = [f.name for f in fields(Row) if f.type == "float"]
    return np.array([[getattr(row, name) for name in names] for row in rows])


def test_levels_and_layers_at_once_change_nothing(clip: Clip, backbone: Backbone) -> None:
    def key(row: Row) -> tuple[int, int, int, str]:
        return row.layer, row.level, row.phrase, row.kind

    one = sorted(measure_clip(backbone, clip, _PROBE).rows, key=key)
    for batch, layers in ((1, None), (2, 2), (3, 1)):
        probe = replace(_PROBE, batch=batch, layers_at_once=layers)
        other = sorted(measure_clip(backbone, clip, probe).rows, key=key)
        assert [key(r) for r in one] == [key(r) for r in other]
        np.testing.assert_allclose(_values(one), _values(other), rtol=1e-3, atol=1e-6)


def test_heads_come_with_their_mean(clip: Clip, backbone: Backbone) -> None:
    whole = measure_clip(backbone, clip, replace(_PROBE, levels=1)).rows
    rows = measure_clip(backbone, clip, replace(_PROBE, levels=1, per_head=True)).rows
    assert {row.head for row in rows} == {None, 0, 1}
    means = [row for row in rows if row.head is None]
    np.testing.assert_allclose(_values(means), _values(whole), rtol=1e-3, atol=1e-6)
    for row in means:
        heads = [
            r.mean_in_mask
            for r in rows
            if r.head is not None
            and (r.layer, r.phrase, r.kind) == (row.layer, row.phrase, row.kind)
        ]
        assert np.mean(heads) == pytest.approx(row.mean_in_mask, rel=1e-4)


def test_an_instance_that_enters_later_has_no_v2v_rows(clip: Clip, backbone: Backbone) -> None:
    masks = clip.tracks["id1"].masks()
    masks[0] = False
    late = Clip(clip.sample, clip.video, {**clip.tracks, "id1": MaskTrack.from_masks(masks)})
    rows = measure_clip(backbone, late, replace(_PROBE, levels=1)).rows
    kinds = {role: {r.kind for r in rows if r.role == role} for role in ("subject", "verb")}
    assert kinds == {"subject": {"v2t"}, "verb": {"v2t", "v2v"}}


def test_unknown_frames_are_not_scored(clip: Clip, backbone: Backbone) -> None:
    masks = clip.tracks["id1"].masks()
    unknown = MaskTrack.from_masks(masks, unknown=range(1, len(masks)))
    hidden = Clip(clip.sample, clip.video, {**clip.tracks, "id1": unknown})
    probe = replace(_PROBE, levels=1)
    rows = [r for r in measure_clip(backbone, hidden, probe).rows if r.role == "subject"]
    # Frame 0 alone is known: V2T is scored there, V2V not at all.
    assert {r.kind for r in rows} == {"v2t"}
    assert {r.area for r in rows} == {float(masks_area(backbone, hidden))}


def masks_area(backbone: Backbone, clip: Clip) -> float:
    target = clip_targets(backbone, clip, backbone.clip_grid(clip), "full")[0]
    return float(target.own.mask_Fhw[0].double().mean())


def test_bfloat16_is_close_to_float32(clip: Clip, backbone: Backbone) -> None:
    exact = measure_clip(backbone, clip, _PROBE).rows
    rough = measure_clip(backbone, clip, replace(_PROBE, precision="bf16")).rows
    np.testing.assert_allclose(
        [r.aas for r in rough], [r.aas for r in exact], rtol=0.05, atol=0.005
    )


def test_padding_frames_are_neither_scored_nor_queried(clip: Clip, backbone: Backbone) -> None:
    grid = TokenGrid(((), (0,), tuple(range(1, 9))), 4, 4)
    target = clip_targets(backbone, clip, grid)[0]
    assert target.own.states[0] is State.UNKNOWN
    assert target.region_N is not None
    region_Fhw = target.region_N.unflatten(0, grid.shape)
    assert bool(region_Fhw[1].any())
    assert not bool(region_Fhw[[0, 2]].any())


def test_samples_that_cannot_be_measured_are_named(clip: Clip, backbone: Backbone) -> None:
    silent = clip.sample.model_copy(update={"interactions": ()})
    with pytest.raises(MatrixError, match="sample clip0 has no phrase of an interaction"):
        measure_clip(backbone, Clip(silent, clip.video, clip.tracks), _PROBE)
    tracks = {name: track for name, track in clip.tracks.items() if name != "id2"}
    with pytest.raises(MatrixError, match=r"tracks\.id2: .* 'blue ball' is id2, which has no mask"):
        measure_clip(backbone, Clip(clip.sample, clip.video, tracks), _PROBE)
