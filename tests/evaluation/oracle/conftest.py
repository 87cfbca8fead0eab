"""Videos with planted failures, rendered to pixels, and what the judge needs beside them.

Each starts from a sound interaction between the named subject and object, with a bystander that
stays clear of both, and breaks one thing. The prompt always claims that all went well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from matrix_video.data.sample import Instance, Interaction, Sample
from matrix_video.data.tracks import MaskTrack
from matrix_video.world.palette import BACKGROUNDS, CLASSES, COLOURS, FRAME_SIZE, NUM_FRAMES, RADII
from matrix_video.world.physics import PHYSICS, Draft
from matrix_video.world.render import render
from matrix_video.world.scene import VERBS, Actor, Look, Path2, Scene

Failure = Literal[
    "none",
    "wrong agent",
    "wrong recipient",
    "no contact",
    "no effect",
    "vanished",
    "duplicated",
    "identity swap",
    "another verb",
    "stranger",
    "noise",
    "melted",
]

SHOWN = {
    "push": "pull",
    "pull": "push",
    "hit": "push",
    "bump": "hug",
    "carry": "push",
    "squash": "push",
    "chase": "squash",
    "hug": "bump",
}
"""What the video shows where the prompt's verb fails as "another verb"."""

_APART = 8.0  # pixels that must be left between two that do not touch
_SUBJECT, _OBJECT, _OTHER = 0, 1, 2


@dataclass(frozen=True)
class Case:
    """A video uint8 [T,H,W,3] with its prompt."""

    frames_THWC: NDArray[np.uint8]
    tracks: dict[str, MaskTrack]
    sample: Sample


def _looks(rng: np.random.Generator) -> list[Look]:
    colours = rng.permutation(list(COLOURS))[:3]
    return [
        Look(str(rng.choice(CLASSES)), str(colour), str(rng.choice(list(RADII))))
        for colour in colours
    ]


def _stands(place: NDArray[np.float64]) -> Path2:
    return np.repeat(place[None], NUM_FRAMES, axis=0)


def _inside(path_T2: Path2, look: Look) -> bool:
    low, high = float(path_T2.min()), float(path_T2.max())
    return low >= look.radius and high <= FRAME_SIZE - look.radius


def _away(one_T2: Path2, two_T2: Path2) -> NDArray[np.float64]:
    return np.hypot(*(one_T2 - two_T2).T)


def _without_contact(verb: str, draft: Draft) -> tuple[Path2, Path2]:
    """Both do as they should, but a good way apart from each other."""
    at = draft.timeline.contact
    a_T2, b_T2 = draft.subject_T2, draft.object_T2
    if verb == "chase":  # the subject follows and never gains
        return a_T2[:1] + (b_T2 - b_T2[:1]), b_T2
    u = (b_T2[at] - a_T2[at]) / np.hypot(*(b_T2[at] - a_T2[at]))
    back = u * (_APART + 3.0)
    if verb == "carry":  # it stops short on its way to the place beneath
        back = 1.8 * _APART * (a_T2[at] - a_T2[0]) / np.hypot(*(a_T2[at] - a_T2[0]))
    if VERBS[verb].bidirectional:
        return a_T2 - back / 2, b_T2 + back / 2
    return a_T2 - back, b_T2


def _without_effect(verb: str, draft: Draft) -> tuple[Path2, Path2]:
    """The subject comes, and nothing follows from it."""
    at = draft.timeline.contact
    a_T2, b_T2 = draft.subject_T2.copy(), draft.object_T2.copy()
    if verb == "chase":  # the object does not stir; the subject stops short of it
        gap = np.hypot(*(b_T2 - a_T2).T)
        way = (gap[0] - gap[-1]) * (a_T2[-1] - a_T2[0]) / np.hypot(*(a_T2[-1] - a_T2[0]))
        steps = np.clip(np.arange(NUM_FRAMES) / 10, 0, 1)[:, None]
        return a_T2[:1] + steps * way, _stands(b_T2[0])
    if verb == "hug":  # they bounce off instead of staying together
        for path_T2 in (a_T2, b_T2):
            back = path_T2[: at + 1][::-1]
            path_T2[at:] = back[np.minimum(3 * np.arange(NUM_FRAMES - at), at)]
        return a_T2, b_T2
    a_T2[at:] = a_T2[at]
    b_T2[at:] = b_T2[at]
    return a_T2, b_T2 if VERBS[verb].bidirectional else _stands(b_T2[0])


