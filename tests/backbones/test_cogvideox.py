"""The CogVideoX backbone against the stock pipeline's own call, and its errors.

Shapes as in `backbones.base`.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from PIL import Image
from torch import Tensor

from matrix_video.backbones.base import Backbone
from matrix_video.backbones.cogvideox import CogVideoXBackbone
from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.text import Text
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.sample import Span
from matrix_video.services.errors import MatrixError

CAPTION = "a small red ball pushes the box."
KINDS: dict[str, dict[str, Any]] = {
    "t2v": {"i2v": False},
    "i2v": {"i2v": True},
    "i2v-1.5": {"i2v": True, "patch_size_t": 2, "ofs_dim": 8, "invert_scale": True},
    "t2v-1.5": {"i2v": False, "patch_size_t": 2},
    "i2v-learned": {"i2v": True, "learned_positions": True},
    "t2v-sincos": {"i2v": False, "rotary": False},
}


def frames(batch: int = 1, count: int = 9, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, count, 32, 32, 3), generator=g, dtype=torch.uint8)


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
    return backbone_for(tiny_pipeline(layers=3))


@pytest.mark.parametrize("kind", KINDS)
def test_predict_is_a_step_of_the_stock_pipeline(kind: str) -> None:
    pipe: Any = tiny_pipeline(**KINDS[kind])
    backbone = backbone_for(pipe)
    calls = recorded(pipe.transformer)
    image = frames(1, 1, seed=5)[:, 0]
    shape = (1, *backbone.latent_shape(9, 32, 32))
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    steps: list[Tensor] = [latents]

    def keep(pipe: Any, step: int, timestep: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        steps.append(kwargs["latents"])
        return {}

    condition: dict[str, Any] = {}
    if backbone.takes_image:
        condition["image"] = Image.fromarray(image[0].numpy())
    # Guidance off: the transformer is called with the conditional half alone.
    pipe(
        prompt=CAPTION,
        height=32,
        width=32,
        num_frames=9,
        num_inference_steps=3,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(3),
        latents=latents,
        max_sequence_length=backbone.num_text_tokens,
        output_type="latent",
        callback_on_step_end=keep,
        **condition,
    )
    stock = calls.copy()
    assert len(stock) == 3
    calls.clear()
    text = backbone.encode_text([CAPTION])
    condition_latents = None
    if backbone.takes_image:
        generator = torch.Generator().manual_seed(3)
        condition_latents = backbone.encode_image(image, 9, generator)
    for before, after, theirs in zip(steps, steps[1:], stock, strict=False):
        with torch.no_grad():
            prediction = backbone.predict(before, theirs["timestep"], text, condition_latents)
        mine = calls.pop()
        for key in ("hidden_states", "encoder_hidden_states", "timestep"):
            assert torch.equal(mine[key], theirs[key]), key
        ofs = theirs.get("ofs")
        assert mine["ofs"] is ofs is None or torch.equal(mine["ofs"], ofs)
        rotary = theirs["image_rotary_emb"]
        if rotary is None:
            assert mine["image_rotary_emb"] is None
        else:
            assert all(
                torch.equal(*pair) for pair in zip(mine["image_rotary_emb"], rotary, strict=True)
            )
        stepped = pipe.scheduler.step(prediction, int(theirs["timestep"]), before).prev_sample
        assert torch.equal(stepped, after)


@pytest.mark.parametrize("kind", ["t2v", "i2v", "t2v-1.5"])
def test_decode_is_the_stock_pipelines(kind: str) -> None:
    pipe: Any = tiny_pipeline(**KINDS[kind])
    backbone = backbone_for(pipe)
    shape = (2, *backbone.latent_shape(9, 32, 32))
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    own = latents[:, shape[1] - 3 :]
    with torch.no_grad():
        video = pipe.decode_latents(own)
    stock = pipe.video_processor.postprocess_video(video, output_type="pil")
    expected = np.stack([[np.asarray(image) for image in clip] for clip in stock])
    decoded = backbone.decode(latents)
    assert decoded.shape == (2, 9, 32, 32, 3)
    assert torch.equal(decoded, torch.from_numpy(expected))


def test_decode_refuses_even_counts(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match="4 latent frames, expected an odd number"):
        backbone.decode(torch.zeros(1, 4, 4, 8, 8))


def test_encode_video(backbone: Backbone) -> None:
    pipe: Any = backbone.pipe
    clip = frames(2)
    latents = backbone.encode_video(clip)
    assert latents.shape == (2, *backbone.latent_shape(9, 32, 32)) == (2, 3, 4, 8, 8)
    with torch.no_grad():
        posterior = pipe.vae.encode(clip.permute(0, 4, 1, 2, 3) / 127.5 - 1).latent_dist
    expected = posterior.mode().transpose(1, 2) * 0.7
    assert torch.allclose(latents, expected, atol=1e-5)
    assert torch.equal(backbone.encode_video(clip.float() / 255), latents)
    drawn = [backbone.encode_video(clip, torch.Generator().manual_seed(i)) for i in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    # Bytes in, bytes out: the shape survives the round trip.
    assert backbone.decode(latents).shape == clip.shape


def test_encode_image_is_the_first_latent_and_zeros(backbone: Backbone) -> None:
    clip = frames(2)
    image = backbone.encode_image(clip[:, 0], 9)
    assert image.shape == (2, 3, 4, 8, 8)
    assert not image[:, 1:].any()
    assert torch.equal(image[:, :1], backbone.encode_video(clip[:, :1]))


def test_padding_latents_of_1_5() -> None:
    backbone = backbone_for(tiny_pipeline(**KINDS["i2v-1.5"]))
    assert backbone.latent_shape(9, 32, 32) == (4, 4, 8, 8)
    clip = frames()
    latents = backbone.encode_video(clip)
    assert torch.equal(latents[:, 0], latents[:, 1])
    image = backbone.encode_image(clip[:, 0], 9)
    assert not image[:, 1:].any()
    single = backbone.encode_video(clip[:, :1])
    assert torch.allclose(image[:, 0] * 0.7**2, single[:, 0], atol=1e-6)  # the inverted scale
    grid = backbone.grid(9, 32, 32)
    assert grid.shape == (2, 4, 4)
    assert grid.frames == ((0,), tuple(range(1, 9)))
    site = backbone.site(0, "v2v", grid, 32)
    assert site.num_queries == 32 + 2 * 16


def test_encode_text_is_the_stock_pipelines(backbone: Backbone) -> None:
    pipe: Any = backbone.pipe
    captions = [CAPTION, "", "the cat " * 40]
    with torch.no_grad():
        stock, _ = pipe.encode_prompt(
            captions, do_classifier_free_guidance=False, max_sequence_length=32
        )
    text = backbone.encode_text(captions)
    assert not text.extra
    assert torch.equal(text.embeds_BLE, stock)
    assert not text.embeds_BLE.requires_grad


def test_tokenizer_gives_offsets(backbone: Backbone) -> None:
    spans = [[Span(start=2, end=16)], [Span(start=17, end=23)]]
    indices = backbone.phrase_tokens(CAPTION, spans)
    assert indices == ((1, 2, 3), (4,))


def test_structure(backbone: Backbone) -> None:
    assert isinstance(backbone, CogVideoXBackbone)
    assert backbone.family == "CogVideoX"
    assert (backbone.num_layers, backbone.num_text_tokens) == (3, 32)
    assert (backbone.takes_image, backbone.latent_channels) == (True, 4)
    assert not backbone_for(tiny_pipeline(i2v=False)).takes_image
    grid = backbone.grid(17, 16, 32)
    assert grid.shape == (5, 2, 4)
    assert grid.frames[0] == (0,)
    assert grid.frames[4] == (13, 14, 15, 16)
    sites = backbone.sites([2, 0], "v2v", grid)
    assert list(sites) == ["transformer_blocks.2.attn1", "transformer_blocks.0.attn1"]
    site = sites["transformer_blocks.2.attn1"]
    assert (site.text, site.video) == (slice(0, 32), slice(32, 72))
    transformer: Any = backbone.transformer
    for name in (*backbone.layer_names(), backbone.condition_site()):
        transformer.get_submodule(name)


def test_lora_targets_are_the_chosen_layers_attention_alone() -> None:
    pipe: Any = tiny_pipeline(layers=12)
    backbone = backbone_for(pipe)
    pattern = backbone.lora_targets([11, 1])
    names = [n for n, _ in pipe.transformer.named_modules() if re.fullmatch(pattern, n)]
    assert names == [
        f"transformer_blocks.{i}.attn1.{part}"
        for i in (1, 11)
        for part in ("to_q", "to_k", "to_v", "to_out.0")
    ]
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=pattern))
    lora = {n.split(".lora_")[0] for n, _ in pipe.transformer.named_parameters() if "lora_" in n}
    assert lora == set(names)


@pytest.mark.parametrize("layer", [-1, 3, 42])
def test_layer_out_of_range(backbone: Backbone, layer: int) -> None:
    grid = backbone.grid(9, 32, 32)
    message = rf"layers: layer {layer} does not exist: CogVideoX\w+ here has layers 0 to 2"
    with pytest.raises(MatrixError, match=message):
        backbone.site(layer, "v2t", grid, 32)
    with pytest.raises(MatrixError, match=message):
        backbone.lora_targets([0, layer])


def test_no_layer_for_lora(backbone: Backbone) -> None:
    with pytest.raises(MatrixError, match="no layer was chosen"):
        backbone.lora_targets([])


# -- objective ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["ddim", "dpm"])
def test_objective_is_the_reference_loss(scheduler: str) -> None:
    """Squared error on v equals the reference's, on x0 weighted by 1/(1 - ᾱ)."""
    pipe: Any = tiny_pipeline()
    if scheduler == "dpm":
        pipe.scheduler = CogVideoXDPMScheduler.from_config(pipe.scheduler.config)
    backbone = backbone_for(pipe)
    g = torch.Generator().manual_seed(0)
    latents, noise, prediction = torch.randn(3, 4, 3, 4, 8, 8, generator=g).unbind()
    t = torch.tensor([0, 250, 700, 999])
    noisy = backbone.add_noise(latents, noise, t)
    abar = pipe.scheduler.alphas_cumprod[t].float().view(4, 1, 1, 1, 1)
    assert torch.allclose(noisy, abar.sqrt() * latents + (1 - abar).sqrt() * noise)
    # The reference's way from v to x0: the velocity formula with other arguments.
    clean = pipe.scheduler.get_velocity(prediction, noisy, t)
    reference = ((clean - latents).square() / (1 - abar)).flatten(1).mean(1)
    error = (prediction - backbone.target(latents, noise, t)).square().flatten(1).mean(1)
    assert torch.allclose(backbone.weight(t) * error, reference, rtol=1e-3)


