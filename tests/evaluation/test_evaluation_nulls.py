"""Null rows: frozen, exchanged, drifting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.evaluation.nulls import derangement, drifting, frozen
from matrix_video.world.clips import make_clip


def test_frozen_holds_the_first_frame() -> None:
    frames = make_clip(0, "val", 0).frames_THWC
    held = frozen(frames)
    assert held.shape == frames.shape
    assert (held == frames[0]).all()


@given(st.integers(2, 60), st.integers(0, 5))
def test_nobody_keeps_its_own_clip(count: int, seed: int) -> None:
    partner = derangement(count, seed)
    assert sorted(partner) == list(range(count))
    assert all(i != j for i, j in enumerate(partner))


def test_one_prompt_has_no_other() -> None:
    with pytest.raises(ValueError, match="no other prompt"):
        derangement(1, 0)


def test_drift_moves_whole_instances_straight() -> None:
    clip = make_clip(0, "val", 4)
    masks = [mask_THW[0] for mask_THW in clip.masks_RTHW]
    moved = drifting(clip.frames_THWC[0], masks, 17, seed=1)
    again = drifting(clip.frames_THWC[0], masks, 17, seed=1)
    assert np.array_equal(moved, again)
    # Inside the masks the first frame is the original; the last one differs.
    union = np.logical_or.reduce(masks)
    assert np.array_equal(moved[0][union], clip.frames_THWC[0][union])
    assert not np.array_equal(moved[-1], moved[0])
    # The drift leaves no hole: where an instance was, there is background.
    grey = np.ptp(moved[-1].astype(int), axis=-1) < 30
    assert grey.mean() > 0.5
