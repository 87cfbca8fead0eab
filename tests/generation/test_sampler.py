"""Batching changes nothing: noise to the bit, videos up to rounding.

Shapes: B prompts, T frames, H W pixels, F C H' W' latents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from matrix_video.backbones.adapter import load_adapter
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.condition import ID_COLOURS
from matrix_video.backbones.loading import backbone_for, families
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.backbones.tiny_ltx import tiny_ltx
from matrix_video.backbones.wan import WanBackbone
from matrix_video.data.dataset import Dataset
from matrix_video.generation.sampler import (
    Prompt,
    Sampling,
    id_map_latents,
    initial_noise,
    sample,
)
from matrix_video.services.errors import MatrixError

_FRAMES = 9
_QUICK = Sampling(seed=3, steps=3)


def _prompts(folder: Path) -> list[Prompt]:
    data = Dataset(folder)
    return [
        Prompt(
            clip.sample.id,
            clip.sample.caption,
            clip.video.frames_THWC[0],
            np.stack([track.mask(0) for track in clip.tracks.values()]),
        )
        for clip in data
    ]


class _Inputs:
    """What the transformer was given in each call: noisy latents ‖ first-frame latents."""

    def __init__(self, backbone: Backbone) -> None:
        self.seen: list[Tensor] = []
        self._handle = backbone.transformer.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, module: object, args: object, kwargs: dict[str, Any]) -> None:
        self.seen.append(kwargs["hidden_states"].clone())

    def __enter__(self) -> _Inputs:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def _differences(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def test_a_batch_of_four_equals_four_batches_of_one(prompts: Path, backbone: Backbone) -> None:
    four = _prompts(prompts)
    with _Inputs(backbone) as together:
        videos = sample(backbone, four, _FRAMES, _QUICK)
    assert videos.shape == (4, _FRAMES, 32, 32, 3)
    assert videos.dtype == np.uint8
    for index, prompt in enumerate(four):
        with _Inputs(backbone) as alone:
            (video,) = sample(backbone, [prompt], _FRAMES, _QUICK)
        assert _differences(video, videos[index]) <= 1
        # Guidance doubles the batch: [unconditional, conditional].
        first, single = together.seen[0], alone.seen[0]
        channels = backbone.latent_channels
        assert torch.equal(single[1, :, :channels], first[4 + index, :, :channels])
        torch.testing.assert_close(single[1, :, channels:], first[4 + index, :, channels:])
    assert _differences(videos[0], videos[1]) > 20  # not all one video


def prompts_for(backbone: Backbone, count: int) -> list[Prompt]:
    _, *size = backbone.tiny_clip
    g = np.random.default_rng(0)
    words = (
        "the red ball",
        "the cat",
        "a man",
        "the blue box",
        "the dog",
        "the cup",
        "a box",
        "the",
    )
    return [
        Prompt(f"p{i}", words[i], g.integers(0, 256, size=(*size, 3), dtype=np.uint8))
        for i in range(count)
    ]


def first_variant(family: str) -> Backbone:
    point = families()[family].load()
    return backbone_for(point.tiny(point.variants[0]))


@pytest.mark.parametrize("family", list(families()))
def test_batches_of_one_to_eight_give_the_same_videos(family: str) -> None:
    """The last prompt's, in every batch that it may be in, decoded alone in each."""
    backbone = first_variant(family)
    pipe: Any = backbone.pipe
    decoded: list[int] = []
    watch = pipe.vae.decoder.register_forward_pre_hook(
        lambda _, inputs: decoded.append(len(inputs[0]))
    )
    many, frames = prompts_for(backbone, 8), backbone.tiny_clip[0]
    quick = replace(_QUICK, steps=backbone.least_steps)
    (alone,) = sample(backbone, many[-1:], frames, quick)
    for batch in (2, 3, 5, 8):
        assert _differences(sample(backbone, many[-batch:], frames, quick)[-1], alone) <= 1
    watch.remove()
    assert set(decoded) == {1}
    assert not pipe.vae.use_slicing  # as it was


