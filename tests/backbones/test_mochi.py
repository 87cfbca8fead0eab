"""The Mochi backbone against the stock pipeline's own call, and its errors.

Shapes as in `backbones.base`.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from torch import Tensor

from matrix_video.attention.readout import v2t_maps
from matrix_video.attention.site import parts
from matrix_video.attention.tap import tap
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.mochi import MochiBackbone
from matrix_video.backbones.text import Text
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.backbones.tiny_mochi import tiny_mochi
from matrix_video.services.errors import MatrixError

CAPTION = "a small red ball pushes the box."
CLIP = (13, 32, 48)
SHAPE = (3, 12, 4, 6)


def frames(batch: int = 1, count: int = 13, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, count, 32, 48, 3), generator=g, dtype=torch.uint8)


def normal(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def recorded(transformer: Any) -> list[dict[str, Any]]:
    """Inputs of every forward from now on; list them, then run."""
    calls: list[dict[str, Any]] = []

    def record(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        assert not args
        calls.append(kwargs)

    transformer.register_forward_pre_hook(record, with_kwargs=True)
    return calls


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return backbone_for(tiny_mochi())


def test_predict_is_a_step_of_the_stock_pipeline() -> None:
    pipe: Any = tiny_mochi()
    backbone = backbone_for(pipe)
    calls = recorded(pipe.transformer)
    noise = normal(1, *SHAPE)
    steps: list[Tensor] = [noise.transpose(1, 2)]

    def keep(pipe: Any, step: int, timestep: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        steps.append(kwargs["latents"])
        return {}

    # Guidance off: the transformer is called with the conditional half alone.
    pipe(
        prompt=CAPTION,
        num_inference_steps=4,
        guidance_scale=1.0,
        callback_on_step_end=keep,
        **{**backbone.call_arguments(noise, CLIP, None), "output_type": "latent"},
    )
    stock = calls.copy()
    assert len(stock) == 4
    calls.clear()
    text = backbone.encode_text([CAPTION])
    # At the start all is noise, which the family calls timestep 0.
    assert float(stock[0]["timestep"]) == 0 < float(stock[1]["timestep"])
    sigmas = pipe.scheduler.sigmas
    for i, theirs in enumerate(stock):
        latents = steps[i].transpose(1, 2)
        with torch.no_grad():
            prediction = backbone.predict(latents, theirs["timestep"], text)
        mine = calls.pop()
        for key in ("hidden_states", "encoder_hidden_states", "timestep", "encoder_attention_mask"):
            assert torch.equal(mine[key], theirs[key]), key
        stepped = latents + (sigmas[i + 1] - sigmas[i]) * prediction
        assert torch.equal(stepped, steps[i + 1].transpose(1, 2))


def test_guidance_is_batched_with_the_conditional_half_last(backbone: Backbone) -> None:
    pipe: Any = backbone.pipe
    calls = recorded(pipe.transformer)
    noise = normal(2, *SHAPE)
    captions = [CAPTION, "the cat"]
    arguments = backbone.call_arguments(noise, CLIP, None)
    pipe(
        prompt=captions,
        num_inference_steps=2,
        guidance_scale=3.0,
        **{**arguments, "output_type": "latent"},
    )
    assert backbone.guidance == "batched"
    assert len(calls) == 2
    for half in calls[0]["hidden_states"].chunk(2):
        assert torch.equal(half, noise.transpose(1, 2))
    text = Text.cat([backbone.encode_text(["", ""]), backbone.encode_text(captions)])
    assert torch.allclose(calls[0]["encoder_hidden_states"], text.embeds_BLE, atol=1e-6)
    assert torch.equal(calls[0]["encoder_attention_mask"], text.extra["mask"])


# -- latents, text -----------------------------------------------------------------------------


def test_decode_is_the_stock_pipelines(backbone: Backbone) -> None:
    pipe: Any = backbone.pipe
    call: dict[str, Any] = {
        "prompt": CAPTION,
        "num_inference_steps": 2,
        "guidance_scale": 1.0,
        **backbone.call_arguments(normal(1, *SHAPE), CLIP, None),
    }
    latents = pipe(**{**call, "output_type": "latent"}).frames
    expected = (pipe(**call).frames * 255).round().astype(np.uint8)
    decoded = backbone.decode(latents.transpose(1, 2))
    assert decoded.shape == (1, *CLIP, 3)
    assert decoded.dtype == torch.uint8
    assert torch.equal(decoded, torch.from_numpy(expected))


def test_encode_video(backbone: Backbone) -> None:
    pipe: Any = backbone.pipe
    clip = frames()
    latents = backbone.encode_video(clip)
    assert latents.shape == (1, *backbone.latent_shape(*CLIP)) == (1, *SHAPE)
    with torch.no_grad():
        posterior = pipe.vae.encode(clip.permute(0, 4, 1, 2, 3) / 127.5 - 1).latent_dist
    mean, deviation = (
        torch.tensor(values).view(12, 1, 1)
        for values in (pipe.vae.config.latents_mean, pipe.vae.config.latents_std)
    )
    # The stock call's way from latents to the VAE's own, backwards.
    restored = latents * deviation + mean
    assert torch.allclose(restored, posterior.mode().transpose(1, 2), atol=1e-4)
    single = clip[:, :1]
    drawn = [backbone.encode_video(single, torch.Generator().manual_seed(i)) for i in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_encode_image_is_the_first_latent_and_zeros(backbone: Backbone) -> None:
    clip = frames(2, 1)
    image = backbone.encode_image(clip[:, 0], 13)
    assert image.shape == (2, *SHAPE)
    assert not image[:, 1:].any()
    assert torch.equal(image[:, :1], backbone.encode_video(clip))


def test_scaling_factor() -> None:
    pipe: Any = tiny_mochi()
    backbone = backbone_for(pipe)
    clip = frames(1, 1)
    latents = backbone.encode_video(clip)
    decoded = backbone.decode(latents)
    pipe.vae.register_to_config(scaling_factor=2.0)
    assert torch.allclose(backbone.encode_video(clip), 2 * latents)
    apart = (backbone.decode(2 * latents).int() - decoded.int()).abs()
    assert int(apart.max()) <= 1  # rounding


@pytest.mark.parametrize("force_zeros", [True, False])
def test_encode_text_is_the_stock_pipelines(force_zeros: bool) -> None:
    """Of each caption alone: the stock method blanks a batch whose last caption is empty."""
    pipe: Any = tiny_mochi(force_zeros=force_zeros)
    backbone = backbone_for(pipe)
    captions = [CAPTION, "the cat " * 40, ""]
    text = backbone.encode_text(captions)
    for b, caption in enumerate(captions):
        with torch.no_grad():
            embeds, mask, _, _ = pipe.encode_prompt(
                caption, do_classifier_free_guidance=False, max_sequence_length=32
            )
        assert torch.equal(text.embeds_BLE[b : b + 1], embeds)
        assert torch.equal(text.extra["mask"][b : b + 1], mask)
    assert text.extra["mask"].sum(1).tolist() == [9, 32, 0 if force_zeros else 1]
    assert not text.embeds_BLE.requires_grad


def test_text_length_is_the_transformer_s_own() -> None:
    pipe: Any = tiny_mochi()
    pipe.tokenizer.model_max_length = 512
    assert backbone_for(pipe).num_text_tokens == 32


# -- structure ---------------------------------------------------------------------------------


def test_structure(backbone: Backbone) -> None:
    assert isinstance(backbone, MochiBackbone)
    assert (backbone.family, backbone.num_layers, backbone.num_text_tokens) == ("Mochi", 3, 32)
    assert (backbone.latent_channels, backbone.takes_image) == (12, False)
    grid = backbone.grid(19, 64, 32)
    assert grid.shape == (4, 4, 2)
    assert grid.frames == ((0,), *(tuple(range(6 * k - 5, 6 * k + 1)) for k in (1, 2, 3)))
    site = backbone.site(1, "v2t", grid, 20)
    assert site == backbone.site(1, "v2v", grid, 20)
    assert site.module == "transformer_blocks.1.attn1"
    assert (site.video, site.text, site.per_sample) == (slice(0, 32), slice(32, 52), True)


def test_each_sample_attends_to_its_own_valid_text(backbone: Backbone) -> None:
    """In all layers, the last one too, which keeps nothing of its text's output."""
    transformer: Any = backbone.transformer
    assert transformer.transformer_blocks[-1].context_pre_only
    grid = backbone.grid(*CLIP)
    sites = backbone.sites(range(3), "v2t", grid)
    text = backbone.encode_text([CAPTION, "the cat", ""])
    with tap(transformer, sites) as captures, torch.no_grad():
        backbone.predict(normal(3, *SHAPE), torch.tensor([100.0, 500.0, 900.0]), text)
    weights_BRL = torch.zeros(3, 1, 32)
    weights_BRL[0, 0, 8] = weights_BRL[1, 0, 2] = 1  # the last valid token, </s>
    for name, site in sites.items():
        each = parts(captures[name], site)
        assert [own.num_text for _, own in each] == [9, 3, 0]
        for call, own in each:
            assert call.k.shape[-2] == own.num_keys == grid.num_tokens + own.num_text
            assert call.mask is None
        maps = v2t_maps(captures[name], site, weights_BRL)
        assert maps[:2].min() > 0
        assert not maps[2].any()


