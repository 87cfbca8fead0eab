"""The HunyuanVideo backbone against the stock pipelines' own calls, and its errors.

Shapes as in `backbones.base`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanSkyreelsImageToVideoPipeline,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoPipeline,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from PIL import Image
from torch import Tensor

from matrix_video.attention.tap import tap
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.hunyuan import HunyuanVideoBackbone
from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.text import Text
from matrix_video.backbones.tiny_hunyuan import tiny_hunyuan
from matrix_video.services.errors import MatrixError

CAPTION = "a small red ball pushes the box."
CLIP = HunyuanVideoBackbone.tiny_clip
CUT = {"t2v": 0, "i2v-concat": 4, "i2v-replace": 0}
"""Frames that the stock call throws away."""


def frames(batch: int = 1, count: int = 9, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, count, 32, 48, 3), generator=g, dtype=torch.uint8)


def normal(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@contextmanager
def recorded(transformer: Any) -> Iterator[list[dict[str, Any]]]:
    """Inputs of every forward within."""
    calls: list[dict[str, Any]] = []

    def record(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        assert not args
        calls.append(kwargs)

    handle = transformer.register_forward_pre_hook(record, with_kwargs=True)
    yield calls
    handle.remove()


@pytest.fixture(scope="module")
def backbones() -> dict[str, Backbone]:
    variants = HunyuanVideoBackbone.variants
    return {variant: backbone_for(HunyuanVideoBackbone.tiny(variant)) for variant in variants}


@pytest.fixture(params=HunyuanVideoBackbone.variants)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def backbone(backbones: dict[str, Backbone], variant: str) -> Backbone:
    return backbones[variant]


@pytest.fixture
def t2v(backbones: dict[str, Backbone]) -> Backbone:
    return backbones["t2v"]


# -- the stock call ----------------------------------------------------------------------------


def test_predict_is_a_step_of_the_stock_pipeline(backbone: Backbone, variant: str) -> None:
    pipe: Any = backbone.pipe
    first = frames(1, 1, seed=5)[:, 0] if backbone.takes_image else None
    noise = normal(1, *backbone.latent_shape(*CLIP))
    ends: list[Tensor] = []

    def keep(pipe: Any, step: int, timestep: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        ends.append(kwargs["latents"].transpose(1, 2))
        return {}

    with recorded(pipe.transformer) as stock:
        video = pipe(
            prompt=[CAPTION],
            num_inference_steps=3,
            guidance_scale=6.0,
            callback_on_step_end=keep,
            **backbone.call_arguments(noise, CLIP, first),
        ).frames
    assert len(stock) == 3

    text = backbone.encode_text([CAPTION], first)
    image, start = None, noise
    if first is not None:
        image = backbone.encode_image(first, CLIP[0], torch.Generator().manual_seed(3))
        share = torch.tensor([0.999])  # as the stock call mixes the first frame into the noise
        start = noise * share + image[:, :1] * (1 - share)
    sigmas = pipe.scheduler.sigmas
    for i, (before, after, theirs) in enumerate(zip([start, *ends], ends, stock, strict=False)):
        with recorded(pipe.transformer) as calls, torch.no_grad():
            prediction = backbone.predict(before, theirs["timestep"], text, image)
        (mine,) = calls
        for key in (
            "hidden_states",
            "timestep",
            "encoder_hidden_states",
            "encoder_attention_mask",
            "pooled_projections",
        ):
            assert torch.equal(mine[key], theirs[key]), key
        if variant == "i2v-concat":  # whose checkpoint is not distilled
            assert mine["guidance"] is theirs["guidance"] is None
        else:
            assert mine["guidance"].tolist() == theirs["guidance"].tolist() == [6000]
        stepped = before + (sigmas[i + 1] - sigmas[i]) * prediction
        counted = backbone.supervised(stepped.shape[1])
        torch.testing.assert_close(stepped[:, counted], after[:, counted], rtol=1e-5, atol=1e-5)
        if image is not None and not counted.all():
            assert counted.tolist() == [False, True, True]
            assert torch.equal(after[:, 0], image[:, 0])

    decoded = backbone.decode(ends[-1])
    assert decoded.shape == (1, *CLIP, 3)
    cut = CUT[variant]
    assert torch.equal(decoded[:, cut:], torch.from_numpy((video * 255).round()).to(torch.uint8))


def test_true_guidance_is_a_second_forward(backbones: dict[str, Backbone]) -> None:
    """Conditional first. The negative prompt goes in encoded: the stock call's own would have other
    image tokens than the prompt, and so another length than the tapped site."""
    backbone = backbones["i2v-replace"]
    pipe: Any = backbone.pipe
    first = frames(1, 1)[:, 0]
    site = backbone.site(3, "v2t", backbone.grid(*CLIP), backbone.num_text_tokens)
    negative = backbone.encode_text([""])
    with recorded(pipe.transformer) as calls, tap(pipe.transformer, {"last": site}):
        pipe(
            prompt=[CAPTION],
            num_inference_steps=2,
            true_cfg_scale=2.0,
            negative_prompt_embeds=negative.embeds_BLE,
            negative_pooled_prompt_embeds=negative.extra["pooled_projections"],
            negative_prompt_attention_mask=negative.extra["encoder_attention_mask"],
            **backbone.call_arguments(normal(1, *backbone.latent_shape(*CLIP)), CLIP, first),
        )
    texts = [call["encoder_hidden_states"] for call in calls]
    wanted = [backbone.encode_text([CAPTION], first).embeds_BLE, negative.embeds_BLE] * 2
    assert [torch.equal(*pair) for pair in zip(texts, wanted, strict=True)] == [True] * 4


def test_a_negative_prompt_in_words_is_not_the_sites_forward(
    backbones: dict[str, Backbone],
) -> None:
    """Its text has another length; the conditional forward of each step is read."""
    backbone = backbones["i2v-replace"]
    pipe: Any = backbone.pipe
    first = frames(1, 1)[:, 0]
    site = backbone.site(3, "v2t", backbone.grid(*CLIP), backbone.num_text_tokens)
    read: list[int] = []
    with (
        recorded(pipe.transformer) as calls,
        tap(pipe.transformer, {"last": site}, after=lambda found: read.append(len(found))),
    ):
        pipe(
            prompt=[CAPTION],
            negative_prompt=["the box"],
            num_inference_steps=2,
            true_cfg_scale=2.0,
            **backbone.call_arguments(normal(1, *backbone.latent_shape(*CLIP)), CLIP, first),
        )
    lengths = [call["encoder_hidden_states"].shape[1] for call in calls]
    assert lengths[0] == backbone.num_text_tokens != lengths[1]
    assert read == [1, 1]


def test_embedded_guidance(t2v: Backbone) -> None:
    other = HunyuanVideoBackbone(t2v.pipe, embedded_guidance=1.0)
    text = other.encode_text([CAPTION]).expand(2)
    with recorded(other.transformer) as calls, torch.no_grad():
        other.predict(normal(2, *other.latent_shape(*CLIP)), torch.tensor([500, 900]), text)
    assert calls[0]["guidance"].tolist() == [1000, 1000]
    assert calls[0]["timestep"].dtype == torch.float32


# -- clips and text ----------------------------------------------------------------------------


def test_encode_video(t2v: Backbone) -> None:
    pipe: Any = t2v.pipe
    clip = frames(2)
    latents = t2v.encode_video(clip)
    assert latents.shape == (2, *t2v.latent_shape(*CLIP)) == (2, 3, 4, 4, 6)
    with torch.no_grad():
        posterior = pipe.vae.encode(clip.permute(0, 4, 1, 2, 3) / 127.5 - 1).latent_dist
    assert torch.allclose(latents, posterior.mode().transpose(1, 2) * 0.7, atol=1e-5)
    assert torch.equal(t2v.encode_video(clip.float() / 255), latents)
    drawn = [t2v.encode_video(clip, torch.Generator().manual_seed(i)) for i in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_encode_image_is_the_first_latent_and_zeros(backbone: Backbone) -> None:
    clip = frames(2)
    image = backbone.encode_image(clip[:, 0], 9, torch.Generator().manual_seed(1))
    assert image.shape == (2, 3, 4, 4, 6)
    assert not image[:, 1:].any()
    assert torch.equal(image[:, :1], backbone.encode_video(clip[:, :1]))


def test_encode_text_is_the_stock_pipelines(backbone: Backbone, variant: str) -> None:
    pipe: Any = backbone.pipe
    captions = [CAPTION, "the cat follows a dog"]
    given: dict[str, Any] = {"prompt": captions, "max_sequence_length": 32}
    images = frames(2, 1, seed=4)[:, 0] if backbone.takes_image else None
    if images is not None:
        given["image"] = [Image.fromarray(image.numpy()) for image in images]
        given["image_embed_interleave"] = 2 if variant == "i2v-concat" else 4
    with torch.no_grad():
        embeds, pooled, mask = pipe.encode_prompt(**given)
    text = backbone.encode_text(captions, images)
    assert text.embeds_BLE.shape[1] == backbone.num_text_tokens
    assert torch.allclose(text.embeds_BLE, embeds, atol=1e-5)
    assert torch.allclose(text.extra["pooled_projections"], pooled, atol=1e-6)
    assert torch.equal(text.extra["encoder_attention_mask"], mask)
    assert not text.embeds_BLE.requires_grad
    if images is not None:
        floats = backbone.encode_text(captions, images.float() / 255)
        assert torch.equal(floats.embeds_BLE, text.embeds_BLE)


def test_without_a_frame_the_text_encoder_sees_a_black_one(backbones: dict[str, Backbone]) -> None:
    backbone = backbones["i2v-replace"]
    black, white = (torch.full((1, 32, 48, 3), v, dtype=torch.uint8) for v in (0, 255))
    empty = backbone.encode_text([""]).embeds_BLE
    assert torch.equal(empty, backbone.encode_text([""], black).embeds_BLE)
    assert not torch.equal(empty, backbone.encode_text([""], white).embeds_BLE)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        backbone.encode_text(["", ""], black)


# -- structure ---------------------------------------------------------------------------------


def test_structure(backbone: Backbone, variant: str) -> None:
    assert isinstance(backbone, HunyuanVideoBackbone)
    assert (backbone.family, backbone.num_layers) == ("HunyuanVideo", 4)
    # 24 x 24 image tokens, every second or fourth; four tokens of the template are cut out.
    images = {"t2v": 0, "i2v-concat": 288, "i2v-replace": 144}[variant]
    assert backbone.num_text_tokens == images + 32 - 4 * bool(images)
    assert (backbone.takes_image, backbone.latent_channels) == (variant != "t2v", 4)
    grid = backbone.grid(17, 16, 48)
    assert grid.shape == (5, 1, 3)
    assert grid.frames[0] == (0,)
    assert grid.frames[4] == (13, 14, 15, 16)
    sites = backbone.sites([3, 1], "v2v", grid)
    assert list(sites) == ["single_transformer_blocks.1.attn", "transformer_blocks.1.attn"]
    site = sites["single_transformer_blocks.1.attn"]
    assert site.video == slice(0, 15)
    assert site.text == slice(15, 15 + backbone.num_text_tokens)
    assert site.num_keys == site.num_queries == 15 + backbone.num_text_tokens


def test_as_many_text_tokens_as_the_stock_call_reads() -> None:
    pipe = tiny_hunyuan(text_length=1000)
    assert backbone_for(pipe).num_text_tokens == 256


def test_lora_targets_are_the_chosen_layers_attention_alone() -> None:
    pipe: Any = tiny_hunyuan(layers=12, single_layers=2)
    backbone = backbone_for(pipe)
    pattern = backbone.lora_targets([13, 1, 11])
    names = [n for n, _ in pipe.transformer.named_modules() if re.fullmatch(pattern, n)]
    single = {"to_q", "to_k", "to_v"}
    double = single | {"to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"}
    wanted = {f"transformer_blocks.{i}.attn.{part}" for i in (1, 11) for part in double}
    wanted |= {f"single_transformer_blocks.1.attn.{part}" for part in single}
    assert set(names) == wanted
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=pattern))
    lora = {n.split(".lora_")[0] for n, _ in pipe.transformer.named_parameters() if "lora_" in n}
    assert lora == set(names)


@pytest.mark.parametrize("layer", [-1, 4, 60])
def test_layer_out_of_range(t2v: Backbone, layer: int) -> None:
    message = rf"layers: layer {layer} does not exist: Hunyuan\w+ here has layers 0 to 3"
    with pytest.raises(MatrixError, match=message):
        t2v.site(layer, "v2t", t2v.grid(*CLIP), 32)
    with pytest.raises(MatrixError, match=message):
        t2v.lora_targets([0, layer])


def test_no_layer_for_lora(t2v: Backbone) -> None:
    with pytest.raises(MatrixError, match="no layer was chosen"):
        t2v.lora_targets([])


# -- objective ---------------------------------------------------------------------------------


def test_a_step_with_the_exact_target_returns_the_clean_latents(t2v: Backbone) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=7.0)
    latents, noise = normal(2, 1, 3, 4, 4, 6).unbind()
    for level in t2v.noise_levels(3):
        # The scheduler shifts what it is given: undo it, and it comes to our timestep.
        sigma = float(level) / 1000
        scheduler.set_timesteps(sigmas=[sigma / (7 - 6 * sigma)])
        assert torch.allclose(scheduler.timesteps, level[None])
        noisy = t2v.add_noise(latents, noise, level[None])
        target = t2v.target(latents, noise, level[None])
        clean = scheduler.step(target, scheduler.timesteps[0], noisy).prev_sample
        assert torch.allclose(clean, latents, atol=1e-5)
    assert torch.equal(t2v.weight(torch.tensor([3.0, 900.0])), torch.ones(2))


def test_noise_is_added_in_float32(t2v: Backbone) -> None:
    latents, noise = normal(2, 1, 3, 4, 4, 6).bfloat16().unbind()
    t = torch.tensor([3.0])
    noisy = t2v.add_noise(latents, noise, t)
    assert noisy.dtype == torch.bfloat16
    assert torch.equal(noisy, t2v.add_noise(latents.float(), noise.float(), t).bfloat16())
    assert t2v.target(latents, noise, t).dtype == torch.float32


def test_timesteps(t2v: Backbone) -> None:
    drawn = t2v.sample_timesteps(4000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, t2v.sample_timesteps(4000, torch.Generator().manual_seed(0)))
    assert 0 < float(drawn.min()) < float(drawn.max()) < 1000
    # Undo the shift of 7: a standard normal variable through the logistic function.
    sigma = drawn.double() / 1000
    logits = torch.logit(sigma / (7 - 6 * sigma))
    assert abs(float(logits.mean())) < 4 / 4000**0.5
    assert abs(float(logits.std()) - 1) < 4 / 8000**0.5
    assert t2v.noise_levels(1).tolist() == [875]
    levels = t2v.noise_levels(5).double() / 1000
    assert torch.allclose(
        levels / (7 - 6 * levels), torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]).double()
    )
    with pytest.raises(MatrixError, match="0 noise levels of a schedule with 1000 steps"):
        t2v.noise_levels(0)


# -- errors ------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(count=st.integers(-3, 40))
def test_clip_length(backbones: dict[str, Backbone], count: int) -> None:
    backbone = backbones["t2v"]
    if count % 4 == 1 and count > 0:
        assert sum(backbone.grid(count, 32, 48).frames, ()) == tuple(range(count))
        return
    with pytest.raises(MatrixError, match=r"this VAE takes 1 \+ 4k frames.*use \d+ or \d+") as e:
        backbone.grid(count, 32, 48)
    below, above = (int(n) for n in re.findall(r"use (\d+) or (\d+)", str(e.value))[0])
    assert below < max(count, 2) < above == below + 4
    backbone.grid(below, 32, 48)


@pytest.mark.parametrize("size", [(24, 32), (32, 40), (0, 32)])
def test_clip_size(t2v: Backbone, size: tuple[int, int]) -> None:
    with pytest.raises(MatrixError, match=r"takes multiples of 16 x 16"):
        t2v.latent_shape(9, *size)


def test_frames_of_another_layout(t2v: Backbone) -> None:
    with pytest.raises(ValueError, match=r"expected frames \[B,T,H,W,3\]"):
        t2v.encode_video(torch.zeros(1, 9, 3, 32, 48))


def test_image_is_needed_exactly_where_it_is_taken(backbone: Backbone) -> None:
    takes = backbone.takes_image
    noisy = torch.zeros(1, 3, 4, 4, 6)
    with pytest.raises(ValueError, match=f"takes_image is {takes}, image is {not takes}"):
        backbone.predict(
            noisy, torch.tensor([1]), Text(torch.zeros(1, 32, 16)), None if takes else noisy
        )


def test_a_pipeline_that_conditions_in_another_way(t2v: Backbone) -> None:
    pipe = HunyuanSkyreelsImageToVideoPipeline(**t2v.pipe.components)  # type: ignore[arg-type]
    with pytest.raises(MatrixError, match="is not a HunyuanVideo pipeline that we know"):
        backbone_for(pipe)


def test_a_transformer_of_another_pipeline(backbones: dict[str, Backbone]) -> None:
    parts: dict[str, Any] = dict(backbones["i2v-replace"].pipe.components)
    parts["transformer"] = backbones["t2v"].transformer
    with pytest.raises(MatrixError, match=r"of 4 input channels and image_condition_type None"):
        backbone_for(HunyuanVideoImageToVideoPipeline(**parts))
    del parts["image_processor"]
    parts["transformer"] = backbones["i2v-concat"].transformer
    with pytest.raises(MatrixError, match=r"of 9 input channels.*as HunyuanVideoImageToVideo"):
        backbone_for(HunyuanVideoPipeline(**parts))


def test_another_schedule(t2v: Backbone) -> None:
    parts: dict[str, Any] = dict(t2v.pipe.components)
    for scheduler, message in (
        (DDIMScheduler(), "DDIMScheduler as it is set up is not the flow-matching schedule"),
        (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "shift depends on the clip"),
    ):
        parts["scheduler"] = scheduler
        with pytest.raises(MatrixError, match=message):
            backbone_for(HunyuanVideoPipeline(**parts))
