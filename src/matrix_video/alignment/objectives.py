"""SGA and SPA: the two alignment losses, on maps of the chosen layers.

Shapes: B batch, R maps of a sample (phrases for SGA, first-frame regions for SPA; padded),
L text tokens, F token frames, h w token rows and columns, N = F·h·w.

Paper section 5: SGA (semantic grounding alignment) compares the video-to-text map of each subject,
object and verb phrase with its mask track; SPA (semantic propagation alignment) compares the
video-to-video map of each first-frame region with the same tracks. A verb's mask is the union of
its participants (made by the caller).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import torch
from torch import Tensor

from matrix_video.alignment.decoder import MapDecoder, interpolate
from matrix_video.alignment.lift import log_lift
from matrix_video.alignment.losses import DEFAULT_WEIGHTS, MaskLoss, MaskLossWeights, mask_loss
from matrix_video.alignment.targets import Targets
from matrix_video.attention.readout import MapMode, v2t_maps, v2v_maps
from matrix_video.attention.site import Call, Captured, Site
from matrix_video.services.errors import MatrixError

Term = Literal["sga", "spa"]
NO_WEIGHTS: Final[Mapping[str, float]] = {}


@dataclass(frozen=True)
class Aligner:
    """How maps become losses. ``decoder`` None: interpolation alone, nothing trained."""

    shape: tuple[int, int, int]
    """Token frames, rows, columns (F, h, w)."""
    ratio: int
    """Pixel frames per token frame (r)."""
    up: int
    """Output rows per token row."""
    decoder: MapDecoder | None = None
    weights: MaskLossWeights = DEFAULT_WEIGHTS
    mode: MapMode = "probabilities"

    def logits(self, maps_BRN: Tensor, *, skip: int = 0) -> Tensor:
        """Mask logits [B,R,T,H,W] of maps [B,R,N].

        The first ``skip`` token frames are left out of the map's normalisation too and enter the
        decoder as chance (0): a region that looks at itself says nothing about propagation.
        """
        frames, rows, columns = self.shape
        size = (*maps_BRN.shape[:2], frames - skip, rows, columns)
        kept_BRN = maps_BRN[:, :, rows * columns * skip :]
        lift_BRFhw = log_lift(kept_BRN, mode=self.mode).reshape(size)
        if skip:
            chance = lift_BRFhw.new_zeros(*size[:2], skip, rows, columns)
            lift_BRFhw = torch.cat([chance, lift_BRFhw], dim=2)
        if self.decoder is None:
            return interpolate(lift_BRFhw, self.ratio, self.up)
        return self.decoder(lift_BRFhw)


@dataclass(frozen=True)
class Alignment:
    """One term of the loss on one batch."""

    term: Term
    layers: dict[str, MaskLoss]
    skipped: int = 0
    """Regions left out because the instance is not in the first frame (SPA)."""
    maps_BRN: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """Attention probabilities by layer, detached: what was compared, or, where logits were, where
    they look."""
    layer_weights: Mapping[str, float] = field(default_factory=dict[str, float])
    """How much a layer counts in the mean; 1 where it is not named."""

    def per_sample(self) -> Tensor:
        """Loss [B]: mean over layers."""
        weights = [self.layer_weights.get(name, 1.0) for name in self.layers]
        each = [w * x.total_B for w, x in zip(weights, self.layers.values(), strict=True)]
        return torch.stack(each).sum(dim=0) / sum(weights)

    def total(self) -> Tensor:
        """Scalar: mean over the batch, samples without a map counting as 0."""
        return self.per_sample().mean()

    def maps(self) -> int:
        """How many maps of the batch were compared (in each layer)."""
        first = next(iter(self.layers.values()))
        return int(first.maps_B.sum())


def alignment_loss(
    term: Term,
    maps: Mapping[str, Tensor],
    targets: Targets,
    aligner: Aligner,
    *,
    skip: int = 0,
    skipped: int = 0,
    layer_weights: Mapping[str, float] = NO_WEIGHTS,
) -> Alignment:
    """Mask loss of each layer's maps [B,R,N] against ``targets``.

    The first ``skip`` token frames are left out on both sides.
    """
    if not maps:
        raise ValueError(f"{term}: no layer to align")
    known_BRT = targets.known_BRT
    if skip:
        known_BRT = known_BRT.clone()
        known_BRT[:, :, : 1 + aligner.ratio * (skip - 1)] = False
    layers = {
        name: mask_loss(
            aligner.logits(maps_BRN, skip=skip),
            targets.mask_BRTHW,
            known_BRT,
            targets.present_BR,
            aligner.weights,
            targets.weight_BR,
        )
        for name, maps_BRN in maps.items()
    }
    read = {name: maps_BRN.detach() for name, maps_BRN in maps.items()}
    return Alignment(term, layers, skipped, read, layer_weights)


def sga(
    calls: Mapping[str, Captured],
    sites: Mapping[str, Site],
    phrase_BRL: Tensor,
    targets: Targets,
    aligner: Aligner,
    *,
    layer_weights: Mapping[str, float] = NO_WEIGHTS,
) -> Alignment:
    """Alignment of V2T maps: ``phrase_BRL`` are weights over text tokens (rows sum to 1)."""
    maps = {
        name: v2t_maps(calls[name], site, phrase_BRL, mode=aligner.mode)
        for name, site in sites.items()
    }
    found = alignment_loss("sga", maps, targets, aligner, layer_weights=layer_weights)
    if aligner.mode == "probabilities":
        return found
    with torch.no_grad():
        looked = {name: v2t_maps(calls[name], site, phrase_BRL) for name, site in sites.items()}
    return replace(found, maps_BRN=looked)


def spa(
    calls: Mapping[str, Captured],
    sites: Mapping[str, Site],
    region_BRN: Tensor,
    targets: Targets,
    aligner: Aligner,
    *,
    first: int = 0,
    layer_weights: Mapping[str, float] = NO_WEIGHTS,
) -> Alignment:
    """Alignment of V2V maps: ``region_BRN`` are weights over the first latent frame's tokens.

    A row of zeros (the instance is not in the first frame) is left out and counted. ``first`` is
    the token frame that the regions lie in; it is not 0 only where a model pads in front.
    """
    maps = {
        name: v2v_maps(calls[name], site, region_BRN, mode=aligner.mode)
        for name, site in sites.items()
    }
    seen_BR = region_BRN.sum(dim=-1) > 0
    skipped = int((targets.present_BR & ~seen_BR).sum())
    kept = replace(targets, present_BR=targets.present_BR & seen_BR)
    found = alignment_loss(
        "spa", maps, kept, aligner, skip=first + 1, skipped=skipped, layer_weights=layer_weights
    )
    if aligner.mode == "probabilities":
        return found
    with torch.no_grad():
        looked = {name: v2v_maps(calls[name], site, region_BRN) for name, site in sites.items()}
    return replace(found, maps_BRN=looked)


def require_gradient(alignment: Alignment, calls: Mapping[str, Captured]) -> None:
    """Raise `MatrixError` where a term of this batch cannot move the attention that it reads.

    Meant for the first batch that has a map: a tap that was detached or a frozen layer would train
    silently towards nothing. The graph is kept.
    """
    term = alignment.term
    for name, loss in alignment.layers.items():
        found = calls[name]
        each = (found,) if isinstance(found, Call) else found
        wanted = [x for call in each for x in (call.q, call.k) if x.requires_grad]
        grads = (
            torch.autograd.grad(
                loss.total_B.sum(), wanted, retain_graph=True, materialize_grads=True
            )
            if wanted and loss.total_B.requires_grad
            else ()
        )
        if not all(bool(grad.isfinite().all()) for grad in grads):
            raise MatrixError(
                f"the gradient of the {term.upper()} loss in layer {name} is not a number",
                remedy="train in float32 (--precision no, --weights float32); if it stays, the "
                "base itself gives no numbers for these clips",
                field=term,
            )
        if not any(bool(grad.any()) for grad in grads):
            raise MatrixError(
                f"the {term.upper()} loss has no gradient in layer {name}",
                remedy="put LoRA on that layer or on one before it, and use non-reentrant "
                "gradient checkpointing",
                field=term,
            )
