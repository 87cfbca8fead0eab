import numpy as np

from matrix_video.evaluation.oracle.assignment import Expectation, claim, has_blob, parts_of
from matrix_video.evaluation.oracle.silhouette import Template


def _disc(x, y, radius):
    rows, columns = np.mgrid[:64, :64] + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


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


def test_a_blob_goes_to_the_instance_at_whose_place_it_lies():
    claims = claim([_expect(15, 20), _expect(45, 20)], _disc(44, 22, 8))
    assert claims[0].sum() == 0
    np.testing.assert_array_equal(claims[1], _disc(44, 22, 8))


def test_touching_twins_are_parted_between_their_centres():
    left_HW, right_HW = _disc(20, 30, 8), _disc(36, 30, 8)
    claims = claim([_expect(20, 30), _expect(36, 30)], left_HW | right_HW)
    assert (claims[0] & left_HW).sum() >= 0.95 * left_HW.sum()
    assert (claims[1] & right_HW).sum() >= 0.95 * right_HW.sum()
    assert not (claims[0] & claims[1]).any()


def test_twins_of_two_sizes_are_parted_where_they_meet():
    large_HW, small_HW = _disc(22, 30, 12), _disc(40, 30, 6)
    claims = claim([_expect(22, 30, 12), _expect(40, 30, 6)], large_HW | small_HW)
    assert (claims[0] & large_HW).sum() >= 0.95 * large_HW.sum()
    assert (claims[1] & small_HW).sum() >= 0.9 * small_HW.sum()


def test_an_instance_that_is_nowhere_near_is_found_where_it_leapt():
    claims = claim([_expect(12, 12)], _disc(50, 50, 8))
    np.testing.assert_array_equal(claims[0], _disc(50, 50, 8))


def test_one_that_is_there_does_not_take_a_second_blob_elsewhere():
    claims = claim([_expect(12, 12)], _disc(12, 12, 8) | _disc(50, 50, 8))
    np.testing.assert_array_equal(claims[0], _disc(12, 12, 8))


def test_a_lost_twin_takes_nothing_from_one_that_is_there():
    whole_HW = _disc(30, 30, 8)
    claims = claim([_expect(30, 30), _expect(30, 30, at=(36, 30), seen=False)], whole_HW)
    np.testing.assert_array_equal(claims[0], whole_HW)
    assert not claims[1].any()


def test_fragments_of_one_that_an_occluder_cuts_in_two_stay_together():
    cut_HW = _disc(30, 30, 9)
    cut_HW[:, 28:32] = False
    claims = claim([_expect(30, 30, 9)], cut_HW)
    np.testing.assert_array_equal(claims[0], cut_HW)
