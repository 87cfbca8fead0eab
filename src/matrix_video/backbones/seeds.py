"""Randomness that depends on names alone, so that batching, order and resuming change nothing."""

from __future__ import annotations

import hashlib

import torch


def keyed_generator(*key: int | str) -> torch.Generator:
    """A CPU generator that depends on ``key`` alone, e.g. (seed, sample id, purpose)."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
