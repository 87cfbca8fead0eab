"""Which region of a picture each phrase means.

Shapes: H rows, W columns, 3 channels; I phrases, R regions. Pixels are counted from the upper left.

A finder proposes regions for every phrase by itself: a detector that is given several phrases at
once loses some of them. What is left is to decide, over all phrases together, so that two people do
not become one (our choice; the paper lets a vision-language model match crops to ids).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

SAME_REGION: Final = 0.7
"""Intersection over union from which two proposals are one region."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """A region that may be what a phrase means."""

    mask_HW: NDArray[np.bool_]
    score: float
    """Confidence in [0,1]; comparable within one finder alone."""


@dataclass(frozen=True, eq=False)
class Found:
    """What a phrase was decided to mean."""

    phrase: str
    proposal: Proposal | None
    reason: str | None = None
    """Why nothing was found; None where something was."""


class Finder(Protocol):
    """Proposes regions."""

    def propose(self, frame_HW3: NDArray[np.uint8], phrases: Sequence[str]) -> list[list[Proposal]]:
        """For each phrase the regions that it may mean, in any order; none where there are none."""
        ...


def locate(
    finder: Finder, frame_HW3: NDArray[np.uint8], phrases: Mapping[str, str]
) -> dict[str, Found]:
    """The region of each phrase, by the keys of ``phrases``; no region is given twice.

    Of all ways to share the regions out, the one of the largest sum of scores. Regions are one from
    an overlap of `SAME_REGION`: a part of an instance may still go to another phrase. Raises
    ``ValueError`` for a frame of another shape or dtype.
    """
    if frame_HW3.ndim != 3 or frame_HW3.shape[2] != 3 or frame_HW3.dtype != np.uint8:
        raise ValueError(f"expected uint8 [H,W,3], got {frame_HW3.dtype} {frame_HW3.shape}")
    if not phrases:
        return {}
    proposals = finder.propose(frame_HW3, list(phrases.values()))
    regions: list[NDArray[np.bool_]] = []
    entries: list[tuple[int, int, Proposal]] = []
    for row, each in enumerate(proposals):
        for proposal in sorted(each, key=lambda one: -one.score):
            if not proposal.mask_HW.any():
                continue
            column = _region(regions, proposal.mask_HW)
            entries.append((row, column, proposal))
    best: dict[tuple[int, int], Proposal] = {}
    for row, column, proposal in entries:
        best.setdefault((row, column), proposal)
    scores_IR = np.zeros((len(phrases), len(regions)))
    for place, proposal in best.items():
        scores_IR[place] = proposal.score
    chosen = dict(zip(*linear_sum_assignment(scores_IR, maximize=True), strict=True))
    found: dict[str, Found] = {}
    for row, (key, phrase) in enumerate(phrases.items()):
        proposal = best.get((row, chosen.get(row, -1)))
        reason = None
        if proposal is None:
            known = any(place[0] == row for place in best)
            reason = "every region was another phrase's" if known else "no region"
        found[key] = Found(phrase, proposal, reason)
    return found


def overlap(left_HW: NDArray[np.bool_], right_HW: NDArray[np.bool_]) -> float:
    """Intersection over union; 0 for two empty masks."""
    union = np.logical_or(left_HW, right_HW).sum()
    return float(np.logical_and(left_HW, right_HW).sum() / union) if union else 0.0


def _region(regions: list[NDArray[np.bool_]], mask_HW: NDArray[np.bool_]) -> int:
    """Index of the region that ``mask_HW`` is, which is added where there is none."""
    for index, known_HW in enumerate(regions):
        if overlap(known_HW, mask_HW) >= SAME_REGION:
            return index
    regions.append(mask_HW)
    return len(regions) - 1