def test_lora_targets_are_the_chosen_layers_attention_alone() -> None:
    pipe: Any = tiny_mochi(layers=12)
    pattern = backbone_for(pipe).lora_targets([11, 1])
    names = [n for n, _ in pipe.transformer.named_modules() if re.fullmatch(pattern, n)]
    video = {"to_q", "to_k", "to_v", "to_out.0"}
    text = {"add_q_proj", "add_k_proj", "add_v_proj"}
    expected = {f"transformer_blocks.{i}.attn1.{part}" for i in (1, 11) for part in video | text}
    assert set(names) == expected | {"transformer_blocks.1.attn1.to_add_out"}
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=pattern))
    lora = {n.split(".lora_")[0] for n, _ in pipe.transformer.named_parameters() if "lora_" in n}
    assert lora == set(names)


def test_the_pooled_text_attention_is_out_of_reach(backbone: Backbone) -> None:
    names = [n for n, _ in backbone.transformer.named_modules() if "pooler." in n]
    assert "time_embed.pooler.to_q" in names
    pattern = backbone.lora_targets(range(3))
    assert not [n for n in names if re.fullmatch(pattern, n)]


# -- objective ---------------------------------------------------------------------------------


def test_one_step_with_the_target_gives_the_clean_latents(backbone: Backbone) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    latents, noise = normal(2, 1, *SHAPE).unbind()
    for level in backbone.noise_levels(3):
        scheduler.set_timesteps(sigmas=[1 - float(level) / 1000])
        assert torch.allclose(scheduler.timesteps, level[None])
        noisy = backbone.add_noise(latents, noise, level[None])
        target = backbone.target(latents, noise, level[None])
        stepped = scheduler.step(target, scheduler.timesteps[0], noisy).prev_sample
        assert torch.allclose(stepped, latents, atol=1e-6)


