import itertools

import numpy as np
import pytest
from scipy import ndimage

from matrix_video.evaluation.oracle.geometry import Pair, meets, settles
from matrix_video.evaluation.oracle.silhouette import Expectation, Template, claim, has_blob
from matrix_video.evaluation.oracle.tracker import track
from matrix_video.evaluation.oracle.tracks import Presence
from matrix_video.world.clips import make_clip
from matrix_video.world.palette import COLOURS

from .conftest import degrade

_WHITE = (232, 232, 232)


def _disc(x, y, radius=8.0):
    rows, columns = np.mgrid[:64, :64] + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def _film(*layers, frames=10):
    """Frames from layers (colour, function of t → (x, y) or None), later ones on top."""
    film_THW3 = np.full((frames, 64, 64, 3), _WHITE, dtype=np.uint8)
    for colour, where in layers:
        for t in range(frames):
            place = where(t)
            if place is not None:
                film_THW3[t][_disc(*place)] = COLOURS[colour]
    return film_THW3


def _stay(x, y):
    return lambda t: (x, y)


@pytest.mark.parametrize("degraded", [False, True])
def test_clips_are_followed_to_within_a_pixel_and_nothing_is_flagged(degraded):
    errors = []
    for index in range(12):
        clip = make_clip(5, "val", index)
        frames_THWC = degrade(clip.frames_THWC, index) if degraded else clip.frames_THWC
        tracking = track(frames_THWC, list(clip.masks_RTHW[:, 0]))
        assert not tracking.emergence_T.any()
        assert not tracking.disappearance_T.any()
        squashed = clip.scene.events[0].object if clip.scene.events[0].verb == "squash" else None
        for index_r, (found, actor) in enumerate(
            zip(tracking.tracks, clip.scene.actors, strict=True)
        ):
            assert not found.broken_T.any()
            seen_T = np.array([p is Presence.SEEN for p in found.presence_T])
            if index_r != squashed:  # whose silhouette is no longer that of the first frame
                way_T2 = found.centre_T2 - found.centre_T2[0]
                true_T2 = actor.path_T2 - actor.path_T2[0]
                errors += np.hypot(*(way_T2 - true_T2).T)[seen_T].tolist()
    assert np.median(errors) < 0.3
    assert np.percentile(errors, 99) < 2.0


def test_one_that_leaves_has_left_and_one_that_is_covered_is_hidden():
    film = _film(
        ("red", _stay(30, 30)),
        ("green", lambda t: (52 + 3 * t, 50)),
        ("blue", lambda t: (10 + 5 * min(t, 4), 30)),
    )
    tracking = track(film, [_disc(30, 30), _disc(52, 50), _disc(10, 30)])
    red, green, blue = tracking.tracks
    assert red.presence_T[-1] is Presence.HIDDEN
    np.testing.assert_allclose(red.centre_T2[-1], [30, 30], atol=1.5)
    assert green.presence_T[-1] is Presence.LEFT
    assert set(blue.presence_T) == {Presence.SEEN}
    assert not tracking.disappearance_T.any()
    assert not tracking.emergence_T.any()


def test_one_that_vanishes_in_the_open_has_gone():
    film = _film(("red", lambda t: (30, 30) if t < 4 else None), ("blue", _stay(12, 12)))
    tracking = track(film, [_disc(30, 30), _disc(12, 12)])
    assert tracking.tracks[0].presence_T == [Presence.SEEN] * 4 + [Presence.GONE] * 6
    assert tracking.disappearance_T.tolist() == [False] * 4 + [True] * 6


_RESTS = {
    "middle": lambda x, y, share: _disc(x, y, 8 * share**0.5),
    "rim": lambda x, y, share: ~_disc(x, y, 8 * (1 - share) ** 0.5),
    "left": lambda x, y, share: _columns() < x - 8 + _LEAST[share],
    "right": lambda x, y, share: _columns() > x + 8 - _LEAST[share],
}
_LEAST = {0.25: 4.8, 0.35: 6.1, 0.45: 7.3, 0.6: 9.2}
"""Columns of a disc of radius 8 that make this share."""


def _columns():
    return np.mgrid[:64, :64][1] + 0.5