@pytest.mark.parametrize("family", list(families()))
def test_tiles_give_videos_and_latents_of_the_same_shape(family: str) -> None:
    """Alone or in a batch alike, each tile by itself; other pixels than without."""
    backbone = first_variant(family)
    vae: Any = backbone.pipe.components["vae"]
    two, clip = prompts_for(backbone, 2), backbone.tiny_clip
    quick = replace(_QUICK, steps=backbone.least_steps)
    whole, key = sample(backbone, two, clip[0], quick), backbone.encoders_key()
    backbone.tile()
    for name in (n for n in vars(vae) if re.search(r"tile_sample_(min|stride)_(hei|wid)", n)):
        if family[:3] != "Cog":  # whose tiles are of its clips' size, not of 256 pixels
            setattr(vae, name, min(clip[1:]) // 2)
    calls: list[str] = []
    for name in ("encoder", "decoder"):
        vae.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    videos = sample(backbone, two, clip[0], quick)
    assert calls.count("decoder") >= 2 * 4
    assert videos.shape == whole.shape
    assert _differences(videos, whole) > 0
    assert _differences(videos[1], sample(backbone, two[1:], clip[0], quick)[0]) <= 1
    calls.clear()
    latents = backbone.encode_video(torch.zeros(1, *clip, 3, dtype=torch.uint8))
    assert latents.shape[1:] == backbone.latent_shape(*clip)
    assert calls.count("encoder") >= 4
    assert backbone.encoders_key() != key  # so that no cache takes one for the other


def test_a_vae_without_tiling_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbone_for(tiny_pipeline(layers=2))
    vae: Any = backbone.pipe.components["vae"]
    monkeypatch.delattr(type(vae), "enable_tiling")  # the one of all VAEs is left, which asks
    del vae.use_tiling
    with pytest.raises(MatrixError, match="tiling: AutoencoderKLCogVideoX, the VAE of CogVideoXI"):
        backbone.tile()


@pytest.mark.parametrize("family", list(families()))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["text", "transformer", "scheduler", "vae", "last frame"])
def test_a_number_that_is_none_never_becomes_a_pixel(
    family: str, value: float, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it comes up, in whichever row of the batch: told with prompt and step."""
    backbone = first_variant(family)
    pipe: Any = backbone.pipe
    two, frames = prompts_for(backbone, 2), backbone.tiny_clip[0]
    steps = max(2, backbone.least_steps)
    calls: list[int] = []

    def spoilt(output: Any, row: int, at: int) -> Any:
        """The tensor with the value in a row, in call ``at`` and later."""
        calls.append(1)
        values = output if isinstance(output, Tensor) else output[0]
        if len(calls) < at:
            return output
        values = values.clone(memory_format=torch.contiguous_format)
        values[row].view(-1)[-1] = value
        return values if isinstance(output, Tensor) else (values, *output[1:])

    problem = r"prompt p1: its latents after step 1 are NaN or infinite in \d+ of"
    if place == "text":
        encode = pipe.encode_prompt

        def spoilt_text(*args: Any, **more: Any) -> tuple[Any, ...]:
            found = encode(*args, **more)
            return (found[0] * value, *found[1:])

        monkeypatch.setattr(pipe, "encode_prompt", spoilt_text)
        problem = problem.replace("p1", "p0")
    elif place == "transformer":
        backbone.transformer.register_forward_hook(lambda *a: spoilt(a[-1], -1, 1))
    elif place == "scheduler":
        stock = pipe.scheduler.step
        monkeypatch.setattr(
            pipe.scheduler, "step", lambda *a, **k: spoilt(stock(*a, **k), -1, steps)
        )
        problem = problem.replace("step 1", f"step {steps}")
    else:
        pipe.vae.decoder.register_forward_hook(
            lambda *a: spoilt(a[-1], 0, 1 if place == "vae" else 2)
        )
        problem = "the VAE's frames are NaN or infinite, after the last step"
    with pytest.raises(MatrixError, match=problem) as told:
        sample(backbone, two, frames, replace(_QUICK, steps=steps))
    assert "--weights float32" in told.value.remedy


def test_order_in_the_batch_changes_nothing(prompts: Path, backbone: Backbone) -> None:
    four = _prompts(prompts)
    videos = sample(backbone, four, _FRAMES, _QUICK)
    turned = sample(backbone, four[::-1], _FRAMES, _QUICK)
    assert _differences(videos, turned[::-1]) <= 1


def test_noise_follows_from_seed_and_id_alone(prompts: Path, backbone: Backbone) -> None:
    four = _prompts(prompts)
    noise = initial_noise(backbone, four, _FRAMES, 3)
    assert noise.shape == (4, *backbone.latent_shape(_FRAMES, 32, 32))
    assert torch.equal(noise[2:3], initial_noise(backbone, four[2:3], _FRAMES, 3))
    renamed = replace(four[2], caption="another", first_HWC=four[0].first_HWC)
    assert torch.equal(noise[2:3], initial_noise(backbone, [renamed], _FRAMES, 3))
    assert not torch.equal(noise[2:3], initial_noise(backbone, four[2:3], _FRAMES, 4))
    assert not torch.equal(noise[0], noise[1])
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1) < 0.05


def test_it_is_the_stock_call(prompts: Path, backbone: Backbone) -> None:
    prompt = _prompts(prompts)[1]
    (ours,) = sample(backbone, [prompt], _FRAMES, _QUICK)
    from PIL import Image

    from matrix_video.backbones.seeds import keyed_generator

    stock: Any = backbone.pipe
    frames = stock(
        image=Image.fromarray(prompt.first_HWC),
        prompt=prompt.caption,
        num_frames=_FRAMES,
        num_inference_steps=3,
        latents=initial_noise(backbone, [prompt], _FRAMES, 3),
        generator=keyed_generator(3, prompt.id, "first frame"),
        max_sequence_length=32,
        output_type="np",
    ).frames[0]
    assert np.array_equal(ours, (frames * 255).round().astype(np.uint8))


def test_guidance_and_caption_matter(prompts: Path, backbone: Backbone) -> None:
    prompt = _prompts(prompts)[:1]
    video = sample(backbone, prompt, _FRAMES, _QUICK)
    with _Inputs(backbone) as inputs:
        unguided = sample(backbone, prompt, _FRAMES, replace(_QUICK, guidance=1.0))
    assert inputs.seen[0].shape[0] == 1
    assert _differences(video, unguided) > 0
    other = [replace(prompt[0], caption="a green box")]
    assert _differences(video, sample(backbone, other, _FRAMES, _QUICK)) > 0


def test_bfloat16_reaches_the_transformer_alone(prompts: Path, backbone: Backbone) -> None:
    prompt = _prompts(prompts)[:2]
    autocast: list[bool] = []
    block: Any = backbone.transformer.get_submodule("transformer_blocks.0")
    vae: Any = backbone.pipe.components["vae"].decoder
    handles = [
        part.register_forward_pre_hook(lambda *_: autocast.append(torch.is_autocast_enabled("cpu")))
        for part in (block, vae)
    ]
    exact = sample(backbone, prompt, _FRAMES, replace(_QUICK, steps=1))
    assert set(autocast) == {False}
    autocast.clear()
    rough = sample(backbone, prompt, _FRAMES, replace(_QUICK, steps=1, precision="bf16"))
    for handle in handles:
        handle.remove()
    assert autocast[0] is True
    assert autocast[-1] is False
    assert not torch.is_autocast_enabled("cpu")
    assert 0 < _differences(exact, rough) < 30


def test_bfloat16_reaches_both_experts() -> None:
    backbone = WanBackbone(WanBackbone.tiny("i2v-2.2"))
    prompt = Prompt("a", "the red ball", np.zeros((32, 32, 3), np.uint8))
    seen: dict[str, set[bool]] = {}
    for name in ("transformer", "transformer_2"):
        seen[name] = set()
        block: Any = backbone.pipe.components[name].blocks[0]
        block.register_forward_pre_hook(
            lambda *_, known=seen[name]: known.add(torch.is_autocast_enabled("cpu"))
        )
    sample(backbone, [prompt], backbone.tiny_clip[0], Sampling(steps=4, precision="bf16"))
    assert seen == {"transformer": {True}, "transformer_2": {True}}


def test_an_error_in_the_forward_leaves_no_autocast(prompts: Path, backbone: Backbone) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    block: Any = backbone.transformer.get_submodule("transformer_blocks.0")
    handle = block.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="planted"):
        sample(backbone, _prompts(prompts)[:1], _FRAMES, replace(_QUICK, precision="bf16"))
    handle.remove()
    assert not torch.is_autocast_enabled("cpu")


def test_adapter_and_id_map_take_part(prompts: Path, backbone: Backbone, adapter: Path) -> None:
    two = _prompts(prompts)[:2]
    base = sample(backbone, two, _FRAMES, _QUICK)
    attached = load_adapter(backbone.pipe, adapter, 1.0)
    try:
        lora = sample(backbone, two, _FRAMES, _QUICK)
        whole = sample(backbone, two, _FRAMES, _QUICK, attached.condition)
        swapped = [replace(two[0], masks_IHW=two[0].masks_IHW[:, ::-1]), two[1]]  # pyright: ignore
        other = sample(backbone, swapped, _FRAMES, _QUICK, attached.condition)
        (alone,) = sample(backbone, two[1:], _FRAMES, _QUICK, attached.condition)
    finally:
        attached.detach()
    assert _differences(base, lora) > 0
    assert _differences(lora, whole) > 0
    assert _differences(whole[0], other[0]) > 0
    assert _differences(whole[1], other[1]) == 0
    assert _differences(whole[1], alone) <= 1
    assert _differences(base, sample(backbone, two, _FRAMES, _QUICK)) == 0


def test_id_colours_follow_from_the_prompt(
    prompts: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted: list[Tensor] = []
    original = type(backbone).encode_image

    def spy(self: Backbone, frames: Tensor, num_frames: int, generator: Any = None) -> Tensor:
        painted.append(frames)
        return original(self, frames, num_frames, generator)

    monkeypatch.setattr(type(backbone), "encode_image", spy)
    four = _prompts(prompts)
    together = id_map_latents(backbone, four, _FRAMES, 3)
    alone = id_map_latents(backbone, four[2:3], _FRAMES, 3)
    torch.testing.assert_close(together[2:3], alone)
    assert torch.equal(painted[0][2], painted[1][0])
    colours = {tuple(c) for c in painted[1][0].reshape(-1, 3).tolist()}
    assert len(colours & set(ID_COLOURS)) == 2
    with pytest.raises(ValueError, match="prompt p0 has no masks"):
        id_map_latents(backbone, [replace(four[0], masks_IHW=None)], _FRAMES, 3)


def test_text_to_video_needs_no_image(prompts: Path) -> None:
    backbone = backbone_for(tiny_pipeline(layers=2, i2v=False))
    videos = sample(backbone, _prompts(prompts)[:2], _FRAMES, _QUICK)
    assert videos.shape == (2, _FRAMES, 32, 32, 3)


def test_prompts_that_do_not_fit_are_refused(prompts: Path, backbone: Backbone) -> None:
    two = _prompts(prompts)[:2]
    small: Sequence[Prompt] = [two[0], replace(two[1], first_HWC=two[1].first_HWC[:16])]
    with pytest.raises(ValueError, match="in one batch"):
        sample(backbone, small, _FRAMES, _QUICK)
    with pytest.raises(MatrixError, match="a clip of 13 frames"):
        sample(backbone, two, 13, _QUICK)


def test_first_frames_that_a_pipeline_cannot_batch() -> None:
    """Wan's call takes one image; a batch of prompts is then one call each."""
    backbone = backbone_for(WanBackbone.tiny("ti2v-5b"))
    g = np.random.default_rng(0)
    firsts = g.integers(0, 256, size=(2, 64, 64, 3), dtype=np.uint8)
    two = [Prompt(f"p{i}", "the cat", first) for i, first in enumerate(firsts)]
    quick = Sampling(seed=3, steps=2, guidance=1.0)
    videos = sample(backbone, two, 5, quick)
    assert videos.shape == (2, 5, 64, 64, 3)
    for video, prompt in zip(videos, two, strict=True):
        assert np.array_equal(video, sample(backbone, [prompt], 5, quick)[0])
    assert _differences(videos[0], videos[1]) > 1


@pytest.mark.parametrize("family", list(families()))
def test_fewest_steps_are_those_that_the_stock_call_makes(family: str) -> None:
    point = families()[family].load()
    backbone: Backbone = backbone_for(point.tiny(point.variants[0]))
    frames, *size = backbone.tiny_clip
    prompt = Prompt("a", "a red ball", np.zeros((*size, 3), np.uint8))
    assert len(sample(backbone, [prompt], frames, Sampling(0, backbone.least_steps))[0])
    with pytest.raises(
        MatrixError, match=rf"steps: .* but in {backbone.least_steps} steps at the l"
    ):
        sample(backbone, [prompt], frames, Sampling(0, backbone.least_steps - 1))


def test_a_decoder_that_takes_a_timestep_is_given_one_clip_a_call() -> None:
    backbone = backbone_for(tiny_ltx(timestep_conditioning=True))
    two, frames = prompts_for(backbone, 2), backbone.tiny_clip[0]
    quick = replace(_QUICK, steps=2)
    videos = sample(backbone, two, frames, quick)
    assert np.array_equal(videos[1], sample(backbone, two[1:], frames, quick)[0])
