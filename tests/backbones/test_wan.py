"""The Wan backbone against the stock pipelines' own calls, and its errors.

Shapes as in `backbones.base`.
"""

from __future__ import annotations

import re
from typing import Any, cast

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanVideoToVideoPipeline,
)
from peft import LoraConfig
from torch import Tensor

from matrix_video.attention.tap import tap
from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.text import Text, TokenKind
from matrix_video.backbones.tiny_wan import VARIANTS, tiny_wan
from matrix_video.backbones.wan import WanBackbone
from matrix_video.data.spans import find_phrases
from matrix_video.services.errors import MatrixError

CAPTION = "a small red ball pushes the box."
CLIP = WanBackbone.tiny_clip


def frames(batch: int = 1, count: int = 9, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, count, *CLIP[1:], 3), generator=g, dtype=torch.uint8)


def noise_for(backbone: WanBackbone, batch: int = 1, seed: int = 2) -> Tensor:
    shape = (batch, *backbone.latent_shape(*CLIP))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Recorder:
    """Which transformer ran, with which inputs, and what it gave, for every forward from now on."""

    def __init__(self, *transformers: Any) -> None:
        self.calls: list[tuple[Any, dict[str, Any], Tensor]] = []
        for transformer in transformers:
            if transformer is not None:
                transformer.register_forward_hook(self._see, with_kwargs=True)

    def _see(self, module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        assert not args
        self.calls.append((module, kwargs, output[0]))


@pytest.fixture(scope="module")
def t2v() -> WanBackbone:
    return WanBackbone(tiny_wan())


@pytest.fixture(scope="module")
def i2v() -> WanBackbone:
    return WanBackbone(tiny_wan(**VARIANTS["i2v"]))


@pytest.mark.parametrize("variant", WanBackbone.variants)
def test_predict_is_a_step_of_the_stock_pipeline(variant: str) -> None:
    pipe: Any = WanBackbone.tiny(variant)
    backbone = backbone_for(pipe)
    assert isinstance(backbone, WanBackbone)
    first = frames(1, 1, seed=5)[:, 0] if backbone.takes_image else None
    latents = noise_for(backbone)
    steps: list[Tensor] = [latents]

    def keep(pipe: Any, step: int, timestep: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        steps.append(kwargs["latents"].transpose(1, 2))
        return {}

    recorder = Recorder(pipe.transformer, pipe.transformer_2)
    arguments = backbone.call_arguments(latents, CLIP, first) | {"output_type": "latent"}
    # Guidance off: the transformer is called with the conditional half alone.
    pipe(
        prompt=[CAPTION],
        num_inference_steps=3,
        guidance_scale=1.0,
        generator=[torch.Generator()],
        callback_on_step_end=keep,
        **arguments,
    )
    stock = recorder.calls.copy()
    assert len(stock) == 3
    experts = [backbone]
    if pipe.transformer_2 is not None:
        experts.append(WanBackbone(pipe, "low"))
        assert stock[0][0] is pipe.transformer
        assert stock[-1][0] is pipe.transformer_2
    text = backbone.encode_text([CAPTION], first)
    image = None if first is None else backbone.encode_image(first, CLIP[0])
    for before, (module, theirs, output) in zip(steps, stock, strict=False):
        (expert,) = (b for b in experts if b.transformer is module)
        # With timesteps per token, those of the last frame are the noise's.
        t = theirs["timestep"].reshape(1, -1)[:, -1]
        with torch.no_grad():
            prediction = expert.predict(before, t, text, image)
        _, mine, _ = recorder.calls[-1]
        for key in ("hidden_states", "encoder_hidden_states", "timestep"):
            assert torch.equal(mine[key], theirs[key]), key
        embeds = theirs.get("encoder_hidden_states_image")
        assert (embeds is not None) == (variant == "i2v")
        assert embeds is None or torch.equal(mine["encoder_hidden_states_image"], embeds)
        assert torch.equal(prediction, output.transpose(1, 2))


def test_guidance_is_separate_and_conditional_first(t2v: WanBackbone) -> None:
    pipe: Any = t2v.pipe
    recorder = Recorder(pipe.transformer)
    pipe(
        prompt=CAPTION,
        num_inference_steps=1,
        guidance_scale=5.0,
        **t2v.call_arguments(noise_for(t2v), CLIP, None) | {"output_type": "latent"},
    )
    given = [kwargs["encoder_hidden_states"] for _, kwargs, _ in recorder.calls]
    assert len(given) == 2
    for found, caption in zip(given, (CAPTION, ""), strict=True):
        assert torch.equal(found, t2v.encode_text([caption]).embeds_BLE)


@pytest.mark.parametrize("variant", ["t2v", "t2v-5b"])
def test_decode_is_the_stock_pipelines(variant: str) -> None:
    pipe: Any = WanBackbone.tiny(variant)
    backbone = WanBackbone(pipe)
    settings = {"prompt": CAPTION, "num_inference_steps": 2, "guidance_scale": 1.0}
    arguments = backbone.call_arguments(noise_for(backbone), CLIP, None) | settings
    video = torch.from_numpy(pipe(**arguments).frames)
    latents = pipe(**arguments | {"output_type": "latent"}).frames.transpose(1, 2)
    decoded = backbone.decode(latents)
    assert decoded.shape == (1, *CLIP, 3)
    assert torch.equal(decoded, (video * 255).round().to(torch.uint8))


def test_encode_video(t2v: WanBackbone) -> None:
    pipe: Any = t2v.pipe
    clip = frames(2, 5)
    latents = t2v.encode_video(clip)
    assert latents.shape == (2, *t2v.latent_shape(5, 64, 96)) == (2, 2, 16, 8, 12)
    with torch.no_grad():
        mode = pipe.vae.encode(clip.permute(0, 4, 1, 2, 3) / 127.5 - 1).latent_dist.mode()
    config = pipe.vae.config
    mean, std = (
        torch.tensor(x)[:, None, None, None] for x in (config.latents_mean, config.latents_std)
    )
    torch.testing.assert_close(latents, ((mode - mean) / std).transpose(1, 2))
    assert torch.equal(t2v.encode_video(clip.float() / 255), latents)
    drawn = [t2v.encode_video(clip, torch.Generator().manual_seed(i)) for i in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert t2v.decode(latents).shape == clip.shape


@pytest.mark.parametrize("variant", ["i2v", "i2v-2.2", "ti2v-5b"])
def test_encode_image(variant: str) -> None:
    backbone = WanBackbone(WanBackbone.tiny(variant))
    clip = frames(2)
    image = backbone.encode_image(clip[:, 0], 9, torch.Generator().manual_seed(1))
    assert image.shape == (2, *backbone.latent_shape(*CLIP))
    still = clip[:, :1].float() / 255
    if variant == "ti2v-5b":
        assert torch.equal(image[:, :1], backbone.encode_video(still))
        assert not image[:, 1:].any()
    else:
        grey = torch.full((2, 8, *CLIP[1:], 3), 0.5)
        expected = backbone.encode_video(torch.cat([still, grey], dim=1))
        torch.testing.assert_close(image, expected)


def test_image_extra_is_the_stock_pipelines(i2v: WanBackbone, t2v: WanBackbone) -> None:
    first = frames(2)[:, 0]
    extra = i2v.image_extra(first)
    assert list(extra) == ["image_embeds"]
    assert extra["image_embeds"].shape == (2, 5, 4)
    for row in range(2):
        alone = i2v.image_extra(first[row : row + 1])["image_embeds"]
        torch.testing.assert_close(extra["image_embeds"][row : row + 1], alone)
    assert torch.equal(i2v.image_extra(first.float() / 255)["image_embeds"], extra["image_embeds"])
    beside = i2v.encode_text(["", ""], first)
    assert torch.equal(beside.extra["image_embeds"], extra["image_embeds"])
    assert torch.equal(beside.embeds_BLE, i2v.encode_text(["", ""]).embeds_BLE)
    assert t2v.image_extra(first) == {}
    assert WanBackbone(WanBackbone.tiny("i2v-2.2")).image_extra(first) == {}


def test_encode_text_is_the_stock_pipelines(t2v: WanBackbone) -> None:
    pipe: Any = t2v.pipe
    captions = [CAPTION, "", "the cat " * 40]
    with torch.no_grad():
        stock, _ = pipe.encode_prompt(
            captions, do_classifier_free_guidance=False, max_sequence_length=32
        )
    text = t2v.encode_text(captions)
    assert not text.extra
    assert torch.equal(text.embeds_BLE, stock)
    words = [TokenKind.WORD] * 8 + [TokenKind.SPECIAL] + [TokenKind.PADDING] * 23
    assert list(t2v.token_kinds(CAPTION)) == words
    assert not text.embeds_BLE[0, 9:].any()
    assert text.embeds_BLE[0, :9].any(dim=-1).all()


def test_phrases_are_found_in_the_cleaned_caption(t2v: WanBackbone) -> None:
    caption = "a cat &amp; a dog   chases the ball"
    found = t2v.phrase_tokens(caption, find_phrases(caption, ["cat", "dog chases", "ball"]))
    # The pipeline reads "a cat & a dog chases the ball".
    assert found == ((1,), (4, 5), (7,))
    kinds = t2v.token_kinds(caption)
    assert kinds.count(TokenKind.WORD) == 8
    longer = caption + " cat" * 40 + " box"
    with pytest.raises(MatrixError, match=r"caption: the phrase 'box' is cut off"):
        t2v.phrase_tokens(longer, find_phrases(longer, ["box"]))


def test_structure(t2v: WanBackbone, i2v: WanBackbone) -> None:
    assert (t2v.family, t2v.num_layers, t2v.latent_channels) == ("Wan", 3, 16)
    assert (t2v.takes_image, i2v.takes_image) == (False, True)
    assert (t2v.num_text_tokens, i2v.num_text_tokens) == (32, 512)
    grid = t2v.grid(17, 32, 64)
    assert grid.shape == (5, 2, 4)
    assert (grid.frames[0], grid.frames[4]) == ((0,), (13, 14, 15, 16))
    small = WanBackbone(WanBackbone.tiny("ti2v-5b"))
    assert small.latent_shape(9, 64, 96) == (3, 8, 4, 6)
    assert small.grid(9, 64, 96).shape == (3, 2, 3)
    for name in (*t2v.layer_names(), t2v.condition_site()):
        t2v.transformer.get_submodule(name)
    counted = {v: WanBackbone(WanBackbone.tiny(v)).supervised(3).tolist() for v in VARIANTS}
    assert counted.pop("ti2v-5b") == [False, True, True]
    assert all(all(frames) for frames in counted.values())


def test_sites(t2v: WanBackbone, i2v: WanBackbone) -> None:
    grid = t2v.grid(*CLIP)
    v2v = t2v.sites([2, 0], "v2v", grid)
    assert list(v2v) == ["blocks.2.attn1", "blocks.0.attn1"]
    own = v2v["blocks.2.attn1"]
    assert (own.num_keys, own.video, own.num_text) == (72, slice(0, 72), 0)
    cross = t2v.sites([1], "v2t", grid)["blocks.1.attn2"]
    assert (cross.num_queries, cross.num_keys, cross.text) == (72, 32, slice(0, 32))
    assert (cross.video_keys, cross.calls, cross.call) == (False, 1, 0)
    both = i2v.sites([1], "v2t", grid)["blocks.1.attn2"]
    assert (both.num_keys, both.calls, both.call) == (512, 2, 1)
    with pytest.raises(MatrixError, match=r"num_text: 32 text tokens; .* the last 512 of its keys"):
        i2v.site(0, "v2t", grid, 32)


def test_text_call_of_image_to_video_is_the_second(i2v: WanBackbone) -> None:
    """A caption changes its keys; another first frame changes those of the call before."""
    grid, image = i2v.grid(*CLIP), i2v.encode_image(frames()[:, 0], 9)
    (site,) = i2v.sites([0], "v2t", grid).values()
    keys: list[Tensor] = []
    for caption, seed in ((CAPTION, 0), ("the cat", 0), (CAPTION, 1)):
        text = i2v.encode_text([caption], frames(seed=seed)[:, 0])
        with torch.no_grad(), tap(i2v.transformer, {"text": site}) as captures:
            i2v.predict(noise_for(i2v), torch.tensor([500.0]), text, image)
        keys.append(cast("Any", captures["text"]).k)
    assert keys[0].shape[2] == 512
    assert torch.equal(keys[0], keys[2])
    assert not torch.equal(keys[0], keys[1])


def test_lora_targets_are_the_chosen_layers_attention_alone(i2v: WanBackbone) -> None:
    pipe: Any = tiny_wan(i2v=True, clip=True, layers=12)
    backbone = WanBackbone(pipe)
    pattern = backbone.lora_targets([11, 1])
    names = [n for n, _ in pipe.transformer.named_modules() if re.fullmatch(pattern, n)]
    assert names == [
        f"blocks.{i}.{attention}.{part}"
        for i in (1, 11)
        for attention in ("attn1", "attn2")
        for part in ("to_q", "to_k", "to_v", "to_out.0")
    ]
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=pattern))
    lora = {n.split(".lora_")[0] for n, _ in pipe.transformer.named_parameters() if "lora_" in n}
    assert lora == set(names)
    with pytest.raises(MatrixError, match="no layer was chosen"):
        i2v.lora_targets([])
    with pytest.raises(MatrixError, match=r"layer 3 does not exist: .* has layers 0 to 2"):
        i2v.lora_targets([0, 3])


# -- objective ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", [UniPCMultistepScheduler, FlowMatchEulerDiscreteScheduler])
def test_exact_targets_lead_to_the_clean_latents(scheduler: Any) -> None:
    pipe: Any = tiny_wan()
    if scheduler is FlowMatchEulerDiscreteScheduler:
        pipe.scheduler = scheduler(shift=3.0)
    backbone = WanBackbone(pipe)
    g = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 1, 3, 16, 8, 12, generator=g).unbind()
    pipe.scheduler.set_timesteps(4)
    x = noise
    for t in pipe.scheduler.timesteps:
        at = backbone.add_noise(clean, noise, t.reshape(1))
        torch.testing.assert_close(x, at, atol=0.01, rtol=0)  # UniPC's timesteps are whole numbers
        x = pipe.scheduler.step(backbone.target(clean, noise, t), t, x).prev_sample
    torch.testing.assert_close(x, clean, atol=1e-4, rtol=0)
    assert torch.equal(backbone.weight(torch.tensor([1.0, 999.0])), torch.ones(2))


