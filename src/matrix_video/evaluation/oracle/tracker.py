"""First-frame masks → where every instance is in every frame, and what should not be there.

An instance is followed by its appearance and by continuity of place. Instances that share an
appearance are kept apart by place alone. What an instance shows less than it should is explained,
in this order, by the frame's border, by another instance in front of it, or by neither: then it
has *disappeared*, wholly or (melted) with less than half of it left. What is neither background
nor an instance has *emerged*: a blob of an instance's colour that is not its own, a blob of a
colour that nobody wears, a few pixels of anything far from all instances, another background.

The method is our choice; thresholds are pixels of a 64-pixel frame or shares of an instance's
first-frame area.

Shapes: T frames, H rows, W columns, R instances. Positions are (x, y) in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from matrix_video.evaluation.oracle.appearance import (
    BACKGROUND,
    FADED,
    MIXED,
    STRANGE,
    Labels,
    label_frames,
    learn,
)
from matrix_video.evaluation.oracle.silhouette import (
    EMERGED,
    SPECK,
    Expectation,
    Masks,
    Point,
    Template,
    centroid,
    claim,
    extent,
    grown,
    has_blob,
    paste,
)
from matrix_video.evaluation.oracle.tracks import SHOWN, Presence, Strangers, Track, Tracking

_SOLID: Final = 0.5  # of what should be visible: below, the instance melts
_REMAINS: Final = 0.25  # of what should be visible: below, it is gone
_COLLAPSE: Final = 0.4  # of its area: lost in one frame, more than motion can hide
_EXPOSED: Final = 0.35  # of its area: less that should be visible is too little to judge by
_SWOLLEN: Final = 1.35  # of its area: beyond, the mask's middle is not the instance's
_BLOATED: Final = 1.6  # of its area: beyond, it has grown into something else
_LEAP: Final = 9.0  # pixels in one frame that no ordinary motion covers
_DRIFT: Final = 5.0  # pixels more for every frame in which it was not seen
_FASTEST: Final = 6.0  # pixels a frame that prediction assumes at most
_SOFT: Final = 3  # pixels around an instance that a blurred edge may take
_FAINT: Final = 32.0  # distance from the background at which something solid can be made out


@dataclass
class _State:
    """A track under construction, up to the frame ``last``, and what the next one should show."""

    track: Track
    presence: list[Presence]
    """Of the track, which grows."""
    group: int
    velocity: Point
    unseen: int = 0

    @classmethod
    def begin(cls, mask_HW: Masks, labels_THW: NDArray[np.int8], group: int) -> Self:
        """With the first frame."""
        template, shape = Template.cut(mask_HW), labels_THW.shape
        shown = int((mask_HW & (labels_THW[0] == group)).sum())
        presence = [Presence.SEEN if shown >= _SOLID * template.area else Presence.MELTED]
        track = Track(
            template=template,
            centre_T2=np.zeros((shape[0], 2)),
            height_T=np.zeros(shape[0]),
            seen_THW=np.zeros(shape, dtype=np.bool_),
            body_THW=np.zeros(shape, dtype=np.bool_),
            presence_T=presence,
            leaps_T=np.zeros(shape[0], dtype=np.bool_),
            left_T=np.full(shape[0], shown / template.area),
        )
        track.centre_T2[0], track.height_T[0] = template.start, _height(mask_HW)
        track.seen_THW[0] = track.body_THW[0] = mask_HW
        return cls(track, presence, group, np.zeros(2))

    @property
    def template(self) -> Template:
        return self.track.template

    @property
    def centre(self) -> Point:
        return self.track.centre_T2[len(self.presence) - 1]

    @property
    def seen_HW(self) -> Masks:
        return self.track.seen_THW[len(self.presence) - 1]

    @property
    def expected(self) -> Point:
        return self.centre + self.velocity

    def expectation(self) -> Expectation:
        return Expectation(self.template, self.expected, self.presence[-1] in SHOWN)


def track(frames_THW3: NDArray[np.uint8], masks_R: Sequence[Masks]) -> Tracking:
    """Follow the instances of the first-frame masks [H,W] through uint8 frames [T,H,W,3].

    Raises ``ValueError`` for an empty mask or one of another size.
    """
    appearance = learn(frames_THW3[0], masks_R)
    labels = label_frames(frames_THW3, appearance)
    states = [
        _State.begin(mask_HW, labels.labels_THW, group)
        for mask_HW, group in zip(masks_R, appearance.group_R, strict=True)
    ]
    strangers = [
        _advance(states, labels, t, appearance.num_own) for t in range(1, len(frames_THW3))
    ]
    return Tracking(tuple(state.track for state in states), tuple(strangers))


def _height(mask_HW: Masks) -> float:
    """Rows that a mask takes; those of a single pixel are not counted."""
    rows = np.flatnonzero(mask_HW.sum(axis=1) >= 2)
    return float(rows[-1] - rows[0] + 1) if len(rows) else 0.0


def _advance(states: list[_State], labels: Labels, t: int, num_own: int) -> Strangers:
    """Move every state on to frame t; what it shows beside them."""
    labels_HW = labels.labels_THW[t]
    least = EMERGED * min(state.template.area for state in states)
    blobs = 0
    masks: list[Masks] = [np.zeros_like(labels_HW, dtype=np.bool_) for _ in states]
    for group in range(num_own):
        members = [i for i, state in enumerate(states) if state.group == group]
        own_HW = labels_HW == group
        claimed = claim([states[i].expectation() for i in members], own_HW)
        for i, mask_HW in zip(members, claimed, strict=True):
            masks[i] = mask_HW
            own_HW = own_HW & ~mask_HW
        blobs += has_blob(own_HW, least)
    centres = [
        _locate(state, mask_HW, labels_HW) for state, mask_HW in zip(states, masks, strict=True)
    ]
    fronts: list[Masks] = []
    for i, (state, centre) in enumerate(zip(states, centres, strict=True)):
        # What bulges far out of an instance is another one that grew out of it.
        bulge_HW = masks[i] & ~paste(state.template.reach_hw, centre, labels_HW.shape)
        if has_blob(bulge_HW, least):
            masks[i] = masks[i] & ~bulge_HW
            blobs += 1
        # An instance that swells hides nothing outside its own shape: that was swallowed.
        fronts.append(masks[i] & paste(state.template.near_hw, centre, labels_HW.shape))
    around_HW = np.zeros(labels_HW.shape, dtype=np.int8)
    for i, (state, centre) in enumerate(zip(states, centres, strict=True)):
        front_HW = np.zeros_like(masks[i])
        for j, other_HW in enumerate(fronts):
            if j != i:
                front_HW |= other_HW
        _append(state, masks[i], centre, front_HW)
        around_HW += grown(masks[i] | paste(state.template.mask_hw, centre, labels_HW.shape), _SOFT)
    far_HW = around_HW == 0
    unmixed_HW = (labels_HW == MIXED) & (around_HW < 2)
    blobs += has_blob(unmixed_HW | (labels_HW == STRANGE) | (labels_HW >= num_own), least)
    blobs += has_blob(far_HW & (labels.off_THW[t] >= _FAINT), least)
    # Where things move fast a decoder that compresses time leaves faded trails.
    stray_HW = far_HW & (labels_HW != BACKGROUND) & (labels_HW != FADED)
    shift, rough = float(labels.shift_T[t]), float(labels.rough_T[t])
    return Strangers(blobs, int(stray_HW.sum()), shift, rough)


def _locate(state: _State, mask_HW: Masks, labels_HW: NDArray[np.int8]) -> Point:
    """Centre of the whole silhouette, given its visible pixels."""
    template = state.template
    area = int(mask_HW.sum())
    if area < SPECK:
        return state.expected
    centre = centroid(mask_HW) - template.lean
    placed_HW = paste(template.mask_hw, centre, mask_HW.shape)
    foreign_HW = ~mask_HW & (labels_HW >= 0)
    whole = placed_HW.sum() >= 0.97 * template.area
    clear = (placed_HW & foreign_HW).sum() <= 0.03 * template.area
    if whole and clear and area <= _SWOLLEN * template.area:
        return centre
    # What melts does not slide to where it would be hidden, which takes more than a frame.
    if area < _SOLID * template.area:
        if state.presence[-1] is Presence.MELTED:
            return state.centre + centroid(mask_HW) - centroid(state.seen_HW)
        if state.seen_HW.sum() - area > _COLLAPSE * template.area:
            return state.expected
    bare_HW = ~mask_HW & ((labels_HW == BACKGROUND) | (labels_HW == FADED))
    near_before = np.hypot(*(centre - state.expected)) < _LEAP
    return template.fit(mask_HW, bare_HW, state.expected if near_before else centre)


def _append(state: _State, mask_HW: Masks, centre: Point, front_HW: Masks) -> None:
    """Judge how the instance is there in this frame and extend its track."""
    template = state.template
    placed_HW = paste(template.mask_hw, centre, mask_HW.shape)
    covered_HW = placed_HW & front_HW & ~mask_HW
    inside = float(placed_HW.sum()) / template.area
    shown = int(mask_HW.sum())
    due = inside * template.area - int(covered_HW.sum())
    presence = _presence(state, shown, due, inside, mask_HW.shape)
    seen = presence in SHOWN
    step = centre - state.centre
    length = float(np.hypot(*step))
    leap = seen and length > _LEAP + _DRIFT * state.unseen
    if leap:
        state.velocity = np.zeros(2)
    elif seen and not state.unseen:
        state.velocity = step * min(1.0, _FASTEST / max(length, 1e-9))
    elif presence is Presence.HIDDEN:
        state.velocity = 0.7 * state.velocity
    elif presence is not Presence.LEFT or inside == 0.0:
        state.velocity = np.zeros(2)
    state.unseen = 0 if seen else state.unseen + 1
    t = len(state.presence)
    found = state.track
    found.centre_T2[t], found.leaps_T[t], found.left_T[t] = centre, leap, shown / max(due, 1.0)
    found.height_T[t] = _height(mask_HW) if seen else found.height_T[t - 1]
    found.seen_THW[t], found.body_THW[t] = mask_HW, mask_HW | covered_HW
    state.presence.append(presence)


def _presence(
    state: _State, shown: int, due: float, inside: float, size: tuple[int, int]
) -> Presence:
    """From the pixels that are and that should be seen; ``inside``: of the silhouette, in frame."""
    area = state.template.area
    if shown > _BLOATED * area:
        return Presence.SWOLLEN
    if shown >= max(_SOLID * due, SPECK):
        return Presence.SEEN
    if inside < 0.5 or _leaving(state, size):
        return Presence.LEFT
    if due < _EXPOSED * area:
        return Presence.HIDDEN
    return Presence.MELTED if shown >= max(_REMAINS * due, SPECK) else Presence.GONE


def _leaving(state: _State, size: tuple[int, int]) -> bool:
    """Whether it was last seen at a border and on its way out, or has left before."""
    if state.presence[-1] is Presence.LEFT:
        return True
    if not state.seen_HW.any():
        return False
    rows, columns = extent(state.seen_HW)
    x, y = state.velocity
    return bool(
        (columns.start <= 1 and x < -0.5)
        or (rows.start <= 1 and y < -0.5)
        or (columns.stop >= size[1] - 1 and x > 0.5)
        or (rows.stop >= size[0] - 1 and y > 0.5)
    )
