"""Null rows: exchanged, drifting."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.evaluation.references import derangement, drifting
from matrix_video.world.clips import make_clip


@given(st.integers(2, 60), st.integers(0, 5))
def test_nobody_keeps_its_own_clip(count: int, seed: int) -> None:
    partner = derangement(count, seed)
    assert sorted(partner) == list(range(count))
    assert all(i != j for i, j in enumerate(partner))


def _centres(frames_THWC: np.ndarray, mask_HW: np.ndarray) -> np.ndarray:
    """Centre (row, column) in each frame of the pixels of an instance's own colour."""
    colour = np.median(frames_THWC[0][mask_HW], axis=0)
    own_THW = np.abs(frames_THWC.astype(int) - colour).max(axis=-1) <= 2
    return np.array([np.argwhere(own_HW).mean(axis=0) for own_HW in own_THW])


def test_drift_moves_each_instance_straight_and_leaves_background() -> None:
    clip = make_clip(0, "val", 4)
    masks = [mask_THW[0] for mask_THW in clip.masks_RTHW]
    first_HWC = clip.frames_THWC[0]
    moved = drifting(first_HWC, masks, 17, "1")
    assert np.array_equal(moved, drifting(first_HWC, masks, 17, "1"))
    assert not np.array_equal(moved, drifting(first_HWC, masks, 17, "2"))
    union = np.logical_or.reduce(masks)
    assert np.array_equal(moved[0][union], first_HWC[union])
    background = np.median(first_HWC[~union], axis=0)
    for mask_HW in masks:
        step_T2 = np.diff(_centres(moved, mask_HW), axis=0)
        assert np.hypot(*step_T2.sum(axis=0)) > 3
        # Whole pixels are pasted, so a straight way wavers by less than one of them.
        line_T2 = np.linspace(0, 1, 17)[1:, None] * step_T2.sum(axis=0)
        inside = np.abs(_centres(moved, mask_HW)[1:] - 32).max() < 20  # not stopped by the border
        assert not inside or np.abs(np.cumsum(step_T2, axis=0) - line_T2).max() < 1.5
    # Where instances were and none is now, there is background and no ghost.
    now_HW = np.abs(moved[-1].astype(int) - background).max(axis=-1) > 25
    left_HW = union & ~now_HW
    assert left_HW.sum() > 50
    assert now_HW.sum() < 1.15 * union.sum()