def test_noise_is_not_rounded_with_the_schedule(t2v: WanBackbone) -> None:
    g = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, 3, 16, 8, 12, generator=g).bfloat16().unbind()
    t = torch.tensor([3.3])
    noisy = t2v.add_noise(latents, noise, t)
    assert noisy.dtype == torch.bfloat16
    assert torch.equal(noisy, t2v.add_noise(latents.float(), noise.float(), t).bfloat16())
    assert t2v.target(latents, noise, t).dtype == torch.float32


def test_experts_share_all_but_their_layers_and_levels() -> None:
    pipe: Any = WanBackbone.tiny("t2v-2.2")
    high, low = WanBackbone(pipe), WanBackbone(pipe, "low")
    assert high.transformer is pipe.transformer
    assert low.transformer is pipe.transformer_2
    assert high.encoders_key() == low.encoders_key()
    g = torch.Generator().manual_seed(0)
    assert float(high.sample_timesteps(100, g).min()) >= 875
    assert float(low.sample_timesteps(100, g).max()) <= 875
    assert float(low.noise_levels(5).max()) < 875 < float(high.noise_levels(5).min())
    pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config, flow_shift=8.0)
    assert 875 < float(high.noise_levels(1)) < float(high.noise_levels(5).max())


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "use"), [(0, "1 or 5"), (8, "5 or 9"), (10, "9 or 13")])
def test_clip_length(t2v: WanBackbone, count: int, use: str) -> None:
    with pytest.raises(MatrixError, match=rf"takes 1 \+ 4k frames. use {use} frames"):
        t2v.grid(count, 64, 96)


