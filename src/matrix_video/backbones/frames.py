"""Between frames and a video VAE's own tensors, the same for every family.

Shapes as in `backbones.base`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import torch
from PIL import Image
from torch import Tensor

from matrix_video.services.errors import MatrixError

IN_FULL: Final = (
    "hold the pipeline in float32 (--weights float32, --precision no); if it stays, the model or "
    "its input is broken"
)


def clip_size(frames_BTHWC: Tensor) -> tuple[int, int, int]:
    """(T, H, W); ``ValueError`` for tensors that are no frames."""
    if frames_BTHWC.ndim != 5 or frames_BTHWC.shape[-1] != 3:
        raise ValueError(f"expected frames [B,T,H,W,3], got {tuple(frames_BTHWC.shape)}")
    if frames_BTHWC.dtype != torch.uint8 and not frames_BTHWC.is_floating_point():
        raise ValueError(f"expected uint8, or floats in [0, 1], got {frames_BTHWC.dtype}")
    _, frames, height, width, _ = frames_BTHWC.shape
    return frames, height, width


def posterior_latents(
    vae: Any,
    frames_BTHWC: Tensor,
    generator: torch.Generator | None = None,
    *,
    device: torch.device | None = None,
) -> Tensor:
    """Unscaled latents float32 [B,C,F',H',W'] of uint8 frames, or floats in [0, 1].

    The posterior's mode, or with ``generator`` a sample. Clip by clip, so that neither memory nor a
    clip's latents depend on its batch. ``device`` is where the VAE computes, if it lies elsewhere
    between its turns (offloading).
    """
    unit = frames_BTHWC.float()
    if frames_BTHWC.dtype == torch.uint8:
        unit = unit / 255
    pixels = (2 * unit - 1).permute(0, 4, 1, 2, 3).to(device or vae.device, vae.dtype)
    parts: list[Tensor] = []
    for part in pixels.split(1):
        posterior = vae.encode(part).latent_dist
        found = posterior.mode() if generator is None else posterior.sample(generator)
        parts.append(finite(cast("Tensor", found).float(), "the VAE's latents"))
    return torch.cat(parts)


def decoded(decode: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor:
    """Frames uint8 [B,T,H,W,3] of latents [B,...], clip by clip; ``decode`` gives [-1, 1]."""
    return torch.cat([to_bytes(decode(part)) for part in latents.split(1)])


def finite(values: Tensor, what: str) -> Tensor:
    """``values``; `MatrixError` where one of them is NaN or infinite, which a pixel would hide."""
    wrong = 0 if values.is_meta else int((~values.isfinite()).sum())
    if wrong:
        problem = f"{what} are NaN or infinite in {wrong} of {values.numel()} places"
        raise MatrixError(problem, remedy=IN_FULL)
    return values


def to_bytes(video_BCTHW: Tensor) -> Tensor:
    """Frames uint8 [B,T,H,W,3] of a VAE's output in [-1, 1]."""
    finite(video_BCTHW, "the VAE's frames")
    scaled = (video_BCTHW.float() * 0.5 + 0.5).clamp(0, 1) * 255
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 4, 1)


def pictures(frames_BHWC: Tensor) -> list[Image.Image]:
    """Frames as image processors take them; floats in [0, 1] are rounded to bytes."""
    if frames_BHWC.dtype != torch.uint8:
        frames_BHWC = (frames_BHWC * 255).round().to(torch.uint8)
    return [Image.fromarray(frame.cpu().numpy()) for frame in frames_BHWC]


def check_size(height: int, width: int, step: tuple[int, int]) -> None:
    """`MatrixError` unless H and W are multiples of ``step``, which is what a model takes."""
    sizes = tuple(zip((height, width), step, strict=True))
    if all(size >= part and size % part == 0 for size, part in sizes):
        return
    nearest = " x ".join(str(max(1, round(size / part)) * part) for size, part in sizes)
    raise MatrixError(
        f"frames of {height} x {width} pixels; this model takes multiples of {step[0]} x {step[1]}",
        remedy=f"resize or crop, for example to {nearest}",
        field="size",
    )


def causal_latents(num_frames: int, ratio: int) -> int:
    """Latent frames F' of a clip under a causal VAE with r = ``ratio``: one for the first frame,
    then one for r frames each. `MatrixError` with the nearest lengths where it does not divide."""
    if num_frames < 1 or (num_frames - 1) % ratio:
        below = max(0, num_frames - 1) // ratio * ratio + 1
        raise MatrixError(
            f"a clip of {num_frames} frames; this VAE takes 1 + {ratio}k frames",
            remedy=f"use {below} or {below + ratio} frames",
            field="num_frames",
        )
    return (num_frames - 1) // ratio + 1
