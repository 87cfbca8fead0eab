"""The builder of random pipelines."""

from __future__ import annotations

from typing import Any

import torch

from matrix_video.backbones.tiny import tiny_pipeline, tiny_tokenizer


def weights(pipe: Any) -> torch.Tensor:
    parts = (pipe.vae, pipe.transformer, pipe.text_encoder)
    return torch.cat([p.flatten() for part in parts for p in part.parameters()])


def test_random_by_seed_alone() -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again, other = (weights(tiny_pipeline(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_vocabulary_and_length() -> None:
    tokenizer: Any = tiny_tokenizer(["Red", "ball", "red"], text_length=6)
    found = tokenizer("A RED ball!", padding="max_length", truncation=True, max_length=6)
    words = tokenizer.convert_ids_to_tokens(found["input_ids"])
    assert words == ["<unk>", "red", "ball", "<unk>", "</s>", "<pad>"]
    assert tokenizer.model_max_length == 6
    pipe: Any = tiny_pipeline(vocab=["red"], text_length=6)
    assert pipe.text_encoder.config.vocab_size == len(pipe.tokenizer) == 4
    assert pipe.transformer.config.max_text_seq_length == 6


def test_sizes() -> None:
    pipe: Any = tiny_pipeline(layers=3, heads=4, head_dim=32, latent_channels=8, size=64, i2v=False)
    config = pipe.transformer.config
    assert (config.num_layers, config.num_attention_heads, config.attention_head_dim) == (3, 4, 32)
    assert (config.in_channels, config.out_channels, config.sample_width) == (8, 8, 16)
