"""Fingerprints and cache keys: equal for equal models, different where it matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import nn

from matrix_video.backbones.fingerprint import fingerprint
from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.backbones.tiny import tiny_pipeline


def test_it_is_of_the_base() -> None:
    pipe: Any = tiny_pipeline(0)
    plain = fingerprint(pipe.transformer)
    assert plain.name == "CogVideoXTransformer3DModel"
    assert fingerprint(tiny_pipeline(0).transformer) == plain
    targets = backbone_for(pipe).lora_targets([0])
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=targets))
    assert fingerprint(pipe.transformer) == plain
    pipe.transformer.to(torch.bfloat16)
    assert fingerprint(pipe.transformer) == plain
    with torch.no_grad():
        pipe.transformer.proj_out.bias[0] += 1
    changed = fingerprint(pipe.transformer)
    assert changed.architecture == plain.architecture
    assert changed.weights != plain.weights


def test_weights_and_architecture_are_told_apart() -> None:
    plain = fingerprint(tiny_pipeline(0).transformer)
    other = fingerprint(tiny_pipeline(1).transformer)
    assert (other.architecture, other.name) == (plain.architecture, plain.name)
    assert other.weights != plain.weights
    assert fingerprint(tiny_pipeline(0, layers=3).transformer).architecture != plain.architecture
    # Nothing but the configuration tells these two apart.
    turned = fingerprint(tiny_pipeline(0, rotary=False).transformer)
    assert turned.architecture != plain.architecture


def test_parameters_that_float32_cannot_count() -> None:
    """A real text projection has 10^8 values; float32 counts to 2^24 = 16,777,216."""
    large = nn.Module()
    large.weight = nn.Parameter(torch.zeros((1 << 25) + 1, dtype=torch.bfloat16))
    before = fingerprint(large)
    with torch.no_grad():
        large.weight[-1] = 1
    assert fingerprint(large).weights != before.weights
    assert fingerprint(nn.Linear(0, 3, bias=False)).architecture


def test_encoders_key_is_of_all_but_the_transformer(tmp_path: Path) -> None:
    pipe: Any = tiny_pipeline(0)
    backbone = backbone_for(pipe)
    key = backbone.encoders_key()
    backbone.encode_text(["a caption leaves its padding in the tokenizer"])
    assert backbone.encoders_key() == key
    pipe.save_pretrained(tmp_path / "saved")
    assert backbone_for(load_pipeline(str(tmp_path / "saved"))).encoders_key() == key
    with torch.no_grad():
        pipe.transformer.proj_out.bias[0] += 1
    assert backbone.encoders_key() == key
    for change in (
        lambda p: p.vae.register_to_config(scaling_factor=0.5),
        lambda p: p.vae.encoder.conv_in.conv.weight.data.add_(1),
        lambda p: p.text_encoder.shared.weight.data.add_(1),
        lambda p: p.tokenizer.add_tokens(["zebra"]),
        lambda p: p.scheduler.register_to_config(beta_end=0.5),
        lambda p: p.vae.to(torch.bfloat16),
    ):
        other: Any = tiny_pipeline(0)
        assert backbone_for(other).encoders_key() == key
        change(other)
        assert backbone_for(other).encoders_key() != key
