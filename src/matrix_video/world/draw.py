"""Draw a scene: who is there, what they do, and bystanders that do not spoil it.

Everything is drawn from one generator by rejection, so a seed is a scene. Lengths are pixels.
"""

from __future__ import annotations

import math

import numpy as np

from matrix_video.world.palette import (
    BACKGROUNDS,
    CLASSES,
    COLOURS,
    FRAME_SIZE,
    NUM_FRAMES,
    RADII,
)
from matrix_video.world.physics import PHYSICS, Draft, ramp
from matrix_video.world.scene import VERBS, Actor, Event, Look, Path2, Scene
from matrix_video.world.splits import Bin, triple_bin

_COLOUR_NAMES = tuple(COLOURS)
_SIZES = tuple(RADII)
_ATTEMPTS = 400
_BYSTANDER_ATTEMPTS = 30


def _look(rng: np.random.Generator) -> Look:
    return Look(
        CLASSES[rng.integers(len(CLASSES))],
        _COLOUR_NAMES[rng.integers(len(_COLOUR_NAMES))],
        _SIZES[rng.integers(len(_SIZES))],
    )


def _inside(path_T2: Path2, radius: float) -> bool:
    low, high = float(path_T2.min()), float(path_T2.max())
    return low >= 0.95 * radius and high <= FRAME_SIZE - 0.95 * radius


def _pair(rng: np.random.Generator, verb: str, wanted: Bin) -> tuple[Look, Look, Draft]:
    """Two looks of a wanted triple and a draft that stays inside the frame."""
    while True:
        subject, object_ = _look(rng), _look(rng)
        if subject.colour == object_.colour:  # a touching pair of one colour has no visible border
            continue
        if triple_bin(verb, subject, object_) != wanted:
            continue
        for _ in range(_ATTEMPTS):
            draft = PHYSICS[verb](rng, subject, object_)
            start = np.hypot(*(draft.subject_T2[0] - draft.object_T2[0]))
            if (
                start > 1.15 * (subject.radius + object_.radius)
                and _inside(draft.subject_T2, subject.radius)
                and _inside(draft.object_T2, object_.radius)
            ):
                return subject, object_, draft


def _bystander_look(rng: np.random.Generator, others: list[Look]) -> Look:
    """Often of a participant's class, so that only its appearance tells the two apart."""
    while True:
        look = _look(rng)
        if rng.random() < 0.6:
            twin = others[rng.integers(len(others))]
            look = Look(twin.noun, look.colour, look.size)
            if rng.random() < 0.15:  # same class and colour: only the size tells them apart
                other_size = _SIZES[1 - _SIZES.index(twin.size)]
                look = Look(twin.noun, twin.colour, other_size)
        if look not in others:
            return look


def _bystander_path(rng: np.random.Generator, look: Look, motion: str) -> Path2:
    place = rng.uniform(look.radius, FRAME_SIZE - look.radius, size=2)
    path_T2 = np.repeat(place[None], NUM_FRAMES, axis=0)
    if motion == "stays":
        return path_T2
    angle = rng.uniform(0, 2 * math.pi)
    u = np.array([math.cos(angle), math.sin(angle)])
    if motion == "drifts":
        path_T2 = path_T2 + ramp(0, NUM_FRAMES - 1)[:, None] * u * rng.uniform(6, 12)
        return np.clip(path_T2, look.radius, FRAME_SIZE - look.radius)
    # Leaves: straight out through the nearest edge, gone before the clip ends.
    edges = np.array([place[0], place[1], FRAME_SIZE - place[0], FRAME_SIZE - place[1]])
    nearest = int(edges.argmin())
    u = np.array([(-1.0, 0.0), (0.0, -1.0), (1.0, 0.0), (0.0, 1.0)][nearest])
    distance = edges[nearest] + 1.3 * look.radius
    return path_T2 + ramp(1, int(rng.integers(9, 13)))[:, None] * u * distance


def _clear(path_T2: Path2, radius: float, others: list[Actor], *, may_hide: bool) -> bool:
    """Whether an actor on this path touches no other: at the start, or ever."""
    for other in others:
        distance_T = np.hypot(*(path_T2 - other.path_T2).T)
        needed = 1.12 * (radius + other.look.radius)
        if distance_T[0] < needed:
            return False
        if not may_hide and float(distance_T.min()) < needed:
            return False
    return True


def _add_bystanders(
    rng: np.random.Generator, actors: list[Actor], count: int
) -> tuple[list[Actor], list[str]]:
    motions = ["acts"] * len(actors)
    for _ in range(count):
        look = _bystander_look(rng, [actor.look for actor in actors])
        motion = str(rng.choice(["stays", "drifts", "leaves"], p=[0.6, 0.22, 0.18]))
        # A passer-by may hide a participant for a while; it then lies on top.
        fresh = look.colour not in {actor.look.colour for actor in actors}
        may_hide = motion == "stays" and fresh and rng.random() < 0.3
        for _ in range(_BYSTANDER_ATTEMPTS):
            path_T2 = _bystander_path(rng, look, motion)
            if _clear(path_T2, look.radius, actors, may_hide=may_hide):
                depth = 10 + len(actors) if may_hide else -len(actors)
                actors.append(Actor.rigid(look, path_T2, depth))
                motions.append(motion)
                break
    return actors, motions


def _setting(rng: np.random.Generator) -> tuple[tuple[int, int, int], float]:
    return BACKGROUNDS[rng.integers(len(BACKGROUNDS))], float(rng.uniform(-8, 8))


def draw_interaction(rng: np.random.Generator, wanted: Bin) -> Scene:
    """Two to four instances, two of which interact."""
    background, shade = _setting(rng)
    verb = tuple(VERBS)[rng.integers(len(VERBS))]
    subject, object_, draft = _pair(rng, verb, wanted)
    object_depth = 2 if draft.object_on_top else 0
    actors = [
        Actor.rigid(subject, draft.subject_T2, 1),
        Actor(object_, draft.object_T2, draft.stretch_T2, object_depth),
    ]
    count = int(rng.choice([0, 1, 2], p=[0.15, 0.6, 0.25]))
    actors, motions = _add_bystanders(rng, actors, count)
    # The order of the list must not tell who acts.
    order = [int(i) for i in rng.permutation(len(actors))]
    where = {old: new for new, old in enumerate(order)}
    return Scene(
        actors=tuple(actors[i] for i in order),
        events=(Event(verb, where[0], where[1], draft.timeline),),
        background=background,
        shade=shade,
        motions=tuple(motions[i] for i in order),
    )


def draw_lone(rng: np.random.Generator) -> Scene:
    """One to three instances of which at most one moves, and nobody interacts (base only)."""
    background, shade = _setting(rng)
    look = _look(rng)
    heading = int(rng.integers(4))
    u = np.array([(-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0)][heading])
    while True:
        start = rng.uniform(look.radius, FRAME_SIZE - look.radius, size=2)
        path_T2 = start + ramp(0, int(rng.integers(11, 16)))[:, None] * u * rng.uniform(10, 30)
        if _inside(path_T2, look.radius):
            break
    actors, motions = _add_bystanders(
        rng, [Actor.rigid(look, path_T2, 1)], int(rng.choice([0, 1, 2], p=[0.3, 0.5, 0.2]))
    )
    motions[0] = ("moves left", "moves right", "moves up", "moves down")[heading]
    return Scene(tuple(actors), (), background, shade, tuple(motions))
