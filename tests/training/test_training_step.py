"""One forward pass: which losses, and what is said when one is not a number."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from matrix_video.alignment.objectives import Term
from matrix_video.attention.tap import tap
from matrix_video.backbones.loading import backbone_for
from matrix_video.services.errors import MatrixError
from matrix_video.training.batches import Batch, Draw, make_batch
from matrix_video.training.config import TrainConfig
from matrix_video.training.encode import Encoded
from matrix_video.training.step import BINS, Losses, compute_losses, noise_bins, not_finite
from matrix_video.training.student import Layers, Student, make_student

Make = Callable[..., TrainConfig]
BOTH: dict[Term, float] = {"sga": 0.5, "spa": 0.25}


def setting(pipe: Any, config: TrainConfig, encoded: list[Encoded]) -> tuple[Student, Batch]:
    student = make_student(backbone_for(pipe), config, Layers(config.v2t, config.v2v), (9, 32, 32))
    draw = Draw(0, config.id_map, id_drop=0.0, caption_dropout=0.0)
    batch = make_batch(student.backbone, encoded[:2], [0, 0], encoded[0].text, draw)
    return student, batch


def losses_of(student: Student, batch: Batch, weights: dict[Term, float] = BOTH) -> Losses:
    view = student.view((9, 32, 32))
    with tap(student.backbone.transformer, view.sites) as calls:
        return compute_losses(student, view, batch, weights, calls)


def test_terms_add_up(pipe: Any, config: Make, encoded: list[Encoded]) -> None:
    losses = losses_of(*setting(pipe, config(), encoded))
    assert list(losses.terms["sga"].layers) == ["0/v2t", "1/v2t"]
    assert list(losses.terms["spa"].layers) == ["1/v2v"]
    expected = (
        losses.diffusion_B.mean()
        + 0.5 * losses.terms["sga"].total()
        + 0.25 * losses.terms["spa"].total()
    )
    torch.testing.assert_close(losses.total(BOTH), expected)


def test_step_0_is_the_bases_own_loss(pipe: Any, config: Make, encoded: list[Encoded]) -> None:
    student, batch = setting(pipe, config(), encoded)
    found = losses_of(student, batch).diffusion_B
    backbone = student.backbone
    student.detach()
    with torch.no_grad():
        t = batch.timesteps_B
        noisy = backbone.add_noise(batch.latents_BFCHW, batch.noise_BFCHW, t)
        prediction = backbone.predict(noisy, t, batch.text, batch.image_BFCHW)
        target = backbone.target(batch.latents_BFCHW, batch.noise_BFCHW, t)
    assert torch.equal(found.detach(), (prediction - target).square().flatten(1).mean(dim=1))


def test_terms_act_at_the_wanted_noise_alone(
    pipe: Any, config: Make, encoded: list[Encoded]
) -> None:
    student, batch = setting(pipe, config(), encoded)
    levels = student.backbone.noise_levels(BINS).to(batch.timesteps_B)
    batch = replace(batch, timesteps_B=levels[torch.arange(len(batch.ids)) % BINS])
    assert noise_bins(student.backbone, batch.timesteps_B).tolist() == [
        row % BINS for row in range(len(batch.ids))
    ]
    everywhere = losses_of(student, batch)
    for wanted in ((0,), (1, 2)):
        options = student.options.model_copy(update={"align_noise": wanted})
        found = losses_of(replace(student, options=options), batch)
        assert torch.equal(found.diffusion_B, everywhere.diffusion_B)
        for term, alignment in found.terms.items():
            whole_B = everywhere.terms[term].per_sample()
            assert (whole_B > 0).all()
            expected_B = whole_B * torch.isin(everywhere.bins_B, torch.tensor(wanted))
            assert torch.equal(alignment.per_sample(), expected_B)
    with pytest.raises(ValidationError, match="less than or equal to 4"):
        config(align_noise=(5,))


def test_terms_of_weight_0_are_not_computed(
    pipe: Any, config: Make, encoded: list[Encoded]
) -> None:
    student, batch = setting(pipe, config(), encoded)
    assert list(losses_of(student, batch, {"sga": 0.0, "spa": 1.0}).terms) == ["spa"]
    assert not losses_of(student, batch, {"sga": 0.0, "spa": 0.0}).terms


def test_every_parameter_has_a_gradient(pipe: Any, config: Make, encoded: list[Encoded]) -> None:
    student, batch = setting(pipe, config(), encoded)
    for parameter in student.parameters.values():  # away from the zeros they start from
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    losses_of(student, batch).total(BOTH).backward()
    assert {name.split(".")[0] for name in student.new} == {"condition", "decoder"}
    for name, parameter in student.parameters.items():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("term", ["sga", "spa"])
def test_alignment_moves_its_own_layers_alone(
    pipe: Any, config: Make, encoded: list[Encoded], term: Term
) -> None:
    """Through captured queries and keys: a layer's own LoRA, and those before it."""
    student, batch = setting(pipe, config(v2t=(0,), v2v=(1,)), encoded)
    losses = losses_of(student, batch)
    losses.terms[term].total().backward()
    moved = {
        int(name.split(".")[1])
        for name, parameter in student.lora.items()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert moved == ({0} if term == "sga" else {0, 1})


def test_gradient_checkpointing_changes_nothing(
    pipe: Any, config: Make, encoded: list[Encoded]
) -> None:
    gradients: list[dict[str, torch.Tensor]] = []
    for recompute in (False, True):
        student, batch = setting(pipe, config(gradient_checkpointing=recompute), encoded)
        for parameter in student.parameters.values():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
        losses_of(student, batch).total(BOTH).backward()
        gradients.append({n: p.grad for n, p in student.parameters.items() if p.grad is not None})
        student.detach()
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-7)


