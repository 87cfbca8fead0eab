"""What a run trains: LoRA on the chosen layers, the id map's projection, the map decoder.

Shapes: T pixel frames, H W pixels.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from matrix_video.alignment.decoder import DecoderConfig, MapDecoder, seeded_decoder
from matrix_video.alignment.losses import MaskLossWeights
from matrix_video.alignment.objectives import Aligner
from matrix_video.alignment.targets import token_ratio
from matrix_video.attention.site import Site
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.condition import Condition
from matrix_video.data.grid import TokenGrid
from matrix_video.services.errors import MatrixError
from matrix_video.training.batches import Batch
from matrix_video.training.config import TrainConfig
from matrix_video.training.lora import add_lora, projected, remove_lora
from matrix_video.training.parallel import Trainee


@dataclass(frozen=True)
class Layers:
    """The chosen layers: SGA acts on ``v2t``, SPA on ``v2v``."""

    v2t: tuple[int, ...]
    v2v: tuple[int, ...]

    @property
    def union(self) -> tuple[int, ...]:
        """All of them, ascending."""
        return tuple(sorted({*self.v2t, *self.v2v}))


@dataclass(frozen=True)
class View:
    """The student on clips of one shape: which attention is read, and how maps become losses."""

    clip: tuple[int, int, int]
    """Frames, rows and columns."""
    grid: TokenGrid
    v2t_sites: dict[str, Site]
    """By capture name, "<layer>/v2t"."""
    v2v_sites: dict[str, Site]
    """By capture name, "<layer>/v2v"."""
    aligner: Aligner

    @property
    def sites(self) -> dict[str, Site]:
        """Everything that is read, in training or to score."""
        return {**self.v2t_sites, **self.v2v_sites}


@dataclass(frozen=True)
class Student:
    """The base with everything trainable attached. ``parameters`` by stable name, in order."""

    backbone: Backbone
    layers: Layers
    condition: Condition | None
    decoder: MapDecoder | None
    ratio: int
    """Pixel frames per token frame, for which the decoder is made."""
    options: TrainConfig
    lora: dict[str, nn.Parameter]
    new: dict[str, nn.Parameter]

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return {**self.lora, **self.new}

    def view(self, clip: tuple[int, int, int]) -> View:
        """The student on clips of (T, H, W) pixels.

        Raises `MatrixError` for a shape that the model, or the decoder, does not take.
        """
        backbone, options = self.backbone, self.options
        grid, text = backbone.grid(*clip), backbone.num_text_tokens
        ratio = token_ratio(grid.frames)
        if grid.num_frames > 1 and ratio != self.ratio:
            raise MatrixError(
                f"a clip of {clip[0]} frames has {ratio} frames in a token, others {self.ratio}",
                remedy="give all clips one length with --num-frames",
                field="num_frames",
            )
        weights = MaskLossWeights(options.mask_bce, options.mask_dice, options.mask_l2)
        return View(
            clip=clip,
            grid=grid,
            v2t_sites={f"{i}/v2t": backbone.site(i, "v2t", grid, text) for i in self.layers.v2t},
            v2v_sites={f"{i}/v2v": backbone.site(i, "v2v", grid, text) for i in self.layers.v2v},
            aligner=Aligner(
                grid.shape, self.ratio, options.up, self.decoder, weights, options.map_mode
            ),
        )

    def current(self) -> Student:
        """The student with the parameters that its modules have now, after these were replaced."""
        found = dict(self.backbone.transformer.named_parameters())
        lora = {name: found[name] for name in self.lora}
        return replace(self, lora=lora, new=_new_parameters(self.condition, self.decoder))

    def trainee(self) -> Trainee:
        """All modules of its forward passes."""
        parts: dict[str, nn.Module] = {"transformer": self.backbone.transformer}
        if self.condition is not None:
            parts["projection"] = self.condition.projection
        if self.decoder is not None:
            parts["decoder"] = self.decoder
        return Trainee(parts)

    def detach(self) -> None:
        """Take everything off the pipeline again."""
        if self.condition is not None:
            self.condition.detach()
        _recompute(self.backbone.transformer, False)
        remove_lora(self.backbone.transformer)

    def predict(self, batch: Batch, noisy_BFCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        """One forward of the transformer on a batch at other noise, with the batch's id map."""
        with self.condition.given(batch.id_map_BFCHW) if self.condition else nullcontext():
            return self.backbone.predict(noisy_BFCHW, timesteps_B, batch.text, batch.image_BFCHW)


