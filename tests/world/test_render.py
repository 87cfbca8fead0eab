"""Pixels and masks agree."""

import numpy as np
import pytest

from matrix_video.world.clips import WorldClip
from matrix_video.world.palette import CLASSES, COLOURS, RADII
from matrix_video.world.render import render
from matrix_video.world.scene import Actor, Look, Scene


def _still(*actors: Actor) -> Scene:
    return Scene(actors, (), (236, 236, 236), 0.0)


def _at(look: Look, x: float, y: float, depth: int = 0) -> Actor:
    return Actor.rigid(look, np.tile([x, y], (17, 1)).astype(float), depth)


@pytest.mark.parametrize("noun", CLASSES)
@pytest.mark.parametrize("size", list(RADII))
def test_every_instance_is_at_least_two_tokens_across(noun: str, size: str) -> None:
    _, masks_RTHW = render(_still(_at(Look(noun, "red", size), 32, 32)))
    rows, columns = np.nonzero(masks_RTHW[0, 0])
    assert np.ptp(rows) + 1 >= 16
    assert np.ptp(columns) + 1 >= 16
    assert abs(columns.mean() + 0.5 - 32) < 0.5


def test_masks_are_disjoint_and_coloured(val_clips: list[WorldClip]) -> None:
    for clip in val_clips[:40]:
        assert (clip.masks_RTHW.sum(0) <= 1).all()
        for actor, masks_THW in zip(clip.scene.actors, clip.masks_RTHW, strict=True):
            colour = np.array(COLOURS[actor.look.colour], dtype=float)
            pixels = clip.frames_THWC[masks_THW].astype(float)
            exact = (np.abs(pixels - colour).max(1) <= 1).mean() if len(pixels) > 60 else 1.0
            assert exact > 0.6  # all but the anti-aliased rim


def test_pixels_outside_all_masks_are_background(val_clips: list[WorldClip]) -> None:
    for clip in val_clips[:40]:
        free_THW = ~clip.masks_RTHW.any(0)
        spread = np.ptp(clip.frames_THWC[free_THW].astype(int), axis=1)
        assert (spread < 40).mean() > 0.93  # grey but for rims


def test_the_upper_actor_hides_the_lower() -> None:
    red, blue = Look("box", "red", "large"), Look("ball", "blue", "small")
    _, under = render(_still(_at(red, 30, 30, 1), _at(blue, 36, 30, 0)))
    _, over = render(_still(_at(red, 30, 30, 0), _at(blue, 36, 30, 1)))
    _, alone = render(_still(_at(red, 30, 30)))
    assert np.array_equal(under[0], alone[0])
    assert under[1].sum() < over[1].sum()
    assert np.array_equal(under.any(0), over.any(0))


def test_an_actor_outside_the_frame_has_no_mask() -> None:
    _, masks_RTHW = render(_still(_at(Look("star", "cyan", "small"), -40, 30)))
    assert not masks_RTHW.any()


def test_stretch_squashes_the_mask() -> None:
    look = Look("box", "green", "large")
    flat = Actor(look, np.full((17, 2), 32.0), np.tile([1.25, 0.5], (17, 1)), 0)
    _, masks_RTHW = render(_still(flat))
    rows, columns = np.nonzero(masks_RTHW[0, 0])
    assert np.ptp(rows) + 1 == 10
    assert np.ptp(columns) + 1 == 24
