"""Phrases share regions out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from matrix_video.perception.locate import Proposal, locate, overlap

FRAME = np.zeros((4, 8, 3), dtype=np.uint8)


def columns(*wanted: int) -> Any:
    mask_HW = np.zeros((4, 8), dtype=bool)
    mask_HW[:, list(wanted)] = True
    return mask_HW


class Listed:
    """A finder that proposes what it is told."""

    def __init__(self, **known: list[tuple[Any, float]]) -> None:
        self.known = known

    def propose(self, frame_HW3: Any, phrases: Sequence[str]) -> list[list[Proposal]]:
        return [[Proposal(mask, score) for mask, score in self.known[p]] for p in phrases]


def test_the_sum_of_scores_decides_and_no_region_is_given_twice() -> None:
    left, right = columns(0, 1, 2, 3), columns(4, 5)
    finder = Listed(man=[(left, 0.9), (right, 0.8)], boy=[(columns(0, 1, 2), 0.7)], dog=[])
    found = locate(finder, FRAME, {"id1": "man", "id2": "boy", "id3": "dog"})
    # The man is likelier on the left, but nobody else can be the boy there.
    assert found["id1"].proposal is not None
    assert (found["id1"].proposal.mask_HW == right).all()
    assert found["id2"].proposal is not None
    assert (found["id2"].proposal.mask_HW == columns(0, 1, 2)).all()
    assert (found["id3"].proposal, found["id3"].reason) == (None, "no region")


def test_twins_are_two_and_the_third_of_two_is_nobody() -> None:
    finder = Listed(man=[(columns(0), 0.9), (columns(5), 0.5), (columns(), 1.0)])
    found = locate(finder, FRAME, dict.fromkeys(("id1", "id2", "id3"), "man"))
    masks = {one.proposal.mask_HW.tobytes() for one in found.values() if one.proposal}
    assert masks == {columns(0).tobytes(), columns(5).tobytes()}
    assert [one.reason for one in found.values() if one.proposal is None] == [
        "every region was another phrase's"
    ]


def test_an_empty_mask_is_no_region() -> None:
    found = locate(Listed(man=[(columns(), 0.9)]), FRAME, {"id1": "man"})
    assert found["id1"].reason == "no region"


def test_nothing_and_mistakes() -> None:
    assert locate(Listed(), FRAME, {}) == {}
    assert overlap(columns(), columns()) == 0
    assert overlap(columns(0, 1), columns(1, 2)) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match=r"expected uint8 \[H,W,3\], got float64 \(4, 8\)"):
        locate(Listed(), np.zeros((4, 8)), {"id1": "man"})  # pyright: ignore[reportArgumentType]
