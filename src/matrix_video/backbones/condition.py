"""The first-frame id map as an extra condition of a video transformer.

Shapes: B batch, I instances, C latent channels, F latent frames, H W rows and columns (of pixels
or latents), N tokens, D model width.

Paper section 5 widens the input: noisy latent ‖ first-frame latent ‖ id-map latent. Instead of
widening the patch layer itself, a projection beside it adds its output to the patch layer's: by
linearity the same function, but the base's weights and config stay untouched, so the rest of the
adapter remains plain LoRA. It starts at zero and has no bias, so at step 0, and whenever the id map
is absent, the model is exactly the base (plus LoRA).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import product
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from matrix_video.services.errors import MatrixError

ID_COLOURS: Final[tuple[tuple[int, int, int], ...]] = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (255, 0, 255),
    (0, 255, 255),
    (255, 128, 0),
    (128, 0, 255),
    (0, 128, 255),
    (255, 255, 255),
    (128, 128, 128),
    (128, 64, 0),
)
"""Colours of ids; the first six are those of the paper's boxes (appendix). Background is black."""
MOST_IDS: Final = 64
"""Instances that an id map tells apart (our choice: their colours differ by 51 of 255 or more)."""


@lru_cache
def id_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """So many colours: `ID_COLOURS`, and where they are too few, those of a grid that are farthest
    from black and from all before them."""
    found = [*ID_COLOURS]
    grid = np.array([*product(range(0, 256, 51), repeat=3)])
    while len(found) < count:
        taken = np.array([(0, 0, 0), *found])
        gap = np.square(grid[:, None] - taken).sum(axis=-1).min(axis=1)
        red, green, blue = grid[gap.argmax()].tolist()
        found.append((red, green, blue))
    return tuple(found)


def paint_ids(
    masks_IHW: NDArray[np.bool_], generator: torch.Generator, name: str
) -> NDArray[np.uint8]:
    """Id map [H,W,3] of first-frame masks [I,H,W] of the sample ``name``, each instance in a colour
    drawn at random.

    Colours are permuted for every sample (our choice): ids numbered by mention with fixed colours
    would tell the model who the agent is. Where masks overlap the smaller instance is on top.
    Raises `MatrixError` for more instances than `MOST_IDS`.
    """
    instances = len(masks_IHW)
    check_ids(instances, f"sample {name}")
    colours = id_colours(max(instances, len(ID_COLOURS)))
    order = torch.randperm(len(colours), generator=generator).tolist()
    return paint(masks_IHW, [colours[k] for k in order[:instances]])


def check_ids(instances: int, sample: str) -> None:
    """`MatrixError` naming ``sample`` for more instances than an id map has room for."""
    if instances > MOST_IDS:
        raise MatrixError(
            f"{sample} has {instances} instances, an id map has room for {MOST_IDS}",
            remedy="keep the instances that take part in an interaction, or leave the id map out "
            "(--no-id-map)",
            field="instances",
        )


def paint(
    masks_IHW: NDArray[np.bool_], colours: Sequence[tuple[int, int, int]]
) -> NDArray[np.uint8]:
    """Picture [H,W,3] of masks [I,H,W], each in its colour, a smaller one over a larger."""
    image_HW3 = np.zeros((*masks_IHW.shape[1:], 3), dtype=np.uint8)
    sizes = masks_IHW.sum(axis=(1, 2))
    for index in np.argsort(-sizes, kind="stable"):
        image_HW3[masks_IHW[index]] = colours[index]
    return image_HW3


class ConditionProjection(nn.Module):
    """Bias-free patch projection of the condition's latents, zero at the start."""

    def __init__(self, channels: int, patch: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.channels, self.patch = channels, patch
        self.conv = nn.Conv3d(channels, width, patch, stride=patch, bias=False)
        nn.init.zeros_(self.conv.weight)

    def forward(self, latents_BFCHW: Tensor, output: Tensor) -> Tensor:
        """Projection of ``latents`` [B,F,C,H,W] in the layout of the patch layer's ``output``.

        Layouts: [B,D,F,H,W] (3-D convolution), [B·F,D,H,W] (2-D), [B,N,D] (linear on packed
        tokens, frame-major). ``output``'s batch may be a multiple of ``latents``': pipelines that
        batch guidance as [unconditional, conditional] see the same id map in both halves.
        """
        side = self.conv(latents_BFCHW.transpose(1, 2).to(self.conv.weight))
        batch, width, frames, rows, columns = side.shape
        merged = batch * frames if output.ndim == 4 else batch
        if output.shape[0] % merged:
            raise ValueError(f"condition of {merged} rows beside a patch output {output.shape}")
        side = side.repeat(output.shape[0] // merged, 1, 1, 1, 1)
        if output.ndim == 4:
            side = side.transpose(1, 2).reshape(-1, width, rows, columns)
        elif output.ndim == 3:
            side = side.flatten(2).transpose(1, 2)
        if side.shape != output.shape:
            raise ValueError(f"condition {tuple(side.shape)} beside patch output {output.shape}")
        return side.to(output)


class Condition:
    """A `ConditionProjection` attached to the patch layer ``site`` of a transformer.

    The projection's weights live here, not in the transformer, whose state dict and config stay as
    they were.
    """

    def __init__(
        self,
        transformer: nn.Module,
        site: str,
        channels: int,
        patch: tuple[int, int, int],
    ) -> None:
        """``patch``: latent frames, rows and columns of a token. ``ValueError`` where ``site`` is
        no patch layer of that size."""
        layer = transformer.get_submodule(site)
        self.site = site
        self.projection = ConditionProjection(channels, patch, _width(layer, patch))
        weight = next(layer.parameters())
        self.projection.to(weight.device)
        self._latents: Tensor | None = None
        self._handle = layer.register_forward_hook(self._add)

    def _add(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
        del module, inputs
        if self._latents is None:
            return None
        return output + self.projection(self._latents, output)

    @contextmanager
    def given(self, latents_BFCHW: Tensor | None) -> Generator[None]:
        """Within, forwards see this id map (latents as the backbone's); None: no id map."""
        before = self._latents
        self._latents = latents_BFCHW
        try:
            yield
        finally:
            self._latents = before

    def detach(self) -> None:
        """Leave the transformer as it was."""
        self._handle.remove()


def _width(layer: nn.Module, patch: tuple[int, int, int]) -> int:
    """Output width of a patch layer; its own patch size, where it has one, must be ``patch``."""
    if isinstance(layer, nn.Linear):
        return layer.out_features
    if isinstance(layer, nn.Conv2d | nn.Conv3d):
        own = (1, *layer.kernel_size)[-3:]
        if own == patch and layer.stride == layer.kernel_size:
            return layer.out_channels
        raise ValueError(f"the patch layer has patches {own}, not {patch}")
    raise ValueError(f"{type(layer).__name__} is no patch layer")
