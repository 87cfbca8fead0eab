"""The LTX-Video backbone against the stock pipelines' own calls, and its errors.

Shapes as in `backbones.base`.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXConditionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from PIL import Image
from torch import Tensor

from matrix_video.backbones.base import Backbone
from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.ltx import LTXBackbone
from matrix_video.backbones.text import Text, TokenKind
from matrix_video.backbones.tiny_ltx import tiny_ltx
from matrix_video.services.errors import MatrixError

CAPTION = "a small red ball pushes the box."
CLIP = (17, 64, 96)
SHAPE = (3, 8, 2, 3)
VARIANTS = ("t2v", "i2v")


def frames(batch: int = 1, count: int = 17, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, count, 64, 96, 3), generator=g, dtype=torch.uint8)


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


def unpacked(pipe: Any, packed: Tensor) -> Tensor:
    """[B,N,C] as [B,F',C,H',W'], by the pipeline's own method."""
    return pipe._unpack_latents(packed, 3, 2, 3).transpose(1, 2)


@pytest.fixture(scope="module", params=VARIANTS)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return backbone_for(LTXBackbone.tiny(request.param))


@pytest.mark.parametrize("variant", VARIANTS)
def test_predict_is_a_step_of_the_stock_pipeline(variant: str) -> None:
    pipe: Any = LTXBackbone.tiny(variant)
    backbone = backbone_for(pipe)
    calls = recorded(pipe.transformer)
    image = frames(1, 1, seed=5)[:, 0]
    condition: dict[str, Any] = {}
    if backbone.takes_image:
        condition["image"] = Image.fromarray(image[0].numpy())
    steps: list[Tensor] = []

    def keep(pipe: Any, step: int, timestep: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        steps.append(kwargs["latents"])
        return {}

    # Guidance off: the transformer is called with the conditional half alone.
    pipe(
        prompt=CAPTION,
        height=64,
        width=96,
        num_frames=17,
        num_inference_steps=3,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(3),
        max_sequence_length=backbone.num_text_tokens,
        output_type="latent",
        callback_on_step_end=keep,
        **condition,
    )
    stock = calls.copy()
    assert len(stock) == 3
    calls.clear()
    text = backbone.encode_text([CAPTION])
    clean = None
    if backbone.takes_image:
        clean = backbone.encode_image(image, 17, torch.Generator().manual_seed(3))
    before = stock[0]["hidden_states"]
    sigmas = pipe.scheduler.sigmas
    moving = slice(1, None) if clean is not None else slice(None)
    for i, (after, theirs) in enumerate(zip(steps, stock, strict=True)):
        timestep = theirs["timestep"].flatten()[-1:]
        assert torch.equal(timestep, 1000 * sigmas[i : i + 1])
        latents = unpacked(pipe, before).clone()
        if clean is not None:
            latents[:, 0] = torch.nan  # what stands there is the image's business
        with torch.no_grad():
            prediction = backbone.predict(latents, timestep, text, clean)
        mine = calls.pop()
        for key, value in theirs.items():
            if isinstance(value, Tensor):
                assert torch.equal(mine[key], value), key
            elif key != "attention_kwargs":
                assert mine[key] == value, key
        stepped = latents + (sigmas[i + 1] - sigmas[i]) * prediction
        assert torch.equal(stepped[:, moving], unpacked(pipe, after)[:, moving])
        before = after


def test_call_arguments_start_from_the_noise(backbone: Backbone) -> None:
    pipe: Any = backbone.pipe
    calls = recorded(pipe.transformer)
    noise = normal(2, *SHAPE)
    first = frames(2)[:, 0] if backbone.takes_image else None
    found = pipe(
        prompt=[CAPTION, "the cat"],
        num_inference_steps=2,
        guidance_scale=3.0,
        **backbone.call_arguments(noise, CLIP, first),
    ).frames
    assert found.shape == (2, 17, 64, 96, 3)
    halves = unpacked(pipe, calls[0]["hidden_states"]).chunk(2)
    expected = noise.clone()
    if first is not None:
        expected[:, 0] = backbone.encode_image(first, 17)[:, 0]
    for half in halves:  # unconditional, conditional
        assert torch.equal(half, expected)
    text = backbone.encode_text([CAPTION, "the cat"])
    assert torch.equal(calls[0]["encoder_hidden_states"][2:], text.embeds_BLE)


def test_guidance_is_batched_with_the_conditional_half_last(backbone: Backbone) -> None:
    pipe: Any = backbone.pipe
    calls = recorded(pipe.transformer)
    first = frames()[:, 0] if backbone.takes_image else None
    arguments = backbone.call_arguments(normal(1, *SHAPE), CLIP, first)
    pipe(prompt=CAPTION, num_inference_steps=2, guidance_scale=3.0, **arguments)
    assert backbone.guidance == "batched"
    assert len(calls) == 2
    text, empty = backbone.encode_text([CAPTION]), backbone.encode_text([""])
    assert torch.equal(calls[0]["encoder_hidden_states"], Text.cat([empty, text]).embeds_BLE)


# -- latents, text -----------------------------------------------------------------------------


@pytest.mark.parametrize("timestep_conditioning", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_decode_is_the_stock_pipelines(variant: str, timestep_conditioning: bool) -> None:
    pipe: Any = tiny_ltx(i2v=variant == "i2v", timestep_conditioning=timestep_conditioning)
    backbone = backbone_for(pipe)
    first = frames(2)[:, 0] if backbone.takes_image else None
    noise = normal(2, *SHAPE)
    call: dict[str, Any] = {
        "prompt": [CAPTION, "the cat"],
        "num_inference_steps": 2,
        "guidance_scale": 1.0,
        **backbone.call_arguments(noise, CLIP, first),
    }
    packed = pipe(**{**call, "output_type": "latent"}).frames
    pipe.vae.use_slicing = not backbone.one_prompt_a_call  # one by one, as ours
    expected = (pipe(**call).frames * 255).round().astype(np.uint8)
    decoded = backbone.decode(unpacked(pipe, packed))
    assert decoded.dtype == torch.uint8
    apart = (decoded.int() - torch.from_numpy(expected).int()).abs().max()
    assert apart <= (1 if backbone.one_prompt_a_call else 0)


def test_encode_video(backbone: Backbone) -> None:
    pipe: Any = backbone.pipe
    clip = frames(2)
    latents = backbone.encode_video(clip)
    assert latents.shape == (2, *backbone.latent_shape(*CLIP)) == (2, *SHAPE)
    with torch.no_grad():
        posterior = pipe.vae.encode(clip.permute(0, 4, 1, 2, 3) / 127.5 - 1).latent_dist
    expected = pipe._normalize_latents(
        posterior.mode(), pipe.vae.latents_mean, pipe.vae.latents_std
    ).transpose(1, 2)
    assert torch.allclose(latents, expected, atol=1e-5)
    assert torch.equal(backbone.encode_video(clip.float() / 255), latents)
    drawn = [backbone.encode_video(clip, torch.Generator().manual_seed(i)) for i in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_encode_image_is_the_first_latent_and_zeros(backbone: Backbone) -> None:
    clip = frames(2)
    image = backbone.encode_image(clip[:, 0], 17)
    assert image.shape == (2, *SHAPE)
    assert not image[:, 1:].any()
    assert torch.equal(image[:, :1], backbone.encode_video(clip[:, :1]))
    # The encoder is causal: the first latent of a clip is that of its first frame.
    assert torch.allclose(image[:, 0], backbone.encode_video(clip)[:, 0], atol=1e-5)


def test_encode_text_is_the_stock_pipelines(backbone: Backbone) -> None:
    pipe: Any = backbone.pipe
    captions = [CAPTION, "", "the cat " * 40]
    with torch.no_grad():
        embeds, mask, _, _ = pipe.encode_prompt(
            captions, do_classifier_free_guidance=False, max_sequence_length=32
        )
    text = backbone.encode_text(captions)
    assert torch.equal(text.embeds_BLE, embeds)
    assert torch.equal(text.extra["mask"], mask)
    assert mask.sum(1).tolist() == [9, 1, 32]
    assert not text.embeds_BLE.requires_grad


def test_token_kinds(backbone: Backbone) -> None:
    kinds = backbone.token_kinds("the red ball")
    assert kinds[:5] == (*[TokenKind.WORD] * 3, TokenKind.SPECIAL, TokenKind.PADDING)
    assert len(kinds) == 32


def test_text_is_cut_at_the_stock_call_s_length() -> None:
    pipe: Any = LTXBackbone.tiny("t2v")
    pipe.tokenizer.model_max_length = 512
    assert backbone_for(pipe).num_text_tokens == 128


# -- structure ---------------------------------------------------------------------------------


def test_structure(backbone: Backbone) -> None:
    assert isinstance(backbone, LTXBackbone)
    assert (backbone.family, backbone.num_layers, backbone.num_text_tokens) == ("LTX-Video", 3, 32)
    assert backbone.latent_channels == 8
    assert backbone.takes_image == (type(backbone.pipe).__name__ == "LTXImageToVideoPipeline")
    grid = backbone.grid(25, 128, 64)
    assert grid.shape == (4, 4, 2)
    assert grid.frames == ((0,), *(tuple(range(8 * k - 7, 8 * k + 1)) for k in (1, 2, 3)))
    over = backbone.site(1, "v2v", grid, 32)
    assert (over.module, over.num_queries, over.num_keys) == ("transformer_blocks.1.attn1", 32, 32)
    assert (over.video, over.num_text, over.video_keys) == (slice(0, 32), 0, True)
    across = backbone.site(1, "v2t", grid, 20)
    assert across.module == "transformer_blocks.1.attn2"
    assert (across.num_queries, across.num_keys) == (32, 20)
    assert (across.text, across.video_keys) == (slice(0, 20), False)


def test_lora_targets_are_the_chosen_layers_attention_alone() -> None:
    pipe: Any = tiny_ltx(layers=12)
    pattern = backbone_for(pipe).lora_targets([11, 1])
    names = [n for n, _ in pipe.transformer.named_modules() if re.fullmatch(pattern, n)]
    assert names == [
        f"transformer_blocks.{i}.attn{kind}.{part}"
        for i in (1, 11)
        for kind in (1, 2)
        for part in ("to_q", "to_k", "to_v", "to_out.0")
    ]
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=pattern))
    lora = {n.split(".lora_")[0] for n, _ in pipe.transformer.named_parameters() if "lora_" in n}
    assert lora == set(names)


def test_condition_site_takes_packed_latents(backbone: Backbone) -> None:
    pipe: Any = backbone.pipe
    seen: list[Tensor] = []
    module = pipe.transformer.get_submodule(backbone.condition_site())
    handle = module.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0]))
    noisy = normal(1, *SHAPE)
    image = noisy if backbone.takes_image else None
    with torch.no_grad():
        backbone.predict(noisy, torch.tensor([500.0]), backbone.encode_text([CAPTION]), image)
    handle.remove()
    assert torch.equal(unpacked(pipe, seen[0]), noisy)


# -- objective ---------------------------------------------------------------------------------


def test_one_step_with_the_target_gives_the_clean_latents(backbone: Backbone) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    latents, noise = normal(2, 1, *SHAPE).unbind()
    for level in backbone.noise_levels(3):
        scheduler.set_timesteps(sigmas=[float(level) / 1000])
        assert torch.equal(scheduler.timesteps, level[None])
        noisy = backbone.add_noise(latents, noise, level[None])
        target = backbone.target(latents, noise, level[None])
        stepped = scheduler.step(target, scheduler.timesteps[0], noisy).prev_sample
        assert torch.allclose(stepped, latents, atol=1e-6)


def test_noise_is_mixed_in_float32(backbone: Backbone) -> None:
    latents, noise = normal(2, 1, *SHAPE).bfloat16().unbind()
    t = torch.tensor([3.0])
    noisy = backbone.add_noise(latents, noise, t)
    assert noisy.dtype == torch.bfloat16
    assert torch.equal(noisy, (0.997 * latents.float() + 0.003 * noise.float()).bfloat16())
    assert backbone.target(latents, noise, t).dtype == torch.float32


def test_supervised(backbone: Backbone) -> None:
    assert backbone.supervised(3).tolist() == [not backbone.takes_image, True, True]


def test_timesteps(backbone: Backbone) -> None:
    drawn = backbone.sample_timesteps(4000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, backbone.sample_timesteps(4000, torch.Generator().manual_seed(0)))
    score = torch.logit(drawn.double() / 1000)
    assert abs(float(score.mean())) < 0.07  # four standard errors
    assert abs(float(score.std()) - 1) < 0.05
    assert backbone.noise_levels(5).tolist() == [100, 300, 500, 700, 900]
    assert backbone.weight(drawn).eq(1).all()
    for count in (0, 1001):
        with pytest.raises(MatrixError, match=f"{count} noise levels of a schedule with 1000"):
            backbone.noise_levels(count)


# -- errors ------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(count=st.integers(-3, 70))
def test_clip_length(backbone: Backbone, count: int) -> None:
    if count % 8 == 1 and count > 0:
        assert sum(backbone.grid(count, 64, 64).frames, ()) == tuple(range(count))
        return
    with pytest.raises(MatrixError, match=r"takes 1 \+ 8k frames.*use \d+ or \d+") as info:
        backbone.grid(count, 64, 64)
    below, above = (int(n) for n in re.findall(r"use (\d+) or (\d+)", str(info.value))[0])
    assert below < max(count, 2) < above == below + 8
    assert backbone.grid(below, 64, 64).num_frames < backbone.grid(above, 64, 64).num_frames


@pytest.mark.parametrize("size", [(60, 64), (64, 80), (0, 64)])
def test_clip_size(backbone: Backbone, size: tuple[int, int]) -> None:
    with pytest.raises(
        MatrixError, match=r"size: frames of .* takes multiples of 32 x 32\. resize or crop"
    ):
        backbone.latent_shape(17, *size)


def test_image_is_needed_exactly_where_it_is_taken(backbone: Backbone) -> None:
    noisy = torch.zeros(1, *SHAPE)
    given = None if backbone.takes_image else noisy
    with pytest.raises(ValueError, match=r"takes_image is (True|False), image is (True|False)"):
        backbone.predict(noisy, torch.tensor([1.0]), backbone.encode_text([""]), given)


def test_a_pipeline_of_another_class() -> None:
    parts = LTXBackbone.tiny("t2v").components
    with pytest.raises(MatrixError, match="LTXConditionPipeline is not an LTX-Video pipeline") as e:
        backbone_for(LTXConditionPipeline(**parts))
    assert "LTXImageToVideoPipeline(**pipe.components)" in str(e.value)


def test_a_model_that_the_stock_call_would_not_run_rightly() -> None:
    pipe: Any = LTXBackbone.tiny("t2v")
    pipe.transformer.register_to_config(patch_size=2)
    with pytest.raises(MatrixError, match=r"groups latents \(1, 2, 2\).*patch_size 1"):
        backbone_for(pipe)
    pipe = LTXBackbone.tiny("t2v")
    pipe.vae.register_to_config(scaling_factor=0.5)
    with pytest.raises(MatrixError, match=r"vae.scaling_factor: the VAE scales latents by 0.5"):
        backbone_for(pipe)
    pipe = LTXBackbone.tiny("t2v")
    pipe.scheduler.register_to_config(invert_sigmas=True)
    with pytest.raises(MatrixError, match=r"not the flow-matching schedule that LTX-Video"):
        backbone_for(pipe)
