"""Means over forward passes and processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from matrix_video.attention.tap import tap
from matrix_video.backbones.loading import backbone_for
from matrix_video.training.batches import Draw, EncodedSet, make_batch
from matrix_video.training.config import TrainConfig
from matrix_video.training.encode import Encoded
from matrix_video.training.heldout import heldout_aas
from matrix_video.training.step import compute_losses
from matrix_video.training.student import Layers, make_student
from matrix_video.training.tally import Tally, count_losses, means


def test_means_are_over_all_entries_wherever_they_were() -> None:
    one, two = Tally(), Tally()
    one.add("a", torch.tensor([1.0, 2.0]))
    one.add("a", torch.tensor([6.0]))
    two.add("a", torch.tensor([float("nan"), 3.0]))
    two.add("b", torch.tensor([[4.0]]))
    two.add("c", torch.tensor([float("nan")]))
    assert means([one.facts(), two.facts()]) == {"a": 3.0, "b": 4.0}


def test_what_is_said_of_a_forward_pass(
    pipe: Any, config: Callable[..., TrainConfig], encoded: list[Encoded]
) -> None:
    student = make_student(backbone_for(pipe), config(), Layers((0,), (1,)), (9, 32, 32))
    view = student.view((9, 32, 32))
    draw = Draw(0, id_map=True, id_drop=0.0, caption_dropout=0.0)
    batch = make_batch(student.backbone, encoded[:2], [0, 0], encoded[0].text, draw)
    weights: Any = {"sga": 0.5, "spa": 0.25}
    tally = Tally()
    with tap(student.backbone.transformer, view.sites) as calls:
        losses = compute_losses(student, view, batch, weights, calls)
        total = losses.total(weights)
        count_losses(tally, losses, view, batch, total)
    found = means([tally.facts()])
    assert found["loss"] == pytest.approx(total.item())
    assert found["sga"] == pytest.approx(losses.terms["sga"].total().item())
    assert found["sga/0/v2t"] == pytest.approx(found["sga"])
    assert found["spa/1/v2v"] == pytest.approx(found["spa"])
    assert 0 < found["aas/0/v2t"] < 1
    assert 0 < found["aas/1/v2v"] < 1
    levels = student.backbone.noise_levels(5)
    for row, t in enumerate(batch.timesteps_B):
        nearest = int((levels - t).abs().argmin())
        others = [r for r, s in enumerate(batch.timesteps_B)
                  if int((levels - s).abs().argmin()) == nearest]  # fmt: skip
        expected = losses.diffusion_B[others].mean().item()
        assert found[f"diffusion/noise{nearest}"] == pytest.approx(expected), row


def test_terms_are_counted_where_they_act(
    pipe: Any, config: Callable[..., TrainConfig], encoded: list[Encoded]
) -> None:
    student = make_student(
        backbone_for(pipe), config(align_noise=(3,)), Layers((0,), (1,)), (9, 32, 32)
    )
    view = student.view((9, 32, 32))
    draw = Draw(0, id_map=True, id_drop=0.0, caption_dropout=0.0)
    batch = make_batch(student.backbone, encoded[:3], [0, 0, 0], encoded[0].text, draw)
    levels = student.backbone.noise_levels(5).to(batch.timesteps_B)
    batch = replace(batch, timesteps_B=levels[[3, 0, 3]])
    weights: Any = {"sga": 0.5, "spa": 0.25}
    tally = Tally()
    with tap(student.backbone.transformer, view.sites) as calls:
        losses = compute_losses(student, view, batch, weights, calls)
        count_losses(tally, losses, view, batch, losses.total(weights))
    found = means([tally.facts()])
    each_B = losses.terms["sga"].per_sample()
    assert each_B[1] == 0
    assert found["sga"] == found["sga/noise3"] == pytest.approx(each_B[[0, 2]].mean().item())
    assert {name for name in found if name.startswith(("sga/noise", "diffusion/noise"))} == {
        *("sga/noise3", "diffusion/noise0", "diffusion/noise3")
    }


def test_live_scores_are_those_of_the_held_out_score(
    pipe: Any,
    config: Callable[..., TrainConfig],
    encoded: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Same sample, noise and level: the same number by both ways."""
    student = make_student(
        backbone_for(pipe), config(id_map=False), Layers((0,), (1,)), (9, 32, 32)
    )
    view = student.view((9, 32, 32))
    draw = Draw(3, id_map=False, id_drop=0.0, caption_dropout=0.0)
    batch = make_batch(student.backbone, encoded[:1], [-1], encoded[0].text, draw)
    weights: Any = {"sga": 1.0, "spa": 1.0}
    tally = Tally()
    levels = student.backbone.noise_levels
    only = batch.timesteps_B.clone()
    with tap(student.backbone.transformer, view.sites) as calls:
        losses = compute_losses(student, view, batch, weights, calls)
        count_losses(tally, losses, view, batch, losses.total(weights))
        monkeypatch.setattr(
            student.backbone, "noise_levels", lambda n: only if n == 1 else levels(n)
        )
        one = EncodedSet(["a"], lambda _: encoded[0])
        held = heldout_aas(student, one, lambda _: calls, seed=3, levels=1)
    live = means([tally.facts()])
    for name in ("0/v2t", "1/v2v"):
        assert live[f"aas/{name}"] == pytest.approx(held[f"heldout_aas/{name}"], rel=1e-5)