def poisoned(losses: Losses, term: Term | None) -> Losses:
    """The second sample's loss is not a number."""
    nan = torch.tensor([0.0, float("nan")])
    if term is None:
        return replace(losses, diffusion_B=losses.diffusion_B + nan)
    alignment = losses.terms[term]
    layer = list(alignment.layers)[-1]
    loss = replace(alignment.layers[layer], total_B=alignment.layers[layer].total_B + nan)
    bad = replace(alignment, layers=alignment.layers | {layer: loss})
    return replace(losses, terms=losses.terms | {term: bad})


def test_not_a_number_is_named(pipe: Any, config: Make, encoded: list[Encoded]) -> None:
    student, batch = setting(pipe, config(), encoded)
    losses = losses_of(student, batch)
    assert not_finite(losses, batch, 3) is None
    for term, place in (
        (None, "the diffusion loss"),
        ("sga", "the SGA loss in layer 1/v2t"),
        ("spa", "the SPA loss in layer 1/v2v"),
    ):
        problem = not_finite(poisoned(losses, term), batch, 3)  # pyright: ignore
        assert re.search(rf"step 3: {place} of sample 0001 is nan.*--lr", str(problem))


def test_text_to_video_has_no_id_map(config: Make) -> None:
    from matrix_video.backbones.tiny import tiny_pipeline

    pipe = tiny_pipeline(0, i2v=False)
    with pytest.raises(
        MatrixError, match=r"takes no first frame, so it has no id map.*--no-id-map"
    ):
        make_student(backbone_for(pipe), config(), Layers((0,), (1,)), (9, 32, 32))
    assert not any(".lora_" in name for name, _ in pipe.transformer.named_parameters())
    student = make_student(
        backbone_for(pipe), config(id_map=False), Layers((0,), (1,)), (9, 32, 32)
    )
    assert student.condition is None


def test_decoder_is_there_only_for_a_loss(pipe: Any, config: Make) -> None:
    for changes, has in (
        ({}, True),
        ({"sga": 0.0, "spa": 0.0}, False),
        ({"decoder": False}, False),
    ):
        student = make_student(
            backbone_for(pipe), config(**changes), Layers((0,), (1,)), (9, 32, 32)
        )
        assert (student.decoder is not None) == has
        student.detach()
