import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from matrix_video.evaluation.oracle.silhouette import Box, Template, centroid

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
