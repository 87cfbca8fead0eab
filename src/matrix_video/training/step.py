"""One forward pass: the model's own loss, and the alignment losses on its attention.

Shapes: B batch, F C H W latent frames, channels, rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Final, cast

import torch
from torch import Tensor, nn

from matrix_video.alignment.objectives import Alignment, Term, sga, spa
from matrix_video.alignment.targets import Targets
from matrix_video.attention.site import Captured
from matrix_video.backbones.base import Backbone
from matrix_video.services.errors import MatrixError
from matrix_video.training.batches import Batch
from matrix_video.training.student import Student, View

Autocast = Callable[[], AbstractContextManager[object]]
BINS: Final = 5
"""Noise levels, evenly spaced in the schedule, by the nearest of which samples are told apart (our
choice)."""


@dataclass(frozen=True)
class Losses:
    """Losses of one batch, by sample."""

    diffusion_B: Tensor
    terms: dict[Term, Alignment]
    bins_B: Tensor
    """Which of `BINS` noise levels is nearest, 0 for the least noise."""
    acting_B: Tensor
    """Whether the terms act at a sample's noise; where not they are 0."""

    def total(self, weights: Mapping[Term, float]) -> Tensor:
        """L_DM + λ_SGA·L_SGA + λ_SPA·L_SPA (paper section 5), means over the batch."""
        total = self.diffusion_B.mean()
        for term, alignment in self.terms.items():
            total = total + weights[term] * alignment.total()
        return total


def compute_losses(
    student: Student,
    view: View,
    batch: Batch,
    weights: Mapping[Term, float],
    calls: Mapping[str, Captured],
    autocast: Autocast = nullcontext,
) -> Losses:
    """Forward pass on ``batch``; ``calls`` are the captures of a tap open on ``view.sites``.

    Terms of weight 0 are not computed. The transformer runs under ``autocast``; maps, decoder and
    losses in float32.
    """
    backbone = student.backbone
    noisy = backbone.add_noise(batch.latents_BFCHW, batch.noise_BFCHW, batch.timesteps_B)
    with autocast():
        prediction = student.predict(batch, noisy, batch.timesteps_B)
    target = backbone.target(batch.latents_BFCHW, batch.noise_BFCHW, batch.timesteps_B)
    counted = backbone.supervised(target.shape[1]).to(target.device)
    error_BFCHW = (prediction.float() - target.float()).square()[:, counted]
    weight_B = backbone.weight(batch.timesteps_B).float()
    diffusion_B = weight_B * error_BFCHW.flatten(1).mean(dim=1)
    terms: dict[Term, Alignment] = {}
    bins_B = noise_bins(backbone, batch.timesteps_B)
    acting_B = _acting(bins_B, student.options.align_noise)
    layers = student.options.layer_weights
    if weights["sga"] and view.v2t_sites:
        terms["sga"] = sga(
            calls,
            view.v2t_sites,
            batch.phrase_BPL,
            _where(acting_B, batch.phrase_targets),
            view.aligner,
            layer_weights=layers,
        )
    if weights["spa"] and view.v2v_sites:
        terms["spa"] = spa(
            calls,
            view.v2v_sites,
            batch.region_BPN,
            _where(acting_B, batch.region_targets),
            view.aligner,
            first=view.grid.first,
            layer_weights=layers,
        )
    return Losses(diffusion_B, terms, bins_B, acting_B)


def noise_bins(backbone: Backbone, timesteps_B: Tensor) -> Tensor:
    """The nearest of `BINS` noise levels [B], 0 for the least noise."""
    levels = backbone.noise_levels(BINS).to(timesteps_B)
    return (timesteps_B[:, None] - levels).abs().argmin(dim=1)


def _acting(bins_B: Tensor, wanted: Sequence[int] | None) -> Tensor:
    if wanted is None:
        return torch.ones_like(bins_B, dtype=torch.bool)
    return torch.isin(bins_B, torch.tensor(wanted, device=bins_B.device))


def _where(acting_B: Tensor, targets: Targets) -> Targets:
    return replace(targets, present_BR=targets.present_BR & acting_B[:, None])


def gradient_norms(
    losses: Losses, weights: Mapping[Term, float], parameters: Sequence[nn.Parameter]
) -> dict[str, float]:
    """Norm of each term's own gradient, as it enters the sum, by ``grad_norm/<term>``.

    Its graph is kept. Costs a backward pass a term.
    """
    parts = {"diffusion": losses.diffusion_B.mean()}
    parts |= {term: weights[term] * found.total() for term, found in losses.terms.items()}
    norms: dict[str, float] = {}
    for name, part in parts.items():
        if not part.requires_grad:  # no map in this batch
            continue
        found = torch.autograd.grad(part, parameters, retain_graph=True, allow_unused=True)
        grads = cast("tuple[Tensor | None, ...]", found)
        squares = [grad.double().square().sum() for grad in grads if grad is not None]
        norms[f"grad_norm/{name}"] = torch.stack(squares).sum().sqrt().item() if squares else 0.0
    return norms


def not_finite(losses: Losses, batch: Batch, step: int) -> MatrixError | None:
    """The error that names term, layer and sample of a loss that is not a number, if there is."""
    for place, loss_B in _named_losses(losses):
        finite_B = torch.isfinite(loss_B)
        if not bool(finite_B.all()):
            row = int((~finite_B).nonzero()[0])
            return MatrixError(
                f"step {step}: {place} of sample {batch.ids[row]} is {loss_B[row].item():g}",
                remedy="lower --lr, or look at that sample with `matrix check`",
            )
    return None


def _named_losses(losses: Losses) -> list[tuple[str, Tensor]]:
    named = [("the diffusion loss", losses.diffusion_B)]
    for term, alignment in losses.terms.items():
        for layer, loss in alignment.layers.items():
            named.append((f"the {term.upper()} loss in layer {layer}", loss.total_B))
    return named
