"""What happens in a clip, before any pixel: actors, their paths, the event timeline.

Positions are pixels, x to the right and y downwards, of shape [T,2]; T frames.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.sample import Category
from matrix_video.world.palette import RADII

Path2 = NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """Class, colour and size: all that a phrase can say of an instance."""

    noun: str
    colour: str
    size: str

    @property
    def radius(self) -> float:
        return RADII[self.size]


@dataclass(frozen=True)
class Actor:
    """One instance: how it looks, where it is, how it is stretched, what it hides.

    ``depth`` orders overlap: a larger depth is drawn over a smaller one.
    """

    look: Look
    path_T2: Path2
    stretch_T2: Path2
    depth: int

    @classmethod
    def rigid(cls, look: Look, path_T2: Path2, depth: int) -> Actor:
        return cls(look, path_T2, np.ones_like(path_T2), depth)


@dataclass(frozen=True)
class Timeline:
    """Frames at which an interaction's approach and contact begin; ``end`` is its last frame."""

    approach: int
    contact: int
    end: int


@dataclass(frozen=True)
class Event:
    """Indices of subject and object among the actors, the verb, and when it happens."""

    verb: str
    subject: int
    object: int
    timeline: Timeline


@dataclass(frozen=True)
class Scene:
    """Everything a renderer and a captioner need. ``motions`` say what lone actors do."""

    actors: tuple[Actor, ...]
    events: tuple[Event, ...]
    background: tuple[int, int, int]
    shade: float
    motions: tuple[str, ...] = field(default=())

    def key(self) -> str:
        """Hash of all that decides the pixels: equal keys mean equal clips."""
        digest = hashlib.sha256(repr((self.background, round(self.shade, 6))).encode())
        for actor in self.actors:
            digest.update(repr((actor.look, actor.depth)).encode())
            digest.update(np.round(actor.path_T2, 4).tobytes())
            digest.update(np.round(actor.stretch_T2, 4).tobytes())
        return digest.hexdigest()[:20]


@dataclass(frozen=True)
class Verb:
    """What language says of a verb; its physics is in ``physics``."""

    base: str
    category: Category
    bidirectional: bool
    contact: int
    dynamism: int
    present: tuple[str, ...]
    progressive: tuple[str, ...]
    passive: tuple[str, ...]


VERBS: dict[str, Verb] = {
    verb.base: verb
    for verb in (
        Verb("hit", "contact", False, 4, 5, ("hits", "strikes"), ("hitting",), ("hit", "struck")),
        Verb("bump", "contact", True, 4, 4, ("bump into", "collide with"), ("bumping into",), ()),
        Verb("push", "force", False, 5, 4, ("pushes", "shoves"), ("pushing",), ("pushed",)),
        Verb("pull", "force", False, 5, 4, ("pulls", "drags"), ("pulling",), ("pulled",)),
        Verb("carry", "transport", False, 5, 4, ("carries",), ("carrying",), ("carried",)),
        Verb(
            "squash",
            "manipulation",
            False,
            5,
            3,
            ("squashes", "flattens"),
            ("squashing",),
            ("squashed",),
        ),
        Verb("chase", "social", False, 1, 5, ("chases", "follows"), ("chasing",), ("chased",)),
        Verb("hug", "social", True, 5, 2, ("hug", "embrace"), ("hugging",), ()),
    )
}
