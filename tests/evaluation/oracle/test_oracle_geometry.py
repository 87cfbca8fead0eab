import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from matrix_video.evaluation.oracle.geometry import (
    Cast,
    Pair,
    meets,
    sets_in,
    settles,
)
from matrix_video.evaluation.oracle.silhouette import Template
from matrix_video.evaluation.oracle.tracks import Presence, Track


def _disc(x, y, radius=8.0):
    rows, columns = np.mgrid[:64, :64] + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def _track(*places, radius=8.0):
    """A disc that is at these places, whole and seen."""
    masks_THW = np.stack([_disc(*place, radius) for place in places])
    return Track(
        template=Template.cut(masks_THW[0]),
        centre_T2=np.array(places, dtype=float),
        height_T=np.full(len(places), 2 * radius),
        seen_THW=masks_THW,
        body_THW=masks_THW,
        presence_T=(Presence.SEEN,) * len(places),
        leaps_T=np.zeros(len(places), dtype=bool),
        left_T=np.ones(len(places)),
    )


@given(st.floats(10, 54), st.floats(10, 54), st.floats(10, 54), st.floats(10, 54))
def test_gaps_are_the_background_between_two_outlines(ax, ay, bx, by):
    pair = Pair(_track((ax, ay), radius=6), _track((bx, by), radius=7))
    # Independent of rims: the distance of every pixel to the other mask.
    one_HW, two_HW = pair.a.body_THW[0], pair.b.body_THW[0]
    dense = float(ndimage.distance_transform_edt(~one_HW)[two_HW].min())
    expected = max(dense - 1, 0)
    if pair.gap_T[0] < 8:
        assert pair.gap_T[0] == pytest.approx(expected)
    else:  # far apart only a lower bound is taken
        assert 8 <= pair.gap_T[0] <= expected + 1e-9


def test_outlines_touch_by_a_seam_or_a_notch_and_one_that_is_away_touches_nobody():
    a, gone = _track((20, 20)), _track((20, 20))
    gone.body_THW[0] = False
    touches = [Pair(a, _track((x, 20))).touch_T[0] for x in (36.9, 44)]
    assert touches == [True, False]
    assert Pair(gone, _track((30, 20))).gap_T[0] == np.inf
    assert not Pair(gone, _track((30, 20))).touch_T[0]


def test_a_brush_is_a_near_miss_at_a_turning_point_and_nothing_else():
    still = _track(*[(10.0, 32.0)] * 9)
    closest = 26 + 3.4  # no contact by outline
    turning = _track(*[(closest + 3.0 * abs(4 - t), 32.0) for t in range(9)])
    staying = _track(*[(max(closest, closest + 3.0 * (4 - t)), 32.0) for t in range(9)])
    assert np.flatnonzero(Pair(still, turning).touch_T).tolist() == [4]
    assert not Pair(still, staying).touch_T.any()
    far = _track(*[(26 + 9 + 3.0 * abs(4 - t), 32.0) for t in range(9)])
    assert not Pair(still, far).touch_T.any()


def test_a_pair_is_made_once_and_its_reverse_shares_the_gaps():
    a, b, c = _track((20, 20)), _track((40, 20)), _track((20, 50))
    cast = Cast(a, b, (c,))
    assert cast.pair(a, b) is cast.pair(a, b)
    assert cast.pair(b, a).gap_T is cast.pair(a, b).gap_T
    np.testing.assert_allclose(cast.pair(b, a).offset_T2, -cast.pair(a, b).offset_T2)


def test_sets_in_finds_the_start_of_a_change_that_lasts_until_it_is_large():
    values = np.array([0.0, 2.5, 0.5, 0.2, 2.1, 3.0, 5.0, 1.0])
    assert sets_in(values, 2.0, 4.0) == 4
    assert sets_in(values, 2.0, 6.0) is None
    assert sets_in(np.array([3.0, 5.0]), 2.0, 4.0) == 0


def test_meeting_needs_having_been_apart():
    assert meets(np.array([True, True, True])) is None
    assert meets(np.array([True, False, False, True])) == 3
    assert meets(np.array([False, False])) is None


def test_two_settle_where_they_come_closest_first():
    a = _track(*[(10.0, 32.0)] * 6)
    b = _track(*[(x, 32.0) for x in (40.0, 34.0, 30.0, 26.0, 26.2, 25.9)])
    assert settles(Pair(a, b), 1, 5) == 3
    assert settles(Pair(a, b), 1, 2) == 2
