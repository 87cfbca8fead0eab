from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from matrix_video.data.tracks import MaskTrack, State, first_masks, run_lengths

masks = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.bool_, shape)
)


def runs_by_hand(mask_HW: np.ndarray) -> list[int]:
    """Column by column, background first."""
    runs, current = [0], False
    for pixel in mask_HW.T.ravel():
        if bool(pixel) != current:
            runs.append(0)
            current = not current
        runs[-1] += 1
    return runs


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
        assert track.area(t) == mask_HW.sum()
    assert np.array_equal(track.masks(), np.stack([track.mask(t) for t in range(len(track))]))


@given(masks)
def test_run_lengths_are_those_of_the_mask(masks_THW: np.ndarray) -> None:
    track = MaskTrack.from_masks(masks_THW)
    for t, counts in enumerate(track.rles):
        if counts is not None:
            assert run_lengths(counts) == runs_by_hand(masks_THW[t])


def test_long_runs_take_several_digits() -> None:
    mask_HW = np.zeros((200, 300), dtype=bool)
    mask_HW[3:190, 40:250] = True
    counts = MaskTrack.from_masks(mask_HW[None]).rles[0]
    assert counts is not None
    assert run_lengths(counts) == runs_by_hand(mask_HW)


@pytest.mark.parametrize("share", [0.001, 0.03, 0.5])
def test_runs_of_long_strings(share: float) -> None:
    mask_HW = np.random.default_rng(0).random((150, 200)) < share
    counts = MaskTrack.from_masks(mask_HW[None]).rles[0]
    assert counts is not None
    assert run_lengths(counts) == runs_by_hand(mask_HW)
    for broken, problem in (
        (counts + "o", "in the middle of a number"),
        (counts[:90] + "!" + counts[91:] + "0" * 200, "holds the character"),
        ("o" * 300 + "0", "a number without end"),
        (counts + "@" * 200, "holds a run of -"),
    ):
        with pytest.raises(ValueError, match=problem):
            run_lengths(broken)


def test_take_repeats_and_reorders_frames() -> None:
    masks_THW = np.zeros((3, 2, 2), dtype=bool)
    masks_THW[0, 0, 0] = masks_THW[2, 1, 1] = True
    taken = MaskTrack.from_masks(masks_THW, unknown=[1]).take([2, 2, 0, 1])
    assert taken.states == (State.VISIBLE, State.VISIBLE, State.VISIBLE, State.UNKNOWN)
    assert np.array_equal(taken.masks(), masks_THW[[2, 2, 0, 1]])


def test_no_frames() -> None:
    track = MaskTrack.from_masks(np.zeros((0, 3, 4), dtype=bool))
    assert len(track) == 0
    assert track.masks().shape == (0, 3, 4)


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
        ([State.VISIBLE], ["0 d"], "frame 0: RLE holds the character ' '"),
        ([State.VISIBLE], [chr(48 + 33)], "ends in the middle of a number"),
        ([State.VISIBLE], [chr(48 + 31)], "holds a run of -1 pixels"),
    ],
)
def test_contradictions_are_refused(
    states: list[State], rles: list[str | None], message: str
) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        MaskTrack(4, 5, tuple(states), tuple(rles))


def test_other_refusals() -> None:
    with pytest.raises(ValueError, match="masks of 0x5"):
        MaskTrack(0, 5, (), ())
    with pytest.raises(ValueError, match=r"expected bool \[T,H,W\], got uint8"):
        MaskTrack.from_masks(np.zeros((1, 2, 2), dtype=np.uint8))


def test_first_masks_are_of_what_is_visible_there() -> None:
    masks_THW = np.zeros((2, 3, 3), dtype=bool)
    masks_THW[:, 1, 2] = True
    late_THW = masks_THW.copy()
    late_THW[0] = False
    found = first_masks(
        {
            "late": MaskTrack.from_masks(late_THW),
            "seen": MaskTrack.from_masks(masks_THW),
            "unknown": MaskTrack.from_masks(masks_THW, unknown=[0]),
        }
    )
    assert list(found) == ["seen"]
    assert np.array_equal(found["seen"], masks_THW[0])