def test_clip_size(t2v: WanBackbone) -> None:
    with pytest.raises(
        MatrixError, match=r"takes multiples of 16 x 16\. resize or crop, for example to 64 x 16"
    ):
        t2v.latent_shape(9, 70, 3)
    with pytest.raises(MatrixError, match="takes multiples of 32 x 32"):
        WanBackbone(WanBackbone.tiny("ti2v-5b")).latent_shape(9, 48, 64)
    with pytest.raises(ValueError, match=r"expected frames \[B,T,H,W,3\]"):
        t2v.encode_video(torch.zeros(1, 9, 3, 32, 32))
    with pytest.raises(ValueError, match="expected uint8"):
        t2v.encode_video(torch.zeros(1, 9, 32, 32, 3, dtype=torch.int64))


def test_conditions_are_needed_exactly_where_they_are_taken(
    t2v: WanBackbone, i2v: WanBackbone
) -> None:
    text, t = Text(torch.zeros(1, 512, 32)), torch.tensor([1.0])
    with pytest.raises(ValueError, match="takes_image is False, image is True"):
        t2v.predict(noise_for(t2v), t, text, noise_for(t2v))
    with pytest.raises(ValueError, match="takes_image is True, image is False"):
        i2v.predict(noise_for(i2v), t, text)
    with pytest.raises(ValueError, match=r"give it text\.given\(backbone\.image_extra"):
        i2v.predict(noise_for(i2v), t, text, noise_for(i2v))