def _draw(rng: np.random.Generator, verb: str, failure: Failure) -> tuple[Scene, int] | None:
    """A scene of subject, object and bystander, and the frame of contact; None: draw again."""
    looks = _looks(rng)
    agent = _OTHER if failure == "wrong agent" else _SUBJECT
    patient = _OTHER if failure == "wrong recipient" else _OBJECT
    idle = ({_SUBJECT, _OBJECT, _OTHER} - {agent, patient}).pop()
    shown = SHOWN[verb] if failure == "another verb" else verb
    draft = PHYSICS[shown](rng, looks[agent], looks[patient])
    a_T2, b_T2, stretch_T2 = draft.subject_T2, draft.object_T2, draft.stretch_T2
    if failure == "no contact":
        a_T2, b_T2 = _without_contact(verb, draft)
    elif failure == "no effect":
        a_T2, b_T2 = _without_effect(verb, draft)
        stretch_T2 = np.ones_like(stretch_T2)
    rest_T2 = _stands(rng.uniform(11, FRAME_SIZE - 11, size=2))
    if not (_inside(a_T2, looks[agent]) and _inside(b_T2, looks[patient])):
        return None
    apart = 1.1 if shown == "carry" else 1.35
    if _away(a_T2, b_T2)[0] < apart * (looks[agent].radius + looks[patient].radius):
        return None
    for path_T2, look in ((a_T2, looks[agent]), (b_T2, looks[patient])):
        if _away(path_T2, rest_T2).min() < 1.35 * (look.radius + looks[idle].radius):
            return None
    if failure == "wrong recipient":  # nor does the agent come nearer to the one that is named
        away_T = _away(a_T2, rest_T2)
        if away_T[0] - away_T.min() > 1.0 or np.hypot(*(b_T2[-1] - rest_T2[0])) < 25:
            return None
    actors = {
        agent: Actor.rigid(looks[agent], a_T2, 1),
        patient: Actor(looks[patient], b_T2, stretch_T2, 2 if draft.object_on_top else 0),
        idle: Actor.rigid(looks[idle], rest_T2, -1),
    }
    background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    ordered = tuple(actors[index] for index in range(3))
    scene = Scene(ordered, (), background, float(rng.uniform(-8, 8)))
    reach = looks[agent].radius + looks[patient].radius
    wide = failure == "no contact" and verb != "chase"
    if wide and _away(a_T2, b_T2).min() < 0.6 * reach + _APART:  # spare rendering hopeless ones
        return None
    gaps_T = _gaps(scene)
    if wide and gaps_T.min() < _APART:
        return None
    if shown != "carry" and gaps_T[:2].min() < 4.0:
        return None
    return scene, draft.timeline.contact


def _gaps(scene: Scene) -> NDArray[np.float64]:
    """Pixels [T] between the outlines of subject and object."""
    _, masks_RTHW = render(scene)
    gaps = [
        float(ndimage.distance_transform_edt(~subject_HW)[object_HW].min())
        for subject_HW, object_HW in zip(masks_RTHW[_SUBJECT], masks_RTHW[_OBJECT], strict=True)
    ]
    return np.array(gaps)


def _with(scene: Scene, index: int, actor: Actor) -> Scene:
    actors = list(scene.actors)
    actors[index] = actor
    return replace(scene, actors=tuple(actors))


def _far() -> Path2:
    return np.full((NUM_FRAMES, 2), -100.0)


