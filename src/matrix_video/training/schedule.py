"""What happens at which step: the order of samples and the learning rate.

Everything follows from the seed and the step, so a resumed run and a run on more processes draw the
same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal

import torch

from matrix_video.backbones.seeds import keyed_generator
from matrix_video.services.errors import MatrixError

Decay = Literal["constant", "cosine"]


class Order:
    """Which samples an update takes, all of one bucket: clips of one shape.

    Each epoch of a bucket is one permutation of its samples; an epoch that ends within an update is
    followed by the next. A sample occurs once an epoch, so (sample, epoch) can key its noise.
    Buckets take turns in proportion to their sizes, whichever is furthest behind (our choice).
    """

    def __init__(self, buckets: Sequence[Hashable], *, batch: int, seed: int) -> None:
        """``buckets[i]`` is the bucket of sample i."""
        self.batch, self.seed = batch, seed
        members: dict[Hashable, list[int]] = {}
        for index, bucket in enumerate(buckets):
            members.setdefault(bucket, []).append(index)
        self._members = list(members.values())
        self._turns: list[tuple[int, int]] = []
        self._taken = [0] * len(self._members)

    def update(self, step: int) -> list[tuple[int, int]]:
        """(sample, epoch) pairs of update ``step`` (from 0)."""
        while len(self._turns) <= step:
            self._turns.append(self._next_turn())
        bucket, turn = self._turns[step]
        members = self._members[bucket]
        first = turn * self.batch
        last = first + self.batch
        chosen: list[tuple[int, int]] = []
        for epoch in range(first // len(members), (last - 1) // len(members) + 1):
            generator = keyed_generator(self.seed, "order", epoch)
            order = torch.randperm(len(members), generator=generator).tolist()
            start = max(first - epoch * len(members), 0)
            end = min(last - epoch * len(members), len(members))
            chosen += [(members[place], epoch) for place in order[start:end]]
        return chosen

    def _next_turn(self) -> tuple[int, int]:
        updates = len(self._turns) + 1
        total = sum(len(members) for members in self._members)
        behind = [
            updates * len(members) - taken * total
            for members, taken in zip(self._members, self._taken, strict=True)
        ]
        bucket = behind.index(max(behind))
        turn = self._taken[bucket]
        self._taken[bucket] += 1
        return bucket, turn


def rate_factor(step: int, *, warmup: int, steps: int, decay: Decay = "constant") -> float:
    """Factor of the learning rate in update ``step`` (from 0): linear to 1, then constant, or half
    a cosine that would reach 0 in update ``steps``."""
    if step < warmup:
        return (step + 1) / warmup
    if decay == "constant" or steps <= warmup:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def donors(clips: Sequence[tuple[int, int, int]]) -> list[list[int]]:
    """Whose masks each sample gets, epoch by epoch: all others of its shape in turn."""
    members: dict[tuple[int, int, int], list[int]] = {}
    for index, clip in enumerate(clips):
        members.setdefault(clip, []).append(index)
    found: list[list[int]] = []
    for index, clip in enumerate(clips):
        same = members[clip]
        if len(same) < 2:
            raise MatrixError(
                f"only one clip is of shape {clip}, so none can lend it masks",
                remedy="give more clips, or train without --shuffle-masks",
                field="shuffle_masks",
            )
        place = same.index(index)
        found.append(same[place + 1 :] + same[:place])
    return found