def test_stock_call_takes_one_first_frame(i2v: WanBackbone) -> None:
    first = frames(2)[:, 0]
    with pytest.raises(MatrixError, match=r"image: 2 different first frames.*one image a call"):
        i2v.call_arguments(noise_for(i2v, 2), CLIP, first)
    arguments = i2v.call_arguments(noise_for(i2v, 2), CLIP, first[:1].expand(2, -1, -1, -1))
    assert arguments["image"].size == (96, 64)


def test_pipelines_and_experts_that_are_refused() -> None:
    pipe: Any = tiny_wan()
    parts = {k: v for k, v in pipe.components.items() if k != "transformer_2"}
    with pytest.raises(MatrixError, match="WanVideoToVideoPipeline is not a Wan pipeline"):
        backbone_for(WanVideoToVideoPipeline(**parts))
    with pytest.raises(MatrixError, match="expert: the pipeline has no boundary_ratio"):
        WanBackbone(pipe, "low")
    with pytest.raises(MatrixError, match="loaded without its transformer for low noise"):
        WanBackbone(WanPipeline(**parts, boundary_ratio=0.9), "low")
    with pytest.raises(
        MatrixError,
        match=r"gives the transformer 36 channels, this one takes 16.*"
        r"load the checkpoint as WanPipeline",
    ):
        WanBackbone(WanImageToVideoPipeline(**parts))
    pipe.scheduler = DDIMScheduler()
    with pytest.raises(MatrixError, match="DDIMScheduler as it is set up has no flow-matching"):
        WanBackbone(pipe)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    with pytest.raises(MatrixError, match="static shift"):
        WanBackbone(pipe)
    both: Any = WanBackbone.tiny("i2v")
    both.transformer.register_to_config(pos_embed_seq_len=10)
    with pytest.raises(MatrixError, match="conditioned on a first and a last frame"):
        WanBackbone(both)