def make_student(
    backbone: Backbone,
    config: TrainConfig,
    layers: Layers,
    clip: tuple[int, int, int],
) -> Student:
    """Freeze the base and attach what ``config`` asks for, for clips like one of (T, H, W) pixels.

    Raises `MatrixError` for a layer that the model does not have, and for an id map on a
    text-to-video base.
    """
    check_id_map(backbone, config)
    freeze(backbone)
    grid = backbone.grid(*clip)
    text = backbone.num_text_tokens
    for i in layers.v2t:
        backbone.site(i, "v2t", grid, text)
    for i in layers.v2v:
        backbone.site(i, "v2v", grid, text)
    everywhere = config.lora_layers == "all"
    chosen = range(backbone.num_layers) if everywhere else layers.union
    lora = add_lora(
        backbone.transformer,
        projected(backbone.lora_targets(chosen), config.lora_projections),
        [backbone.layer_names()[i] for i in chosen],
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        seed=config.seed,
    )
    condition = None
    if config.id_map:
        frames, channels, rows, columns = backbone.latent_shape(*clip)
        patch = (frames // grid.num_frames, rows // grid.height, columns // grid.width)
        condition = Condition(backbone.transformer, backbone.condition_site(), channels, patch)
    _recompute(backbone.transformer, config.gradient_checkpointing)
    decoder = None
    ratio = token_ratio(grid.frames)
    if config.decoder and config.aligned:
        shape = DecoderConfig(
            ratio=ratio,
            up=config.up,
            channels=config.decoder_channels,
            bound=config.decoder_bound,
        )
        decoder = seeded_decoder(shape, config.seed)
        decoder.to(next(iter(lora.values())).device)
    if any(p.dtype == torch.float64 for p in lora.values()):  # a float64 base, to check numbers
        for part in (condition and condition.projection, decoder):
            if part is not None:
                part.double()
    return Student(
        backbone=backbone,
        layers=layers,
        condition=condition,
        decoder=decoder,
        ratio=ratio,
        options=config,
        lora=lora,
        new=_new_parameters(condition, decoder),
    )


def check_id_map(backbone: Backbone, config: TrainConfig) -> None:
    """`MatrixError` for an id map on a text-to-video base."""
    if config.id_map and not backbone.takes_image:
        raise MatrixError(
            f"{type(backbone.pipe).__name__} takes no first frame, so it has no id map",
            remedy="train with --no-id-map, or choose an image-to-video base",
            field="id_map",
        )


def _new_parameters(
    condition: Condition | None, decoder: MapDecoder | None
) -> dict[str, nn.Parameter]:
    new: dict[str, nn.Parameter] = {}
    if condition is not None:
        new |= {f"condition.{n}": p for n, p in condition.projection.named_parameters()}
    if decoder is not None:
        new |= {f"decoder.{n}": p for n, p in decoder.named_parameters()}
    return new


def freeze(backbone: Backbone) -> None:
    """No part of the pipeline trains or drops out; LoRA is switched on afterwards."""
    for module in backbone.pipe.components.values():
        if isinstance(module, nn.Module):
            module.requires_grad_(False)
            module.eval()


def _recompute(transformer: nn.Module, on: bool) -> None:
    """Switch diffusers' gradient checkpointing, which is non-reentrant, on or off."""
    assert isinstance(transformer, ModelMixin)
    if on:
        transformer.enable_gradient_checkpointing()
    else:
        transformer.disable_gradient_checkpointing()
