"""Colours and overlaps of merged images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from matrix_video.data.convert.merged import (
    can_paint,
    colours,
    default_plan,
    fit_plan,
    paint,
    render_merged,
)
from matrix_video.data.convert.png import Png, decode_png, encode_png
from matrix_video.data.tracks import MaskTrack

SIZE = (6, 7)
PALETTE = [(200, 0, 0), (0, 9, 0), (0, 0, 255), (7, 7, 7)]


def test_colours_are_distinct_and_begin_as_the_box_colours() -> None:
    many = colours(400)
    assert many[:6] == (
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 0),
        (255, 0, 255),
        (0, 255, 255),
    )
    assert len(set(many)) == 400
    assert (0, 0, 0) not in many
    assert colours(7) == many[:7]


def tracks_of(seed: int, count: int, frames: int) -> dict[str, MaskTrack]:
    rng = np.random.default_rng(seed)
    return {
        f"id{k + 1}": MaskTrack.from_masks(rng.random((frames, *SIZE)) < 0.5) for k in range(count)
    }


def picture(tracks: dict[str, MaskTrack], order: list[str], t: int) -> Png:
    """Painted by hand, in another way than the code does it: the topmost id of each pixel."""
    pixels = np.zeros((*SIZE, 3), dtype=np.uint8)
    masks = {name: track.mask(t) for name, track in tracks.items()}
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            here = [name for name in order if masks[name][row, column]]
            if here:
                pixels[row, column] = PALETTE[int(here[-1][2:]) - 1]
    return decode_png(encode_png("RGB", None, pixels), Path("merged.png"))


@given(
    seed=st.integers(0, 999),
    orders=st.lists(st.permutations(["id1", "id2", "id3", "id4"]), min_size=1, max_size=3),
)
@example(seed=324, orders=[["id3", "id2", "id4", "id1"]])  # id3 lies under others everywhere
def test_the_order_of_overlap_is_read(seed: int, orders: list[list[str]]) -> None:
    """Wherever each id can be seen; else a frame is either kept as it is, or made again."""
    tracks = tracks_of(seed, 4, len(orders))
    pngs = {t: picture(tracks, order, t) for t, order in enumerate(orders)}
    plan = fit_plan(pngs, tracks, len(orders), 3)
    shown = {tuple(value) for png in pngs.values() for value in png.pixels_HWC.reshape(-1, 3)}
    if shown >= set(PALETTE[:4]):
        assert "kept" not in plan.frames
    assert set(plan.masks) == {str(t) for t, how in enumerate(plan.frames) if how == "kept"}
    for t, png in pngs.items():
        if plan.frames[t] != "kept":
            again = decode_png(render_merged(plan, t, tracks), Path("merged.png"))
            assert np.array_equal(again.pixels_HWC, png.pixels_HWC)


def test_order_and_colours_by_hand() -> None:
    masks = np.zeros((2, 1, *SIZE), dtype=bool)
    masks[0, 0, 0:4, 0:4] = True
    masks[1, 0, 2:6, 2:6] = True
    tracks = {name: MaskTrack.from_masks(masks[k]) for k, name in enumerate(("id1", "id2"))}
    png = picture(tracks, ["id2", "id1"], 0)
    plan = fit_plan({0: png}, tracks, 1, 3)
    assert plan.orders == (("id2", "id1"),)
    assert plan.colours == {"id1": PALETTE[0], "id2": PALETTE[1]}
    assert plan.background == (0, 0, 0)


def test_an_id_without_a_pixel_of_its_own() -> None:
    masks = np.ones((2, 1, *SIZE), dtype=bool)
    masks[1, 0, :, 2:] = False
    tracks = {name: MaskTrack.from_masks(masks[k]) for k, name in enumerate(("id1", "id2"))}
    above = fit_plan({0: picture(tracks, ["id1", "id2"], 0)}, tracks, 1, 3)
    assert above.colours["id2"] == PALETTE[1]
    assert above.orders[0] == ("id1", "id2")
    hidden = fit_plan({0: picture(tracks, ["id2", "id1"], 0)}, tracks, 1, 3)
    assert hidden.frames == (0,)


def test_a_picture_that_is_no_painting_is_kept() -> None:
    tracks = tracks_of(0, 2, 2)
    noise = np.random.default_rng(5).integers(0, 256, (*SIZE, 3))
    pngs = {
        0: picture(tracks, ["id1", "id2"], 0),
        1: decode_png(encode_png("RGB", None, noise), Path("merged.png")),
    }
    plan = fit_plan(pngs, tracks, 2, 3)
    assert plan.frames == (0, "kept")
    assert set(plan.masks) == {"1"}


def test_the_default_leaves_out_frames_of_which_nothing_is_known() -> None:
    masks = np.ones((3, *SIZE), dtype=bool)
    tracks = {
        "id2000": MaskTrack.from_masks(masks, [1]),
        "id3": MaskTrack.from_masks(masks, [1, 2]),
    }
    plan = default_plan(tracks)
    assert plan is not None
    assert plan.frames == (0, None, 0)
    assert plan.orders == (("id3", "id2000"),)
    assert plan.colours == {"id3": (255, 0, 0), "id2000": (0, 255, 0)}
    pixels = paint(plan, plan.orders[0], {"id3": masks[0]}, SIZE)
    assert (pixels == (255, 0, 0)).all()
    assert default_plan({"id1": MaskTrack.from_masks(masks, [0, 1, 2])}) is None
    assert default_plan({}) is None
    more = tracks | {"id4": MaskTrack.from_masks(masks)}
    assert not can_paint(plan, 0, more)
    assert can_paint(plan, 0, tracks)
