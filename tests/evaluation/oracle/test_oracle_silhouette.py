import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matrix_video.evaluation.oracle.silhouette import (
    Expectation,
    Template,
    centroid,
    claim,
    has_blob,
    parts_of,
    paste,
)

_SIZE = (64, 64)


def _disc(x, y, radius):
    rows, columns = np.mgrid[:64, :64] + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


@given(dx=st.integers(-70, 70), dy=st.integers(-70, 70))
def test_placing_elsewhere_shifts_and_cuts_at_the_border(dx, dy):
    mask_HW = _disc(32, 32, 9)
    mask_HW[32:, 32:] = False
    template = Template.cut(mask_HW)
    np.testing.assert_allclose(template.start + template.lean, centroid(mask_HW))
    shifted_HW = np.zeros(_SIZE, dtype=bool)
    rows, columns = np.nonzero(mask_HW)
    inside = (rows + dy >= 0) & (rows + dy < 64) & (columns + dx >= 0) & (columns + dx < 64)
    shifted_HW[rows[inside] + dy, columns[inside] + dx] = True
    placed_HW = paste(template.mask_hw, template.start + np.array([dx, dy]), _SIZE)
    np.testing.assert_array_equal(placed_HW, shifted_HW)


@settings(max_examples=40)
@given(
    dx=st.integers(-6, 6),
    dy=st.integers(-6, 6),
    cut=st.integers(0, 9),
    side=st.sampled_from(["left", "top"]),
)
def test_a_fit_finds_the_whole_silhouette_behind_an_occluder(dx, dy, cut, side):
    template = Template.cut(_disc(32, 32, 9))
    true_HW = _disc(32 + dx, 32 + dy, 9)
    hidden_HW = np.zeros(_SIZE, dtype=bool)
    if side == "left":  # an occluder covers the first columns of the disc
        hidden_HW[:, : 32 + dx - 9 + cut] = True
    else:
        hidden_HW[: 32 + dy - 9 + cut] = True
    own_HW = true_HW & ~hidden_HW
    found = template.fit(own_HW, ~own_HW & ~hidden_HW, template.start)
    assert np.hypot(*(found - (template.start + np.array([dx, dy])))) <= 1.5


def test_a_fit_follows_out_of_the_frame_and_far_outside_it_does_not_fail():
    template = Template.cut(_disc(12, 32, 9))
    own_HW = _disc(3, 32, 9)
    found = template.fit(own_HW, ~own_HW, np.array([5.0, 32.0]))
    np.testing.assert_allclose(found, [3, 32], atol=1.0)
    nothing_HW = np.zeros(_SIZE, dtype=bool)
    assert np.isfinite(template.fit(nothing_HW, ~nothing_HW, np.array([-400.0, 900.0]))).all()


def _expect(x, y, radius=8, *, at=None, seen=True):
    template = Template.cut(_disc(x, y, radius))
    place = template.start if at is None else np.array(at, dtype=float)
    return Expectation(template, place, seen)


def test_parts_are_connected_over_corners_and_specks_are_left_out():
    mask_HW = np.zeros((64, 64), dtype=bool)
    mask_HW[2:6, 2:6] = mask_HW[6:9, 6:9] = True
    mask_HW[40, 40] = True
    parts = parts_of(mask_HW, 6)
    assert len(parts) == 1
    assert parts[0].sum() == 25


def test_a_thin_seam_is_no_blob_whatever_its_length():
    seam_HW = np.zeros((64, 64), dtype=bool)
    seam_HW[10:12, 2:62] = True
    assert not has_blob(seam_HW, 60)
    assert has_blob(_disc(30, 30, 8), 60)
    assert not has_blob(_disc(30, 30, 8), 400)


def _cut_in_two():
    mask_HW = _disc(30, 30, 9)
    mask_HW[:, 28:32] = False
    return mask_HW


_NOTHING_HW = np.zeros(_SIZE, dtype=bool)
_CLAIMS = {
    "a blob goes to the instance at whose place it lies": (
        [_expect(15, 20), _expect(45, 20)],
        [_NOTHING_HW, _disc(44, 22, 8)],
    ),
    "touching twins are parted between their centres": (
        [_expect(20, 30), _expect(36, 30)],
        [_disc(20, 30, 8), _disc(36, 30, 8)],
    ),
    "twins of two sizes are parted where they meet": (
        [_expect(22, 30, 12), _expect(40, 30, 6)],
        [_disc(22, 30, 12), _disc(40, 30, 6)],
    ),
    "one that is nowhere near is found where it leapt": ([_expect(12, 12)], [_disc(50, 50, 8)]),
    "a lost twin takes nothing from one that is there": (
        [_expect(30, 30), _expect(30, 30, at=(36, 30), seen=False)],
        [_disc(30, 30, 8), _NOTHING_HW],
    ),
    "fragments of one that is cut in two stay together": ([_expect(30, 30, 9)], [_cut_in_two()]),
}


@pytest.mark.parametrize("case", _CLAIMS)
def test_whose_the_pixels_of_one_appearance_are(case):
    expected, shares = _CLAIMS[case]
    claims = claim(expected, np.logical_or.reduce(shares))
    assert np.sum(claims, axis=0).max() == 1
    for claimed_HW, share_HW in zip(claims, shares, strict=True):
        assert (claimed_HW & share_HW).sum() >= 0.9 * share_HW.sum()
        assert (claimed_HW & ~share_HW).sum() <= 0.1 * claimed_HW.sum()


def test_one_that_is_there_does_not_take_a_second_blob_elsewhere():
    claims = claim([_expect(12, 12)], _disc(12, 12, 8) | _disc(50, 50, 8))
    np.testing.assert_array_equal(claims[0], _disc(12, 12, 8))
