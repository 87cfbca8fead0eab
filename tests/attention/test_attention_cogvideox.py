"""Tap and readout on random tiny CogVideoX pipelines: exact maps, identical outputs, gradients.

Shapes: B batch, R rows of weights, N video tokens, L text tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import PyramidAttentionBroadcastConfig
from peft import LoraConfig
from torch import Tensor

from matrix_video.attention.readout import v2t_maps, v2v_maps
from matrix_video.attention.tap import tap
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.text import Text
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.services.errors import MatrixError

CAPTIONS = ["a small red ball pushes the box.", "the cat follows a dog"]


class Setup:
    """A backbone, inputs of one forward, and weights of three phrases and three regions."""

    def __init__(self, *, i2v: bool, dtype: torch.dtype = torch.float32) -> None:
        self.pipe: Any = tiny_pipeline(i2v=i2v, layers=3)
        self.pipe.transformer.to(dtype)
        self.backbone: Backbone = backbone_for(self.pipe)
        self.grid = self.backbone.grid(9, 32, 32)
        g = torch.Generator().manual_seed(0)
        shape = (2, *self.backbone.latent_shape(9, 32, 32))
        self.noisy = torch.randn(shape, generator=g, dtype=dtype)
        self.image = torch.randn(shape, generator=g, dtype=dtype) if i2v else None
        self.text = Text(self.backbone.encode_text(CAPTIONS).embeds_BLE.to(dtype))
        self.t = torch.tensor([300, 700])
        self.sites = self.backbone.sites([0, 2], "v2t", self.grid)
        self.text_BRL = self.weights(3, 32, g)
        self.video_BRN = self.weights(3, self.grid.num_tokens, g)

    @staticmethod
    def weights(rows: int, tokens: int, g: torch.Generator) -> Tensor:
        chosen = (torch.rand(2, rows, tokens, generator=g) > 0.8).float()
        chosen[1, -1] = 0  # padding
        return chosen / chosen.sum(-1, keepdim=True).clamp_min(1)

    def predict(self) -> Tensor:
        return self.backbone.predict(self.noisy, self.t, self.text, self.image)


@pytest.mark.parametrize("i2v", [False, True])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_maps_equal_dense_softmax(dense: Any, i2v: bool, dtype: torch.dtype, limit: float) -> None:
    s = Setup(i2v=i2v, dtype=dtype)
    with torch.no_grad():
        plain = s.predict()
    with tap(s.pipe.transformer, s.sites, keep_output=True) as captures:
        tapped = s.predict()
    assert torch.equal(plain, tapped)
    names = [name for name, _ in s.pipe.transformer.named_parameters()]
    for name, site in s.sites.items():
        call = captures[name]
        assert dense.error(call.out, dense.p(call) @ call.v.double()) < limit
        pairs = (
            (v2t_maps(call, site, s.text_BRL), dense.v2t(call, site, s.text_BRL).mean(1)),
            (
                v2v_maps(call, site, s.video_BRN, chunk=5),
                dense.v2v(call, site, s.video_BRN).mean(1),
            ),
            (v2t_maps(call, site, s.text_BRL, per_head=True), dense.v2t(call, site, s.text_BRL)),
            (v2v_maps(call, site, s.video_BRN, per_head=True), dense.v2v(call, site, s.video_BRN)),
        )
        for found, expected in pairs:
            assert dense.error(found, expected) <= limit
            grads = [
                torch.autograd.grad(
                    (maps.double() - 0.01).square().sum(),
                    list(s.pipe.transformer.parameters()),
                    retain_graph=True,
                    allow_unused=True,
                )
                for maps in (found, expected)
            ]
            # A bias of the keys shifts whole rows of logits: its gradient is exactly zero, and
            # what is found there is rounding. So the measure is the largest of all gradients.
            top = max(float(g.abs().max()) for g in grads[1] if g is not None)
            for param, mine, reference in zip(names, *grads, strict=True):
                assert (mine is None) == (reference is None), param
                if reference is not None:
                    assert float((mine - reference).abs().max()) <= limit * top, param


def test_gradient_checkpointing_and_lora_change_nothing() -> None:
    grads: list[dict[str, Tensor]] = []
    for checkpointing in (False, True):
        s = Setup(i2v=True)
        transformer = s.pipe.transformer.requires_grad_(False)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            targets = s.backbone.lora_targets([0, 2])
            transformer.add_adapter(
                LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
            )
        if checkpointing:
            transformer.enable_gradient_checkpointing()
        with tap(transformer, s.sites, require_grad=True) as captures:
            prediction = s.predict()
            kept = dict(captures)
            loss = prediction.square().mean()
            for name, site in s.sites.items():
                loss = loss + v2t_maps(captures[name], site, s.text_BRL).square().sum()
                loss = loss + v2v_maps(captures[name], site, s.video_BRN).square().sum()
            loss.backward()
            assert dict(captures) == kept
        grads.append({n: p.grad for n, p in transformer.named_parameters() if p.grad is not None})
    assert len(grads[0]) == 16
    assert grads[0].keys() == grads[1].keys()
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


def test_autocast_captures_what_the_kernel_sees(dense: Any) -> None:
    s = Setup(i2v=True)
    with (
        torch.autocast("cpu", torch.bfloat16),
        tap(s.pipe.transformer, s.sites, keep_output=True) as captures,
    ):
        s.predict()
    for name, site in s.sites.items():
        call = captures[name]
        assert call.q.dtype == call.k.dtype == torch.bfloat16
        # The reference softmax of the captured q and k gives the kernel's own output to bfloat16.
        assert dense.error(call.out, dense.p(call) @ call.v.double()) < 2**-7
        expected = dense.v2v(call, site, s.video_BRN).mean(1)
        assert dense.error(v2v_maps(call, site, s.video_BRN), expected) < 1e-5


def test_fused_projections(dense: Any) -> None:
    s = Setup(i2v=True)
    with tap(s.pipe.transformer, s.sites) as captures, torch.no_grad():
        s.predict()
        name, site = next(iter(s.sites.items()))
        plain = v2t_maps(captures[name], site, s.text_BRL)
        s.pipe.transformer.fuse_qkv_projections()
        s.predict()
        assert dense.error(v2t_maps(captures[name], site, s.text_BRL), plain) < 1e-4


def test_inside_the_stock_pipeline_call(dense: Any) -> None:
    """Guidance batches [unconditional, conditional]; the site keeps the conditional half."""
    s = Setup(i2v=True)
    site = s.backbone.site(2, "v2t", s.grid, 32)
    name = site.module
    sites = {name: replace(site, keep=slice(1, None)), "both": site}
    seen: list[Tensor] = []
    with tap(s.pipe.transformer, sites) as captures:

        def read(pipe: Any, step: int, timestep: int, kwargs: dict[str, Any]) -> dict[str, Any]:
            seen.append(v2t_maps(captures[name], site, s.text_BRL[:1]))
            assert captures["both"].q.shape[0] == 2
            assert torch.equal(captures["both"].q[1:], captures[name].q)
            return {}

        s.pipe(
            image=torch.rand(1, 3, 32, 32),
            prompt=CAPTIONS[0],
            height=32,
            width=32,
            num_frames=9,
            num_inference_steps=2,
            guidance_scale=6,
            max_sequence_length=32,
            output_type="latent",
            callback_on_step_end=read,
        )
    assert [maps.shape for maps in seen] == [(1, 3, 48)] * 2
    assert not torch.equal(seen[0], seen[1])


def test_enabled_cache_is_refused() -> None:
    s = Setup(i2v=True)
    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 1001),
        current_timestep_callback=lambda: 500,
        spatial_attention_block_identifiers=("transformer_blocks",),
    )
    s.pipe.transformer.enable_cache(config)
    with pytest.raises(MatrixError, match="cache enabled, which skips attention"):
        s.backbone.site(0, "v2t", s.grid, 32)
    with (
        pytest.raises(MatrixError, match="forward of this module was replaced"),
        tap(s.pipe.transformer, s.sites),
    ):
        pass
    s.pipe.transformer.disable_cache()
    with tap(s.pipe.transformer, s.sites), torch.no_grad():
        s.predict()
        s.pipe.transformer.enable_cache(config)  # in the middle
        s.predict()  # fills the cache
        with pytest.raises(MatrixError, match="ran 0 times"):
            s.predict()
