"""Batches of videos from a stock pipeline, such that batching changes nothing.

Shapes: B prompts, T pixel frames, H W pixels, I instances in the first frame; F latent frames,
C latent channels, H' W' latent rows and columns.

The pipeline's own ``__call__`` does the work. Whatever is random about a video is drawn from
generators keyed by (seed, prompt id, purpose): its noise here, and inside the call the sample of
the first frame's posterior. So a video does not depend on what it shares a batch with, and runs
with and without an adapter start from the same noise.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from matrix_video.backbones.base import Backbone
from matrix_video.backbones.condition import Condition, paint_ids
from matrix_video.backbones.frames import IN_FULL, finite
from matrix_video.backbones.precision import Precision, autocast
from matrix_video.backbones.seeds import keyed_generator
from matrix_video.services.errors import MatrixError, naming

OnStep = Callable[[int, float], None]
"""Takes a denoising step's index, from 0, and its timestep."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """What one video is made from."""

    id: str
    caption: str
    first_HWC: NDArray[np.uint8]
    """First frame [H,W,3]; text-to-video pipelines take its size alone."""
    masks_IHW: NDArray[np.bool_] | None = None
    """First-frame masks of the instances visible there; needed with an id map."""


@dataclass(frozen=True)
class Sampling:
    """Settings of the pipeline's call; defaults are the stock ones."""

    seed: int = 0
    steps: int = 50
    guidance: float = 6.0
    precision: Precision = "no"
    """Autocast of the transformer alone (of both experts, where there are two): text encoder, VAE
    and scheduler keep their dtype."""


def initial_noise(
    backbone: Backbone, prompts: Sequence[Prompt], num_frames: int, seed: int
) -> Tensor:
    """Noise float32 [B,F,C,H',W'], row by row from the prompt's own generator."""
    height, width = _size(prompts)
    shape = backbone.latent_shape(num_frames, height, width)
    rows = [torch.randn(shape, generator=keyed_generator(seed, p.id, "noise")) for p in prompts]
    return torch.stack(rows)


def id_map_latents(
    backbone: Backbone, prompts: Sequence[Prompt], num_frames: int, seed: int
) -> Tensor:
    """Latents [B,F,C,H',W'] of the prompts' id maps, colours drawn by prompt.

    ``ValueError`` for a prompt without masks.
    """
    painted: list[Tensor] = []
    for prompt in prompts:
        if prompt.masks_IHW is None:
            raise ValueError(f"prompt {prompt.id} has no masks for its id map")
        colours = keyed_generator(seed, prompt.id, "colours")
        painted.append(torch.from_numpy(paint_ids(prompt.masks_IHW, colours, prompt.id)))
    return backbone.encode_id_map(torch.stack(painted), num_frames)


