"""The map decoder: from attention on the token grid to mask logits on a finer one.

Shapes: B batch, R maps of a sample (padded), F token frames, h w token rows and columns,
r pixel frames per token frame, T = 1 + r(F-1) output frames, C channels.

Output frame t belongs to token frame ceil(t / r): a causal video VAE puts pixel frame 0 alone
into latent frame 0. Paper section 5 asks for a lightweight causal decoder; its layers are our
choice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class DecoderConfig(BaseModel):
    """Everything that the decoder's shape depends on; stored beside its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: int = Field(default=4, ge=1)
    """Pixel frames per token frame (r)."""
    up: int = Field(default=2, ge=1)
    """Output rows per token row; 2 is the latent resolution of a model with 2×2 patches."""
    channels: int = Field(default=16, ge=1)
    """Width. 16 gives about 10 thousand parameters at r = 4, up = 2."""
    bound: float = Field(default=2.0, gt=0)
    """Largest change of a logit, see `MapDecoder`."""


def interpolate(lift_BRFhw: Tensor, ratio: int, up: int) -> Tensor:
    """Log-lift [B,R,F,h,w] on the output grid [B,R,T,h·up,w·up].

    Nearest in time (each output frame copies the token frame that contains it), bilinear in space.
    """
    batch, maps, frames, rows, columns = lift_BRFhw.shape
    flat = lift_BRFhw.reshape(batch * maps * frames, 1, rows, columns)
    size = (rows * up, columns * up)
    fine = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    fine = fine.reshape(batch, maps, frames, *size)
    return fine.repeat_interleave(ratio, dim=2)[:, :, ratio - 1 :]


class CausalConv(nn.Module):
    """3-D convolution over [B,C,F,h,w] that sees the present and two past frames."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 3, padding=(0, 1, 1))

    def forward(self, x_BCFhw: Tensor) -> Tensor:
        return self.conv(F.pad(x_BCFhw, (0, 0, 0, 0, 2, 0)))


class MapDecoder(nn.Module):
    """Log-lift [B,R,F,h,w] -> mask logits [B,R,T,h·up,w·up], T = 1 + r(F-1).

    Fully convolutional, so it fits any grid; causal in time; every map is decoded by itself with
    the same weights. Its last layer starts at zero: at first the logits *are* the interpolated
    log-lift, and gradients reach the attention unchanged.

    Its change stays within ±``bound`` (our choice): a decoder that is free to draw masks does so
    instead of the attention. On small runs the held-out attention score rose less the larger the
    bound, and least without one, while the training loss fell most.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.inner = CausalConv(1, channels)
        self.outer = CausalConv(channels, channels)
        # One output for each of the r frames and up × up cells of a token: all the work is done on
        # the token grid, since a finer one costs r·up² times as much in every supervised layer.
        self.last = nn.Conv3d(channels, config.ratio * config.up**2, (1, 3, 3), padding=(0, 1, 1))
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, lift_BRFhw: Tensor) -> Tensor:
        ratio, up, bound = self.config.ratio, self.config.up, self.config.bound
        batch, maps, frames, rows, columns = lift_BRFhw.shape
        x = lift_BRFhw.reshape(batch * maps, 1, frames, rows, columns)
        x = self.last(F.gelu(self.outer(F.gelu(self.inner(x)))))
        # [M, r·up·up, F,h,w] -> [M, F·r, h·up, w·up]; of frame 0 the last of its r, as in
        # `interpolate`.
        x = x.unflatten(1, (ratio, up, up)).permute(0, 4, 1, 5, 2, 6, 3)
        change = x.reshape(batch, maps, frames * ratio, rows * up, columns * up)
        change_BRTHW = change[:, :, ratio - 1 :]
        return interpolate(lift_BRFhw, ratio, up) + bound * torch.tanh(change_BRTHW / bound)


def seeded_decoder(config: DecoderConfig, seed: int) -> MapDecoder:
    """A decoder whose start depends on ``seed`` alone; the global generators stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MapDecoder(config)