@pytest.mark.parametrize("share", _LEAST)
@pytest.mark.parametrize(  # a right part beside another is how one looks that goes behind it
    ("rest", "beside"),
    [*itertools.product(["middle", "rim", "left"], [None, 16, 14]), ("right", None)],
)
def test_less_than_half_of_an_instance_has_melted_and_is_a_disappearance(rest, share, beside):
    """Whatever is left of it, in the open and where it could be thought to hide."""
    layers = [("red", lambda t: (24 + t, 30))]
    masks = [_disc(24, 30)]
    if beside is not None:  # another travels with it, close by or over it
        layers.append(("blue", lambda t: (24 + t + beside, 30)))
        masks = [masks[0] & ~_disc(24 + beside, 30), _disc(24 + beside, 30)]
    film = _film(*layers)
    for t in range(5, 10):
        gone_HW = _disc(24 + t, 30) & ~_RESTS[rest](24 + t, 30, share)
        gone_HW &= (film[t] == COLOURS["red"]).all(axis=-1)
        film[t][gone_HW] = _WHITE
    tracking = track(film, masks)
    red = tracking.tracks[0]
    assert set(red.presence_T[:5]) == {Presence.SEEN}
    lost = share < 0.5
    assert set(red.presence_T[5:]) <= (
        {Presence.MELTED, Presence.GONE} if lost else {Presence.SEEN}
    )
    assert red.broken_T.tolist() == [False] * 5 + [lost] * 5
    assert tracking.disappearance_T.tolist() == [False] * 5 + [lost] * 5
    assert not tracking.emergence_T.any()
    if beside is None and rest != "rim":
        np.testing.assert_allclose(red.left_T[5:], share, atol=0.06)


def test_one_that_swallows_another_has_melted_and_the_other_is_not_merely_hidden():
    film = _film(("red", _stay(24, 30)), ("green", lambda t: (40, 30)))
    for t in range(4, 10):
        film[t][_disc(40, 30)] = COLOURS["red"]
        film[t][26:34, 24:40] = COLOURS["red"]
    tracking = track(film, [_disc(24, 30), _disc(40, 30)])
    red, green = tracking.tracks
    assert green.presence_T[-1] is Presence.GONE
    assert red.broken_T[-1] or tracking.emergence_T[-1]


_STRANGERS = {
    "own colour": COLOURS["red"],
    "palette": COLOURS["green"],
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "white": (255, 255, 255),
    "orange": (255, 140, 0),
    "pink": (255, 160, 160),
    "brown": (110, 70, 30),
}


@pytest.mark.parametrize(
    ("colour", "place"),
    [("own colour", (45, 45)), *itertools.product([*_STRANGERS][1:], [(45, 45), (25, 25)])],
)
def test_what_is_neither_background_nor_an_instance_emerges(colour, place):
    """In the open and partly over an instance."""
    film = _film(("red", _stay(20, 20)))
    film[6:, :, :][:, _disc(*place)] = _STRANGERS[colour]
    if place == (25, 25):
        film[6:, :, :][:, _disc(20, 20, 6)] = COLOURS["red"]
    tracking = track(film, [_disc(20, 20)])
    assert tracking.emergence_T.tolist() == [False] * 6 + [True] * 4
    assert not tracking.disappearance_T.any()
    if place == (45, 45):
        np.testing.assert_allclose(tracking.tracks[0].centre_T2[-1], [20, 20], atol=0.1)


_RNG = np.random.default_rng(0)
_FLASHES = {
    "white": lambda frame: np.full_like(frame, 255),
    "black": np.zeros_like,
    "green": lambda frame: np.broadcast_to(np.uint8(COLOURS["green"]), frame.shape),
    "darker": lambda frame: frame * 0.8,
    "brighter": lambda frame: np.minimum(frame + 20.0, 255),
    "half black": lambda frame: frame * 0.5,
    "negative": lambda frame: 255 - frame,
    "uniform noise": lambda frame: _RNG.integers(0, 256, frame.shape),
    "gaussian noise": lambda frame: np.clip(frame + _RNG.normal(0, 25, frame.shape), 0, 255),
    "salt and pepper": lambda f: np.where(_RNG.random((64, 64, 1)) < 0.1, 0, f),
}


