import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from matrix_video.evaluation.oracle.silhouette import (
    Box,
    Expectation,
    Template,
    centroid,
    claim,
    has_blob,
    parts_of,
)

_SIZE = (64, 64)


def _disc(x, y, radius):
    rows, columns = np.mgrid[:64, :64] + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def test_a_box_is_half_open():
    mask_HW = np.zeros(_SIZE, dtype=bool)
    mask_HW[3:7, 10:15] = True
    box = Box.of(mask_HW)
    assert (box.left, box.top, box.right, box.bottom) == (10, 3, 15, 7)
    assert (box.width, box.height) == (5, 4)
    np.testing.assert_allclose(box.centre, [12.5, 5.0])
    np.testing.assert_allclose(centroid(mask_HW), [12.5, 5.0])


def test_placing_at_the_start_gives_the_mask_back():
    mask_HW = _disc(20, 30, 8)
    mask_HW[30:, 20:] = False
    template = Template.cut(mask_HW)
    np.testing.assert_array_equal(template.place(template.start, _SIZE), mask_HW)
    np.testing.assert_allclose(template.start + template.lean, centroid(mask_HW))


@given(dx=st.integers(-70, 70), dy=st.integers(-70, 70))
def test_placing_elsewhere_shifts_and_cuts_at_the_border(dx, dy):
    mask_HW = _disc(32, 32, 9)
    template = Template.cut(mask_HW)
    shifted_HW = np.zeros(_SIZE, dtype=bool)
    rows, columns = np.nonzero(mask_HW)
    inside = (rows + dy >= 0) & (rows + dy < 64) & (columns + dx >= 0) & (columns + dx < 64)
    shifted_HW[rows[inside] + dy, columns[inside] + dx] = True
    np.testing.assert_array_equal(
        template.place(template.start + np.array([dx, dy]), _SIZE), shifted_HW
    )


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


def test_a_fit_follows_out_of_the_frame():
    template = Template.cut(_disc(12, 32, 9))
    own_HW = _disc(3, 32, 9)
    found = template.fit(own_HW, ~own_HW, np.array([5.0, 32.0]))
    np.testing.assert_allclose(found, [3, 32], atol=1.0)


def test_a_fit_far_outside_the_frame_does_not_fail():
    template = Template.cut(_disc(12, 32, 9))
    nothing_HW = np.zeros(_SIZE, dtype=bool)
    found = template.fit(nothing_HW, ~nothing_HW, np.array([-400.0, 900.0]))
    assert np.isfinite(found).all()


def test_near_and_reach_grow_by_their_margins():
    template = Template.cut(_disc(32, 32, 9))
    placed, near, reach = (
        getattr(template, name)(template.start, _SIZE) for name in ("place", "near", "reach")
    )
    assert Box.of(near).width == Box.of(placed).width + 4
    assert Box.of(reach).width == Box.of(placed).width + 10
    assert (near >= placed).all()
    assert (reach >= near).all()


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
