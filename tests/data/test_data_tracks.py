from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from matrix_video.data.tracks import MaskTrack, State, first_masks, resize_masks, run_lengths

masks = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.bool_, shape)
)


@given(masks, st.sets(st.integers(0, 3)))
def test_masks_and_states_round_trip(masks_THW: np.ndarray, hidden: set[int]) -> None:
    unknown = [t for t in hidden if t < len(masks_THW)]
    track = MaskTrack.from_masks(masks_THW, unknown)
    for t, mask_HW in enumerate(masks_THW):
        if t in unknown:
            wanted, mask_HW = State.UNKNOWN, np.zeros_like(mask_HW)
        else:
            wanted = State.VISIBLE if mask_HW.any() else State.ABSENT
        assert track.states[t] is wanted
        assert np.array_equal(track.mask(t), mask_HW)
    assert np.array_equal(track.masks(), np.stack([track.mask(t) for t in range(len(track))]))


@pytest.mark.parametrize(
    ("size", "share"), [((150, 200), 0.001), ((150, 200), 0.03), ((150, 200), 0.5), ((2, 3), 0.9)]
)
def test_run_lengths_are_those_of_the_mask(size: tuple[int, int], share: float) -> None:
    mask_HW = np.random.default_rng(0).random(size) < share
    counts = MaskTrack.from_masks(mask_HW[None]).rles[0]
    assert counts is not None
    runs = run_lengths(counts)  # column by column, background first
    assert np.array_equal(np.repeat(np.arange(len(runs)) % 2, runs), mask_HW.T.ravel())
    for broken, problem in (
        (counts + "o", "in the middle of a number"),
        (counts[:1] + "!" + counts[2:], "holds the character '!'"),
        ("o" * 300 + "0", "a number without end"),
        (counts + "@" * 200, "holds a run of -"),
    ):
        with pytest.raises(ValueError, match=problem):
            run_lengths(broken)


def test_frames_are_taken_in_any_order_and_the_first_are_seen() -> None:
    masks_THW = np.zeros((3, 2, 2), dtype=bool)
    masks_THW[0, 0, 0] = masks_THW[2, 1, 1] = True
    seen = MaskTrack.from_masks(masks_THW, unknown=[1])
    taken = seen.take([2, 2, 0, 1])
    assert taken.states == (State.VISIBLE, State.VISIBLE, State.VISIBLE, State.UNKNOWN)
    assert np.array_equal(taken.masks(), masks_THW[[2, 2, 0, 1]])
    late, unknown = MaskTrack.from_masks(masks_THW[1:]), seen.take([1])
    found = first_masks({"late": late, "seen": seen, "unknown": unknown})
    assert list(found) == ["seen"]
    assert np.array_equal(found["seen"], masks_THW[0])


def counts_of(mask_HW: np.ndarray) -> str:
    return coco.encode(np.asfortranarray(mask_HW.astype(np.uint8)))["counts"].decode()


FULL = counts_of(np.ones((4, 5), dtype=bool))
EMPTY = counts_of(np.zeros((4, 5), dtype=bool))


@pytest.mark.parametrize(
    ("states", "rles", "message"),
    [
        ([State.VISIBLE], [], "1 states but 0 masks"),
        ([State.VISIBLE], [None], "frame 0 is visible but mask is None"),
        ([State.ABSENT], [FULL], "frame 0 is absent but mask is"),
        ([State.UNKNOWN], [FULL], "frame 0 is unknown but mask is"),
        ([State.VISIBLE], [EMPTY], "frame 0 is visible but its mask is empty"),
        (
            [State.ABSENT, State.VISIBLE],
            [None, counts_of(np.ones((4, 6), dtype=bool))],
            "frame 1: RLE covers 24 pixels, not 4x5 = 20",
        ),
    ],
)
def test_contradictions_are_refused(
    states: list[State], rles: list[str | None], message: str
) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        MaskTrack(4, 5, tuple(states), tuple(rles))


def test_no_frames_are_taken_and_no_pixels_refused() -> None:
    assert MaskTrack.from_masks(np.zeros((0, 3, 4), dtype=bool)).masks().shape == (0, 3, 4)
    with pytest.raises(ValueError, match="masks of 0x5"):
        MaskTrack(0, 5, (), ())
    with pytest.raises(ValueError, match=r"expected bool \[T,H,W\], got uint8"):
        MaskTrack.from_masks(np.zeros((1, 2, 2), dtype=np.uint8))


# Resizing


def covered_by_hand(mask_HW: np.ndarray, size: tuple[int, int]) -> list[list[Fraction]]:
    """Covered share of each cell by exact rational geometry, a pixel at a time."""
    height, width = mask_HW.shape

    def shared(cell: int, cells: int, pixel: int, pixels: int) -> Fraction:
        low = max(Fraction(cell * pixels, cells), Fraction(pixel))
        high = min(Fraction((cell + 1) * pixels, cells), Fraction(pixel + 1))
        return max(Fraction(0), high - low)

    full = Fraction(height * width, size[0] * size[1])
    return [
        [
            sum(
                (
                    shared(y, size[0], i, height) * shared(x, size[1], j, width)
                    for i in range(height)
                    for j in range(width)
                    if mask_HW[i, j]
                ),
                Fraction(0),
            )
            / full
            for x in range(size[1])
        ]
        for y in range(size[0])
    ]


sides = st.integers(1, 9)


@given(st.data(), sides, sides, sides, sides)
def test_resizing_is_exact(
    data: st.DataObject, height: int, width: int, rows: int, cols: int
) -> None:
    masks_THW = data.draw(arrays(np.bool_, (2, height, width)))
    for mask_HW, found in zip(masks_THW, resize_masks(masks_THW, (rows, cols)), strict=True):
        shares = covered_by_hand(mask_HW, (rows, cols))
        wanted = np.array([[share >= Fraction(1, 2) for share in row] for row in shares])
        best = max(max(row) for row in shares)
        if not wanted.any() and best > 0:
            y, x = next((y, x) for y in range(rows) for x in range(cols) if shares[y][x] == best)
            wanted[y, x] = True
        assert np.array_equal(found, wanted)


def test_large_masks_are_cut_exactly() -> None:
    """More pixels than float32 can count: a cell that is half a pixel short of one half."""
    mask_THW = np.zeros((1, 5793, 5799), dtype=bool)
    mask_THW[0, :, 2900:] = True
    mask_THW[0].T.flat[:8398401] = True  # of the left cell's 16796803.5 pixels
    mask_THW[0, 0, 2899] = True  # which lies half in it
    assert resize_masks(mask_THW, (1, 2)).tolist() == [[[False, True]]]