def test_noise_is_mixed_in_float32(backbone: Backbone) -> None:
    latents, noise = normal(2, 1, *SHAPE).bfloat16().unbind()
    t = torch.tensor([750.0])
    noisy = backbone.add_noise(latents, noise, t)
    assert noisy.dtype == torch.bfloat16
    assert torch.equal(noisy, (0.75 * latents.float() + 0.25 * noise.float()).bfloat16())
    assert backbone.target(latents, noise, t).dtype == torch.float32


def test_timesteps(backbone: Backbone) -> None:
    drawn = backbone.sample_timesteps(4000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, backbone.sample_timesteps(4000, torch.Generator().manual_seed(0)))
    counts = torch.histc(drawn, bins=4, min=0, max=1000)
    assert float((counts - 1000).abs().max()) < 120  # four standard deviations
    assert backbone.noise_levels(5).tolist() == pytest.approx([900, 700, 500, 300, 100])
    assert backbone.weight(drawn).eq(1).all()
    assert backbone.supervised(3).all()
    for count in (0, 1001):
        with pytest.raises(MatrixError, match=f"{count} noise levels of a schedule with 1000"):
            backbone.noise_levels(count)


# -- errors ------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(count=st.integers(-3, 70))
def test_clip_length(backbone: Backbone, count: int) -> None:
    if count % 6 == 1 and count > 0:
        assert sum(backbone.grid(count, 32, 32).frames, ()) == tuple(range(count))
        return
    with pytest.raises(MatrixError, match=r"takes 1 \+ 6k frames.*use \d+ or \d+") as info:
        backbone.grid(count, 32, 32)
    below, above = (int(n) for n in re.findall(r"use (\d+) or (\d+)", str(info.value))[0])
    assert below < max(count, 2) < above == below + 6
    assert backbone.grid(below, 32, 32).num_frames < backbone.grid(above, 32, 32).num_frames


@pytest.mark.parametrize("size", [(24, 32), (32, 40), (0, 32)])
def test_clip_size(backbone: Backbone, size: tuple[int, int]) -> None:
    """Multiples of 8 are not enough, though the stock call lets them pass."""
    with pytest.raises(MatrixError, match=r"takes multiples of 16 x 16"):
        backbone.latent_shape(13, *size)


def test_an_image_is_not_taken(backbone: Backbone) -> None:
    noisy = torch.zeros(1, *SHAPE)
    with pytest.raises(ValueError, match="takes_image is False, image is True"):
        backbone.predict(noisy, torch.tensor([1.0]), backbone.encode_text(["a"]), noisy)


def test_a_pipeline_of_another_class() -> None:
    with pytest.raises(MatrixError, match=r"CogVideoXPipeline is not a Mochi.*as MochiPipeline"):
        MochiBackbone(tiny_pipeline(i2v=False))


def test_parts_of_another_kind() -> None:
    pipe: Any = tiny_mochi()
    pipe.tokenizer.padding_side = "left"
    with pytest.raises(MatrixError, match=r"tokenizer.padding_side: .*pads on the left"):
        backbone_for(pipe)
    pipe = tiny_mochi()
    pipe.scheduler.register_to_config(invert_sigmas=False)
    with pytest.raises(MatrixError, match=r"not the flow-matching schedule that Mochi"):
        backbone_for(pipe)