def test_noise_is_not_rounded_with_the_schedule(backbone: Backbone) -> None:
    g = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, 3, 4, 8, 8, generator=g).bfloat16().unbind()
    t = torch.tensor([3])
    noisy = backbone.add_noise(latents, noise, t)
    exact = backbone.add_noise(latents.float(), noise.float(), t)
    assert noisy.dtype == torch.bfloat16
    assert torch.equal(noisy, exact.bfloat16())
    assert backbone.target(latents, noise, t).dtype == torch.float32


def test_timesteps(backbone: Backbone) -> None:
    drawn = backbone.sample_timesteps(4000, torch.Generator().manual_seed(0))
    again = backbone.sample_timesteps(4000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) <= 999
    counts = torch.histc(drawn.float(), bins=4, min=0, max=1000)
    assert float((counts - 1000).abs().max()) < 120  # four standard deviations
    assert backbone.noise_levels(5).tolist() == [100, 300, 500, 700, 900]
    assert backbone.noise_levels(1).tolist() == [500]
    with pytest.raises(MatrixError, match="0 noise levels of a schedule with 1000 steps"):
        backbone.noise_levels(0)


@settings(max_examples=30)
@given(count=st.integers(1, 1000))
def test_noise_levels_are_even(backbone: Backbone, count: int) -> None:
    levels = backbone.noise_levels(count).double()
    assert len(levels) == count
    steps = levels.diff()
    assert bool((steps > 0).all())
    assert count == 1 or float(steps.max() - steps.min()) <= 1
    assert abs(float(levels[0]) - (999 - float(levels[-1]))) <= 1.0


