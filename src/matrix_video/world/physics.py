"""How each verb moves its two participants.

A verb's function draws geometry and returns the two paths, the object's stretch and the timeline.
It may return paths that leave the frame: the caller draws again. All lengths are pixels, all
times frame indices; T frames. Source: our choice (the paper films the real world).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from matrix_video.world.palette import FRAME_SIZE, NUM_FRAMES
from matrix_video.world.scene import Look, Path2, Timeline

TOUCH = 0.93
"""Centre distance at contact over the sum of radii: shapes visibly meet, whatever their outline."""

_TIMES = np.arange(NUM_FRAMES, dtype=np.float64)


@dataclass(frozen=True)
class Draft:
    """A drawn interaction: paths [T,2] of subject and object, stretch [T,2] of the object."""

    subject_T2: Path2
    object_T2: Path2
    timeline: Timeline
    stretch_T2: Path2 = field(default_factory=lambda: np.ones((NUM_FRAMES, 2)))
    object_on_top: bool = False


def ramp(start: int, stop: int, *, power: float = 1.0) -> np.ndarray:
    """[T] from 0 at ``start`` to 1 at ``stop``; ``power`` > 1 starts slowly, < 1 starts fast."""
    x = np.clip((_TIMES - start) / (stop - start), 0.0, 1.0)
    return x**power


def _direction(rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * math.pi)
    return np.array([math.cos(angle), math.sin(angle)])


def _place(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(9, FRAME_SIZE - 9, size=2)


def _path(origin: np.ndarray, *moves: tuple[np.ndarray, np.ndarray]) -> Path2:
    path_T2 = np.repeat(origin[None], NUM_FRAMES, axis=0)
    for weights_T, offset in moves:
        path_T2 = path_T2 + weights_T[:, None] * offset[None]
    return path_T2


def _gap(subject: Look, object_: Look) -> float:
    return TOUCH * (subject.radius + object_.radius)


def _shift(
    rng: np.random.Generator, subject: Look, object_: Look, *, way: float, wait: int, power: float
) -> Draft:
    """From contact on both move together: ``way`` 1 onwards, -1 back; ``wait`` frames after it."""
    u, b0 = _direction(rng), _place(rng)
    approach, effect = rng.uniform(7, 14), rng.uniform(10, 17)
    contact, end = int(rng.integers(5, 8)), int(rng.integers(14, 16))
    go, together = ramp(0, contact), ramp(contact + wait, end, power=power)
    a0 = b0 - u * (_gap(subject, object_) + approach)
    return Draft(
        _path(a0, (go, u * approach), (together, way * u * effect)),
        _path(b0, (together, way * u * effect)),
        Timeline(0, contact, end),
    )


def push(rng: np.random.Generator, subject: Look, object_: Look) -> Draft:
    return _shift(rng, subject, object_, way=1.0, wait=0, power=0.8)


def pull(rng: np.random.Generator, subject: Look, object_: Look) -> Draft:
    return _shift(rng, subject, object_, way=-1.0, wait=1, power=1.0)


def hit(rng: np.random.Generator, subject: Look, object_: Look) -> Draft:
    u, b0 = _direction(rng), _place(rng)
    approach, effect = rng.uniform(9, 15), rng.uniform(13, 19)
    contact, end = int(rng.integers(4, 7)), int(rng.integers(12, 15))
    go, fly = ramp(0, contact, power=1.4), ramp(contact, end, power=0.6)
    recoil = ramp(contact, contact + 3)
    a0 = b0 - u * (_gap(subject, object_) + approach)
    return Draft(
        _path(a0, (go, u * approach), (recoil, -u * 1.5)),
        _path(b0, (fly, u * effect)),
        Timeline(0, contact, end),
    )


def bump(rng: np.random.Generator, subject: Look, object_: Look) -> Draft:
    u, middle = _direction(rng), _place(rng)
    approach, recoil = rng.uniform(7, 11), rng.uniform(7, 11)
    contact, end = int(rng.integers(5, 8)), int(rng.integers(13, 16))
    go, back = ramp(0, contact), ramp(contact, end, power=0.7)
    half = _gap(subject, object_) / 2
    return Draft(
        _path(middle - u * (half + approach), (go, u * approach), (back, -u * recoil)),
        _path(middle + u * (half + approach), (go, -u * approach), (back, u * recoil)),
        Timeline(0, contact, end),
    )


def hug(rng: np.random.Generator, subject: Look, object_: Look) -> Draft:
    u, middle = _direction(rng), _place(rng)
    approach = rng.uniform(7, 11)
    contact = int(rng.integers(6, 9))
    go, sway = ramp(0, contact), np.sin(np.maximum(_TIMES - contact, 0) * (math.pi / 4)) * 2.0
    half = 0.86 * _gap(subject, object_) / 2  # an embrace overlaps a little
    side = np.array([-u[1], u[0]])
    return Draft(
        _path(middle - u * (half + approach), (go, u * approach), (sway, side)),
        _path(middle + u * (half + approach), (go, -u * approach), (sway, side)),
        Timeline(0, contact, NUM_FRAMES - 1),
    )


def carry(rng: np.random.Generator, subject: Look, object_: Look) -> Draft:
    """The subject comes under the object, which then rides on its upper half."""
    b0 = _place(rng)
    approach, effect = rng.uniform(8, 14), rng.uniform(12, 19)
    contact, end = int(rng.integers(5, 8)), int(rng.integers(14, 16))
    seat = b0 + np.array([0.0, 0.62 * (subject.radius + object_.radius)])
    came_from = math.radians(rng.uniform(-20, 200))  # beside or below, never through the object
    a0 = seat + approach * np.array([math.cos(came_from), math.sin(came_from)])
    away = math.radians(rng.choice([0, 180]) + rng.uniform(-30, 30))
    ride = np.array([math.cos(away), math.sin(away)]) * effect
    go, travel = ramp(0, contact), ramp(contact + 1, end)
    return Draft(
        _path(a0, (go, seat - a0), (travel, ride)),
        _path(b0, (travel, ride)),
        Timeline(0, contact, end),
        object_on_top=True,
    )


def squash(rng: np.random.Generator, subject: Look, object_: Look) -> Draft:
    """The subject comes down on the object, whose height halves; its underside stays in place."""
    b0 = _place(rng)
    approach = rng.uniform(7, 14)
    contact, end = int(rng.integers(5, 8)), int(rng.integers(11, 15))
    go, press = ramp(0, contact), ramp(contact, end)
    depth = 0.5 * object_.radius  # how far the centre sinks when the height halves
    a0 = b0 - np.array([rng.uniform(-3, 3), _gap(subject, object_) + approach])
    touch = b0 - np.array([0.0, _gap(subject, object_)])
    stretch_T2 = np.stack([1 + 0.25 * press, 1 - 0.5 * press], axis=1)
    down = np.array([0.0, 1.0])
    return Draft(
        _path(a0, (go, touch - a0), (press, 2 * depth * down)),
        _path(b0, (press, depth * down)),
        Timeline(0, contact, end),
        stretch_T2,
    )


def chase(rng: np.random.Generator, subject: Look, object_: Look) -> Draft:
    """The object flees, the subject follows in its track, gains on it and never touches."""
    u, b0 = _direction(rng), _place(rng)
    start_gap, end_gap = rng.uniform(7, 11), rng.uniform(2.0, 3.5)
    flight = rng.uniform(15, 22)
    start, end = 1, int(rng.integers(14, 16))
    flee, follow = ramp(start + 1, end), ramp(start, end)
    a0 = b0 - u * (subject.radius + object_.radius + start_gap)
    close = start + round(0.6 * (end - start))
    return Draft(
        _path(a0, (follow, u * (flight + start_gap - end_gap))),
        _path(b0, (flee, u * flight)),
        Timeline(start, close, end),
    )


PHYSICS: dict[str, Callable[[np.random.Generator, Look, Look], Draft]] = {
    "hit": hit,
    "bump": bump,
    "push": push,
    "pull": pull,
    "carry": carry,
    "squash": squash,
    "chase": chase,
    "hug": hug,
}