def _later(scene: Scene, failure: Failure, rng: np.random.Generator) -> Scene | None:
    """What the frames from the break on are rendered from; None: there is no room."""
    subject, object_ = scene.actors[_SUBJECT], scene.actors[_OBJECT]
    if failure in ("vanished", "melted"):
        return _with(scene, _OBJECT, replace(object_, path_T2=_far()))
    if failure == "identity swap":
        swapped = _with(scene, _SUBJECT, replace(subject, look=object_.look))
        return _with(swapped, _OBJECT, replace(object_, look=subject.look))
    look = scene.actors[_OTHER].look
    for place in rng.uniform(9, FRAME_SIZE - 9, size=(40, 2)):
        place_T2 = _stands(place)
        if all(
            _away(actor.path_T2, place_T2).min() > 1.3 * (actor.look.radius + look.radius)
            for actor in scene.actors
        ):
            return replace(scene, actors=(*scene.actors, Actor.rigid(look, place_T2, -5)))
    return None


def _middle(mask_HW: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """The pixels of a mask farthest from its edge that make up a share of it."""
    depth_HW = ndimage.distance_transform_edt(mask_HW) + np.mgrid[: len(mask_HW), :1][0] * 1e-3
    most = np.sort(depth_HW[mask_HW])[::-1]
    return mask_HW & (depth_HW >= most[min(int(share * len(most)), len(most) - 1)])


def _squares(masks_THW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The square around each frame's mask."""
    squares_THW = np.zeros_like(masks_THW)
    for square_HW, mask_HW in zip(squares_THW, masks_THW, strict=True):
        ((rows, columns),) = ndimage.find_objects(mask_HW.astype(int))
        square_HW[rows, columns] = True
    return squares_THW


def plant(seed: int, verb: str, failure: Failure) -> Case:
    """A video in which the failure, and nothing else, happened to an interaction of the verb."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, *map(ord, verb + failure)]))
    while True:
        drawn = _draw(rng, verb, failure)
        if drawn is None:
            continue
        scene, contact = drawn
        frames_THWC, masks_RTHW = render(scene)
        early = failure in ("vanished", "melted") and verb != "hug"
        at = contact + (1 if early else 6)
        if failure in ("vanished", "melted", "duplicated", "identity swap", "stranger"):
            later = _later(scene, failure, rng)
            if later is None:
                continue
            later_THWC, later_RTHW = render(later)
            if failure == "melted":
                kept_THW = np.stack([_middle(mask_HW, 0.35) for mask_HW in masks_RTHW[_OBJECT]])
                later_THWC[kept_THW] = frames_THWC[kept_THW]
            elif failure == "stranger":
                later_THWC[_squares(later_RTHW[-1])] = rng.integers(0, 120, 3)  # no known colour
            frames_THWC = np.concatenate([frames_THWC[:at], later_THWC[at:]])
        elif failure == "noise":
            bare_THW = ~ndimage.binary_dilation(masks_RTHW.any(axis=0), np.ones((1, 3, 3)))
            bare_THW[:at] = False
            frames_THWC[bare_THW] = rng.integers(0, 256, (int(bare_THW.sum()), 3))
        break
    names = [f"{actor.look.size} {actor.look.colour} {actor.look.noun}" for actor in scene.actors]
    sample = Sample(
        id=f"{failure.replace(' ', '-')}-{verb}-{seed}",
        file_name="videos/planted.mp4",
        caption=f"a {names[0]} and a {names[1]}: {verb}",
        instances=tuple(
            Instance(id=f"id{index + 1}", noun=actor.look.noun, phrase=names[index])
            for index, actor in enumerate(scene.actors)
        ),
        interactions=(
            Interaction(
                subject="id1", verb=verb, object="id2", bidirectional=VERBS[verb].bidirectional
            ),
        ),
    )
    tracks = {f"id{index + 1}": MaskTrack.from_masks(masks_RTHW[index, :1]) for index in range(3)}
    return Case(frames_THWC, tracks, sample)


def degrade(frames_THWC: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """About 30 dB: what a video decoder does to edges, and noise."""
    rng = np.random.default_rng(seed)
    soft_THWC = ndimage.gaussian_filter(frames_THWC.astype(np.float32), (0, 0.7, 0.7, 0))
    noisy_THWC = soft_THWC + rng.normal(0, 6.5, frames_THWC.shape)
    return np.clip(np.rint(noisy_THWC), 0, 255).astype(np.uint8)