@pytest.mark.parametrize("flash", _FLASHES)
@pytest.mark.parametrize("behind", [True, False])
def test_a_flash_and_another_background_emerge(flash, behind):
    """Of the whole frame, or behind the instances alone; for one frame."""
    film = _film(("red", lambda t: (20 + 2 * t, 30)), ("blue", _stay(50, 50)))
    kept_HW = (_disc(30, 30) | _disc(50, 50)) if behind else np.zeros((64, 64), bool)
    film[5][~kept_HW] = _FLASHES[flash](film[5])[~kept_HW].astype(np.uint8)
    tracking = track(film, [_disc(20, 30), _disc(50, 50)])
    assert tracking.emergence_T.tolist() == [t == 5 for t in range(10)]


def test_a_leap_is_the_same_instance_but_cannot_be_believed():
    film = _film(("red", lambda t: (15, 15) if t < 5 else (45, 45)))
    tracking = track(film, [_disc(15, 15)])
    assert tracking.tracks[0].leaps_T.tolist() == [False] * 5 + [True] + [False] * 4
    assert not tracking.emergence_T.any()
    assert not tracking.disappearance_T.any()


def test_twins_that_touch_and_part_keep_their_identities():
    film = _film(
        ("red", lambda t: (18 + min(t, 4), 30)),
        ("red", lambda t: (46 - min(2 * t, 12), 30 + max(t - 6, 0) * 3)),
    )
    one, two = track(film, [_disc(18, 30), _disc(46, 30)]).tracks
    assert not one.broken_T.any()
    assert not two.broken_T.any()
    np.testing.assert_allclose(two.centre_T2[-1], [34, 39], atol=2.0)


def _expect(x, y, radius=8, *, at=None, seen=True):
    template = Template.cut(_disc(x, y, radius))
    place = template.start if at is None else np.array(at, dtype=float)
    return Expectation(template, place, seen)


def _cut_in_two():
    mask_HW = _disc(30, 30, 9)
    mask_HW[:, 28:32] = False
    return mask_HW


_NOTHING_HW = np.zeros((64, 64), dtype=bool)
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


def test_the_first_frame_is_never_flagged_but_says_if_it_shows_nothing():
    film = np.full((4, 64, 64, 3), _WHITE, dtype=np.uint8)
    film[:, 40:60, 40:60] = COLOURS["blue"]
    tracking = track(film, [_disc(20, 20), _disc(50, 50)])
    assert not tracking.emergence_T[0]
    assert not tracking.disappearance_T[0]
    assert tracking.tracks[0].presence_T[0] is not Presence.SEEN
    assert tracking.tracks[1].presence_T[0] is Presence.SEEN


@pytest.mark.parametrize(
    ("way", "touches"),
    [
        (lambda t: 33.4 + 3 * abs(4 - t), [4]),  # outlines never meet, and yet it turns there
        (lambda t: 33.4 + 3 * max(4 - t, 0), []),  # comes as near, and stays
        (lambda t: 39 + 3 * abs(4 - t), []),
    ],
)
def test_a_brush_is_a_near_miss_at_a_turning_point_and_nothing_else(way, touches):
    film = _film(("red", _stay(14, 32)), ("blue", lambda t: (way(t), 32)), frames=9)
    pair = Pair(*track(film, [_disc(14, 32), _disc(way(0), 32)]).tracks)
    assert np.flatnonzero(pair.touch_T).tolist() == touches


def test_gaps_are_background_between_outlines_and_two_settle_where_they_come_closest():
    way = (44, 38, 34, 30, 30.2, 29.9)
    film = _film(("red", _stay(14, 32)), ("blue", lambda t: (way[t], 32)), frames=6)
    pair = Pair(*track(film, [_disc(14, 32), _disc(44, 32)]).tracks)
    for t in (1, 2, 3):
        # Independent of rims: the distance of every pixel to the other mask.
        away_HW = ndimage.distance_transform_edt(~pair.a.body_THW[t])
        assert pair.gap_T[t] == pytest.approx(away_HW[pair.b.body_THW[t]].min() - 1)
    assert [settles(pair, 1, until) for until in (5, 2)] == [3, 2]


def test_meeting_needs_having_been_apart():
    assert meets(np.array([True, True, True])) is None
    assert meets(np.array([True, False, False, True])) == 3
    assert meets(np.array([False, False])) is None


def test_a_thin_seam_is_no_blob_whatever_its_length():
    seam_HW = np.zeros((64, 64), dtype=bool)
    seam_HW[10:12, 2:62] = True
    assert not has_blob(seam_HW, 60)
    assert has_blob(_disc(30, 30, 8), 60)
    assert not has_blob(_disc(30, 30, 8), 400)
