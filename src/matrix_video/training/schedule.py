"""What happens at which step: the order of samples and the learning rate.

Nothing here has a state, so a resumed run and a run on more processes draw the same numbers.
"""

from __future__ import annotations

import torch

from matrix_video.backbones.seeds import keyed_generator


def batch_indices(step: int, *, samples: int, batch: int, seed: int) -> list[tuple[int, int]]:
    """(sample, epoch) pairs of update ``step`` (from 0).

    Each epoch is one permutation of all samples; an epoch that ends within a batch is followed by
    the next. A sample occurs once an epoch, so (sample, epoch) can key its noise.
    """
    first = step * batch
    chosen: list[tuple[int, int]] = []
    for epoch in range(first // samples, (first + batch - 1) // samples + 1):
        order = torch.randperm(samples, generator=keyed_generator(seed, "order", epoch)).tolist()
        start, end = max(first - epoch * samples, 0), min(first + batch - epoch * samples, samples)
        chosen += [(index, epoch) for index in order[start:end]]
    return chosen


def warmup_factor(step: int, warmup: int) -> float:
    """Factor of the learning rate in update ``step`` (from 0): linear to 1, then constant."""
    return min(1.0, (step + 1) / warmup) if warmup else 1.0