# -- errors ------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(count=st.integers(-3, 70))
def test_clip_length(backbone: Backbone, count: int) -> None:
    if count % 8 == 1 and count > 0:
        grid = backbone.grid(count, 32, 32)
        assert grid.num_frames % 2 == 1
        assert sum(grid.frames, ()) == tuple(range(count))
        return
    with pytest.raises(MatrixError, match=r"odd numbers of latent frames.*use \d+ or \d+") as info:
        backbone.grid(count, 32, 32)
    below, above = (int(n) for n in re.findall(r"use (\d+) or (\d+)", str(info.value))[0])
    assert below < max(count, 2) < above
    assert above == below + 8
    assert backbone.grid(below, 32, 32).num_frames < backbone.grid(above, 32, 32).num_frames


@pytest.mark.parametrize("size", [(30, 32), (32, 36), (0, 32)])
def test_clip_size(backbone: Backbone, size: tuple[int, int]) -> None:
    with pytest.raises(MatrixError, match=r"takes multiples of 8 x 8"):
        backbone.latent_shape(9, *size)


def test_frames_of_another_layout(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match=r"expected frames \[B,T,H,W,3\]"):
        backbone.encode_video(torch.zeros(1, 9, 3, 32, 32))
    with pytest.raises(ValueError, match="expected uint8"):
        backbone.encode_video(torch.zeros(1, 9, 32, 32, 3, dtype=torch.int64))


def test_image_is_needed_exactly_where_it_is_taken(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match="takes_image is True, image is False"):
        backbone.predict(
            torch.zeros(1, 3, 4, 8, 8), torch.tensor([1]), Text(torch.zeros(1, 32, 32))
        )


def test_learned_positions_fix_the_size() -> None:
    backbone = backbone_for(tiny_pipeline(**KINDS["i2v-learned"]))
    assert backbone.grid(9, 32, 32).num_frames == 3
    for clip in ((17, 32, 32), (9, 16, 32)):
        with pytest.raises(MatrixError, match="learned positions know only 9 frames of 32 x 32"):
            backbone.grid(*clip)


def test_positions_fix_the_text_length() -> None:
    pipe: Any = tiny_pipeline(**KINDS["t2v-sincos"])
    pipe.tokenizer.model_max_length = 20
    with pytest.raises(MatrixError, match=r"gives 20 tokens, the position embedding has 32"):
        backbone_for(pipe)


def test_prediction_type() -> None:
    pipe: Any = tiny_pipeline()
    pipe.scheduler.register_to_config(prediction_type="epsilon")
    with pytest.raises(MatrixError, match="the scheduler predicts 'epsilon'"):
        backbone_for(pipe)