@torch.no_grad()
def sample(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    num_frames: int,
    sampling: Sampling,
    condition: Condition | None = None,
    on_step: OnStep | None = None,
) -> NDArray[np.uint8]:
    """Videos uint8 [B,T,H,W,3] of prompts that share one size.

    With ``condition`` (attached to the backbone's transformer) each video gets its prompt's id
    map. ``on_step`` is called at the end of every denoising step. In float32 a video is the same in
    any batch up to rounding; with ``precision="bf16"`` rounding itself depends a little on the
    batch. Clips are decoded one by one.

    Raises `MatrixError` for a size, length or number of steps that the model cannot take, and
    naming prompt and step for a number that is NaN or infinite; `ValueError` for prompts of
    different sizes.
    """
    if sampling.steps < backbone.least_steps:
        raise MatrixError(
            f"{type(backbone.pipe).__name__} cannot sample in {sampling.steps}, but in "
            f"{backbone.least_steps} steps at the least",
            remedy=f"Choose {backbone.least_steps} steps or more",
            field="steps",
        )
    height, width = _size(prompts)
    if backbone.one_prompt_a_call and len(prompts) > 1:
        alone = [
            sample(backbone, [prompt], num_frames, sampling, condition, on_step)
            for prompt in prompts
        ]
        return np.concatenate(alone)
    transformer = backbone.transformer
    dtype = next(transformer.parameters()).dtype
    names = tuple(prompt.id for prompt in prompts)
    noise = initial_noise(backbone, prompts, num_frames, sampling.seed).to(dtype)
    given = nullcontext()
    first = None
    if backbone.takes_image:
        first = torch.from_numpy(np.stack([prompt.first_HWC for prompt in prompts]))
    with naming(f"prompts {', '.join(names)}"):
        if condition is not None:
            given = condition.given(id_map_latents(backbone, prompts, num_frames, sampling.seed))
        arguments = backbone.call_arguments(noise, (num_frames, height, width), first)
    arguments |= {
        "prompt": [prompt.caption for prompt in prompts],
        "num_inference_steps": sampling.steps,
        "guidance_scale": sampling.guidance,
        "generator": [keyed_generator(sampling.seed, p.id, "first frame") for p in prompts],
        "callback_on_step_end": _step_callback(names, on_step),
    }
    pipe: Any = backbone.pipe
    pipe.set_progress_bar_config(disable=True)  # whoever calls counts videos, not steps
    with ExitStack() as stack:
        stack.enter_context(given)
        # Wan 2.2 has two: an expert for each half of the schedule.
        experts = [m for m in pipe.components.values() if isinstance(m, type(transformer))]
        for expert in experts:
            stack.enter_context(_autocast_forward(expert, sampling.precision))
        stack.enter_context(_decoded_one_by_one(pipe.vae, names))
        frames_BTHWC: NDArray[np.float32] = pipe(**arguments).frames
    return (frames_BTHWC * 255).round().astype(np.uint8)


def _step_callback(names: Sequence[str], on_step: OnStep | None) -> Callable[..., dict[str, Any]]:
    """``on_step`` as diffusers' pipelines call it, changing none of their tensors, once these are
    known to be numbers."""

    def callback(
        _pipe: object, step: int, timestep: Tensor, tensors: dict[str, Tensor]
    ) -> dict[str, Any]:
        for name, latents in zip(names, tensors["latents"], strict=True):
            finite(latents, f"prompt {name}: its latents after step {step + 1}")
        if on_step is not None:
            on_step(step, float(timestep))
        return {}

    return callback


@contextmanager
def _decoded_one_by_one(vae: Any, names: Sequence[str]) -> Generator[None]:
    """Within, the VAE decodes clip by clip; at the end `MatrixError` for one that was no numbers,
    which the pipeline's clamp to [0, 1] may hide."""
    wrong: list[Tensor] = []

    def see(_module: object, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        values = output if isinstance(output, Tensor) else output[0]
        wrong.append((~values.isfinite()).any())

    before, vae.use_slicing = vae.use_slicing, True
    handle = vae.decoder.register_forward_hook(see)
    try:
        yield
    finally:
        handle.remove()
        vae.use_slicing = before
    # Each clip makes as many calls as the others, e.g. one for some of its latent frames.
    parts = torch.stack(wrong).unflatten(0, (len(names), -1)).any(dim=1)
    for name, broken in zip(names, parts.tolist(), strict=True):
        if broken:
            raise MatrixError(
                f"prompt {name}: the VAE's frames are NaN or infinite, after the last step",
                remedy=IN_FULL,
            )


def _size(prompts: Sequence[Prompt]) -> tuple[int, int]:
    sizes = {prompt.first_HWC.shape[:2] for prompt in prompts}
    if len(sizes) != 1:
        raise ValueError(f"prompts of sizes {sorted(sizes)} in one batch")
    height, width = sizes.pop()
    return height, width


@contextmanager
def _autocast_forward(module: nn.Module, precision: Precision) -> Generator[None]:
    """Within, forwards of ``module`` run at this precision; what is around them does not."""
    entered = autocast(next(module.parameters()).device, precision)

    def enter(*_: object) -> None:
        entered.__enter__()

    def leave(*_: object) -> None:
        entered.__exit__(None, None, None)

    handles = (
        module.register_forward_pre_hook(enter),
        module.register_forward_hook(leave, always_call=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
