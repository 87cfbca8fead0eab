"""Batches: keyed randomness, padding, and the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.text import Text
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.services.errors import MatrixError
from matrix_video.training.batches import (
    Batch,
    Draw,
    EncodedSet,
    make_batch,
    read_encoded,
    write_encoded,
)
from matrix_video.training.encode import Encoded, with_masks_of

EMPTY = Text(torch.full((1, 32, 32), 7.0))
PLAIN = Draw(seed=0, id_map=True, id_drop=0.0, caption_dropout=0.0)


@pytest.fixture(scope="module")
def backbone() -> Any:
    return backbone_for(tiny_pipeline(0))


def batch_of(backbone: Any, samples: list[Encoded], epochs: list[int], draw: Draw = PLAIN) -> Batch:
    return make_batch(backbone, samples, epochs, EMPTY, draw)


def test_noise_follows_sample_and_epoch_alone(backbone: Any, encoded: list[Encoded]) -> None:
    whole = batch_of(backbone, encoded, [0, 0, 4])
    alone = batch_of(backbone, [encoded[2]], [4])
    assert torch.equal(whole.noise_BFCHW[2], alone.noise_BFCHW[0])
    assert torch.equal(whole.timesteps_B[2:], alone.timesteps_B)
    assert whole.id_map_BFCHW is not None
    assert alone.id_map_BFCHW is not None
    torch.testing.assert_close(whole.id_map_BFCHW[2], alone.id_map_BFCHW[0])
    plain = batch_of(backbone, [encoded[2]], [4], replace(PLAIN, id_map=False))
    assert plain.id_map_BFCHW is None
    assert torch.equal(plain.noise_BFCHW, alone.noise_BFCHW)
    for other in (
        batch_of(backbone, [encoded[2]], [5]),
        batch_of(backbone, [encoded[1]], [4]),
        batch_of(backbone, [encoded[2]], [4], replace(PLAIN, seed=1)),
    ):
        assert not torch.equal(other.noise_BFCHW, alone.noise_BFCHW)


def test_roles_weigh_their_maps(backbone: Any, encoded: list[Encoded]) -> None:
    even = batch_of(backbone, encoded, [0, 0, 0])
    assert even.phrase_targets.weight_BR is None
    draw = replace(PLAIN, roles=(1.0, 2.0, 5.0))
    for targets in (
        batch_of(backbone, encoded, [0, 0, 0], draw).phrase_targets,
        batch_of(backbone, encoded, [0, 0, 0], draw).region_targets,
    ):
        assert targets.weight_BR is not None
        assert targets.weight_BR.tolist() == [[1.0, 2.0, 5.0]] * 3  # subject, object, verb


def test_a_placebo_changes_the_masks_alone(encoded: list[Encoded]) -> None:
    one, other = encoded[0], encoded[1]
    found = with_masks_of(one, other)
    for name in ("region_PN", "tokens_PFhw", "visible_PF", "target_PTHW", "known_PT"):
        assert torch.equal(getattr(found, name), getattr(other, name)), name
    assert not torch.equal(found.target_PTHW, one.target_PTHW)
    for name in ("latents_FCHW", "phrase_PL", "ids_IHW", "repeated_P", "role_P"):
        assert getattr(found, name) is getattr(one, name), name
    assert found.text is one.text
    short = replace(
        other,
        **{
            name: getattr(other, name)[:2]
            for name in (
                "phrase_PL", "region_PN", "tokens_PFhw", "visible_PF", "target_PTHW", "known_PT"
            )
        },
    )  # fmt: skip
    assert torch.equal(with_masks_of(one, short).target_PTHW, other.target_PTHW[[0, 1, 0]])
    none = replace(other, phrase_PL=other.phrase_PL[:0])
    assert not with_masks_of(one, none).target_PTHW.any()


def test_id_map_lies_in_latent_frame_0(backbone: Any, encoded: list[Encoded]) -> None:
    id_map = batch_of(backbone, encoded[:1], [0]).id_map_BFCHW
    assert id_map is not None
    assert id_map.shape == (1, 3, 4, 8, 8)
    assert id_map[:, 0].any()
    assert not id_map[:, 1:].any()
    colours = {
        tuple(batch_of(backbone, encoded[:1], [e]).id_map_BFCHW.flatten().tolist())  # pyright: ignore
        for e in range(8)
    }
    assert len(colours) == 8  # painted anew every epoch


def test_conditions_are_dropped(backbone: Any, encoded: list[Encoded]) -> None:
    count = 60
    draw = replace(PLAIN, id_drop=0.3, caption_dropout=0.2)
    batch = batch_of(backbone, [encoded[0]] * count, list(range(count)), draw)
    assert batch.id_map_BFCHW is not None
    hidden = ~batch.id_map_BFCHW.flatten(1).any(dim=1)
    silent = (batch.text.embeds_BLE == EMPTY.embeds_BLE).flatten(1).all(dim=1)
    assert 8 < hidden.sum() < 30
    assert 4 < silent.sum() < 24
    assert not torch.equal(hidden, silent)
    # A silent caption has no phrase to ground; its regions still propagate.
    assert torch.equal(batch.phrase_targets.present_BR.any(dim=1), ~silent)
    assert torch.equal(batch.phrase_BPL.flatten(1).any(dim=1), ~silent)
    assert batch.region_targets.present_BR.all()
    assert torch.equal(batch.text.embeds_BLE[~silent][:1], encoded[0].text.embeds_BLE)
    never = batch_of(backbone, [encoded[0]] * count, list(range(count)))
    assert never.phrase_targets.present_BR.all()
    always = batch_of(backbone, encoded, [0, 0, 0], replace(PLAIN, id_drop=1.0))
    assert always.id_map_BFCHW is not None
    assert not always.id_map_BFCHW.any()


def fewer(one: Encoded, count: int) -> Encoded:
    phrase = {f.name for f in fields(one) if f.name.split("_")[-1].startswith("P")}
    return replace(one, **{name: getattr(one, name)[:count] for name in phrase})


def test_samples_are_padded_to_the_longest(backbone: Any, encoded: list[Encoded]) -> None:
    samples = [fewer(encoded[0], 1), encoded[1], fewer(encoded[2], 0)]
    batch = batch_of(backbone, samples, [0, 0, 0])
    assert batch.phrase_targets.present_BR.sum(dim=1).tolist() == [1, 3, 0]
    assert batch.phrase_BPL.shape == (3, 3, 32)
    assert torch.equal(batch.phrase_BPL[0, 0], encoded[0].phrase_PL[0])
    assert not batch.phrase_BPL[0, 1:].any()
    assert torch.equal(batch.region_BPN[1], encoded[1].region_PN)
    assert torch.equal(batch.region_targets.mask_BRTHW[1], encoded[1].target_PTHW)
    none = batch_of(backbone, [fewer(encoded[0], 0)], [0])
    assert none.phrase_BPL.shape == (1, 1, 32)
    assert not none.phrase_targets.present_BR.any()


def test_a_repeated_region_counts_once(backbone: Any, encoded: list[Encoded]) -> None:
    one = replace(encoded[0], repeated_P=torch.tensor([False, False, True]))
    batch = batch_of(backbone, [one], [0])
    assert batch.region_targets.present_BR.tolist() == [[True, True, False]]
    assert batch.phrase_targets.present_BR.all()


def same(a: Encoded, b: Encoded) -> bool:
    for field in fields(a):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, Text):
            if left.extra.keys() != right.extra.keys():
                return False
            left = torch.cat([left.embeds_BLE.flatten(), *left.extra.values()])
            right = torch.cat([right.embeds_BLE.flatten(), *right.extra.values()])
        if isinstance(left, Tensor):
            if left.dtype != right.dtype or not torch.equal(left, right):
                return False
        elif left != right:
            return False
    return True


@pytest.mark.parametrize("change", ["none", "no phrase", "no image", "more text"])
def test_cache_file_round_trip(encoded: list[Encoded], tmp_path: Path, change: str) -> None:
    one = encoded[0]
    if change == "no phrase":
        one = fewer(one, 0)
    if change == "more text":
        one = replace(one, text=Text(one.text.embeds_BLE, {"mask": torch.ones(32)}))
    if change == "no image":
        one = replace(one, image_FCHW=None)
    write_encoded(tmp_path / "a" / "b.safetensors", one)
    assert same(read_encoded(tmp_path / "a" / "b.safetensors"), one)
    assert [f.name for f in (tmp_path / "a").iterdir()] == ["b.safetensors"]


def counting(encoded: list[Encoded]) -> tuple[list[int], Callable[[int], Encoded]]:
    calls: list[int] = []

    def encode(index: int) -> Encoded:
        calls.append(index)
        return encoded[index]

    return calls, encode


@pytest.mark.parametrize("cached", [False, True])
def test_each_sample_is_encoded_once(encoded: list[Encoded], tmp_path: Path, cached: bool) -> None:
    calls, encode = counting(encoded)
    folder = tmp_path / "cache" if cached else None
    found = EncodedSet(["k0", "k1", "k2"], encode, folder)
    for index in (0, 2, 0, 2):
        assert same(found[index], encoded[index])
    assert calls == [0, 2]
    assert len(found) == 3
    if folder is not None:
        again = EncodedSet(["k0", "other", "k2"], encode, folder)
        assert same(again[0], encoded[0])
        assert same(again[1], encoded[1])
        assert calls == [0, 2, 1]
        stored = bytearray((folder / "k2.safetensors").read_bytes())
        stored[-1] ^= 1
        (folder / "k2.safetensors").write_bytes(stored)
        with pytest.raises(MatrixError, match=r"k2\.safetensors: .*not those that were written.*d"):
            again[2]
        (folder / "k0.safetensors").write_bytes(b"garbage")
        with pytest.raises(MatrixError, match=r"k0\.safetensors: not a cached sample.*delete"):
            again[0]


def test_what_a_first_frame_adds_stays_with_its_sample(
    backbone: Any, encoded: list[Encoded], tmp_path: Path
) -> None:
    """Also where the caption is dropped, and through the cache."""
    tokens = [torch.full((1, 5, 4), float(i)) for i in range(len(encoded))]
    given = [replace(s, image_extra={"tokens": x}) for s, x in zip(encoded, tokens, strict=True)]
    for index, sample in enumerate(given):
        write_encoded(tmp_path / f"{index}.safetensors", sample)
    again = [read_encoded(tmp_path / f"{i}.safetensors") for i in range(len(given))]
    silent = batch_of(backbone, again, [0] * len(again), replace(PLAIN, caption_dropout=1.0))
    assert torch.equal(silent.text.extra["tokens"], torch.cat(tokens))
    assert torch.equal(silent.text.embeds_BLE[0], EMPTY.embeds_BLE[0])
    assert not batch_of(backbone, encoded, [0] * len(encoded)).text.extra
