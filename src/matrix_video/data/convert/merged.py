"""``merged`` images: all ids of a frame in one picture, one colour an id, painted in an order.

Shapes: T frames, H rows, W columns, C channels. What a merged image says beyond the masks is the
colours and, where ids overlap, which one is on top. Both are read from the pixels; an image that
painting does not reproduce exactly is kept whole.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from itertools import combinations, count

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.convert.png import Pixels, Png, Value, encode_png, only_value
from matrix_video.data.convert.prompts import id_number
from matrix_video.data.convert.sidecar import KEPT, MergedPlan
from matrix_video.data.tracks import MaskTrack, State
from matrix_video.services.files import sha256_text

_FIRST = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255))
_MOST = 1024
"""Ids up to here have a colour by their number; where a clip has a higher one, by their rank."""

Masks = Mapping[str, NDArray[np.bool_]]
"""Bool [H,W] by id."""


def colours(how_many: int) -> tuple[Value, ...]:
    """Colours of id1, id2, ...: red, green, blue, yellow, magenta, cyan (the box colours of
    InterGenEval), then hues a golden angle apart, all distinct, without limit."""
    made: list[Value] = list(_FIRST)
    for k in count():
        if len(made) >= how_many:
            break
        hue, dark = (0.04 + k * 0.381966) % 1.0, (k // 8) % 4
        colour = colorsys.hsv_to_rgb(hue, (1.0, 0.6, 0.8, 0.4)[k // 32 % 4], 0.9 - 0.15 * dark)
        value = tuple(round(255 * channel) for channel in colour)
        if value not in made:
            made.append(value)
    return tuple(made[:how_many])


def default_plan(tracks: Mapping[str, MaskTrack]) -> MergedPlan | None:
    """RGB on black, ids painted in numeric order, for every frame of which anything is known.

    None where nothing is known in any frame: no folder is made then.
    """
    ids = sorted(tracks, key=id_number)
    known = known_frames(tracks)
    if not any(known):
        return None
    named = id_number(ids[-1]) <= _MOST
    palette = colours(id_number(ids[-1]) if named else len(ids))
    return MergedPlan(
        width=3,
        mode="RGB",
        palette=None,
        background=(0, 0, 0),
        colours={
            name: palette[id_number(name) - 1 if named else rank] for rank, name in enumerate(ids)
        },
        orders=(tuple(ids),),
        frames=tuple(0 if here else None for here in known),
        masks={},
    )


def known_frames(tracks: Mapping[str, MaskTrack]) -> list[bool]:
    """Per frame: whether any instance is annotated."""
    return [
        any(state is not State.UNKNOWN for state in states)
        for states in zip(*(track.states for track in tracks.values()), strict=True)
    ]


def paint(plan: MergedPlan, order: Sequence[str], masks: Masks, size: tuple[int, int]) -> Pixels:
    """Pixels [H,W,C], later ids of the order on top. Every id must have a colour."""
    pixels_HWC = np.empty((*size, len(plan.background)), dtype=np.uint8)
    pixels_HWC[:] = plan.background
    for name in order:
        if name in masks:
            pixels_HWC[masks[name]] = plan.colours[name]
    return pixels_HWC


def can_paint(plan: MergedPlan, t: int, tracks: Mapping[str, MaskTrack]) -> bool:
    """Whether every id that is visible in frame t has a colour."""
    return all(
        name in plan.colours for name, track in tracks.items() if track.states[t] is State.VISIBLE
    )


def render_merged(plan: MergedPlan, t: int, tracks: Mapping[str, MaskTrack]) -> bytes:
    """The PNG of frame t in the order that the plan has for it, or in its first."""
    choice = plan.frames[t]
    orders = plan.orders or (tuple(sorted(plan.colours, key=id_number)),)
    order = orders[choice] if isinstance(choice, int) else orders[0]
    track = next(iter(tracks.values()))
    pixels_HWC = paint(plan, order, masks_at(tracks, t), track.size)
    return encode_png(plan.mode, plan.palette, pixels_HWC)


def masks_at(tracks: Mapping[str, MaskTrack], t: int) -> dict[str, NDArray[np.bool_]]:
    """Masks of the ids that are visible in frame t."""
    return {
        name: track.mask(t) for name, track in tracks.items() if track.states[t] is State.VISIBLE
    }


def masks_key(tracks: Mapping[str, MaskTrack], t: int) -> str:
    """Changes with any mask or state of frame t."""
    parts = [
        f"{name} {tracks[name].states[t].value} {tracks[name].rles[t]}"
        for name in sorted(tracks, key=id_number)
    ]
    return sha256_text(*parts)


def fit_plan(
    pngs: Mapping[int, Png], tracks: Mapping[str, MaskTrack], num_frames: int, width: int
) -> MergedPlan:
    """The plan that makes these images again; frames it cannot make are marked as kept."""
    if tracks:
        usual = default_plan(tracks)
        if usual is not None and width == 3 and _reproduces(usual, pngs, tracks):
            return usual
    first = next((png for png in pngs.values() if png.plain), None)
    alike = {
        t: png
        for t, png in pngs.items()
        if first is not None
        and tracks
        and png.plain
        and (png.mode, png.palette) == (first.mode, first.palette)
    }
    masks = {t: masks_at(tracks, t) for t in alike}
    background = _background(alike, masks) or (0,) * (3 if first and first.mode == "RGB" else 1)
    known = _read_colours(alike, masks, background)
    plan = MergedPlan(
        width=width,
        mode=first.mode if first else "RGB",
        palette=first.palette if first else None,
        background=background if first else (0, 0, 0),
        colours=known,
        orders=(),
        frames=(None,) * num_frames,
        masks={},
    )
    orders: list[tuple[str, ...]] = []
    common = _order({edge for t in alike for edge in _on_top(alike[t], masks[t], known)}, known)
    if common is not None:
        orders.append(common)
    frames: list[int | str | None] = [None] * num_frames
    keys: dict[str, str] = {}
    for t, png in pngs.items():
        made = None
        if t in alike and set(masks[t]) <= set(known):
            own = _order(_on_top(png, masks[t], known), known)
            for order in (common, own):
                if order is not None and _same(plan, order, masks[t], png):
                    made = order
                    break
        if made is None:
            frames[t] = KEPT
            keys[str(t)] = masks_key(tracks, t)
        else:
            if made not in orders:
                orders.append(made)
            frames[t] = orders.index(made)
    return plan.model_copy(update={"orders": tuple(orders), "frames": tuple(frames), "masks": keys})


def _reproduces(plan: MergedPlan, pngs: Mapping[int, Png], tracks: Mapping[str, MaskTrack]) -> bool:
    if {t for t, choice in enumerate(plan.frames) if choice is not None} != set(pngs):
        return False
    return all(
        png.plain
        and (png.mode, png.palette) == (plan.mode, plan.palette)
        and _same(plan, plan.orders[0], masks_at(tracks, t), png)
        for t, png in pngs.items()
    )


def _same(plan: MergedPlan, order: Sequence[str], masks: Masks, png: Png) -> bool:
    return np.array_equal(paint(plan, order, masks, png.size), png.pixels_HWC)


def _background(pngs: Mapping[int, Png], masks: Mapping[int, Masks]) -> Value | None:
    for t, png in pngs.items():
        free = ~_union(masks[t], png.size)
        value = only_value(png.pixels_HWC[free])
        if value is not None:
            return value
    return None


def _read_colours(
    pngs: Mapping[int, Png], masks: Mapping[int, Masks], background: Value
) -> dict[str, Value]:
    """First from pixels that one id has alone; then from overlaps, where one id is left over."""
    known: dict[str, Value] = {}
    for t, png in pngs.items():
        for name, mask in masks[t].items():
            if name not in known:
                others = {n: m for n, m in masks[t].items() if n != name}
                value = only_value(png.pixels_HWC[mask & ~_union(others, png.size)])
                if value is not None:
                    known[name] = value
    shown = {name for frame in masks.values() for name in frame}
    left = sorted(shown - set(known), key=id_number)
    owners = _owners(pngs, masks, left, {*known.values(), background}) if left else {}
    while owners:  # the colour with the fewest possible owners first
        value = min(owners, key=lambda value: len(owners[value]))
        possible = [name for name in owners.pop(value) if name not in known]
        if possible:
            known[possible[0]] = value
    for name in left:
        known.setdefault(name, background)  # hidden under others in every frame: never seen
    return known


def _owners(
    pngs: Mapping[int, Png], masks: Mapping[int, Masks], left: list[str], taken: set[Value]
) -> dict[Value, list[str]]:
    """For each colour not yet taken the ids whose masks cover every pixel of that colour."""
    owners: dict[Value, list[str]] = {}
    for t, png in pngs.items():
        flat = png.pixels_HWC.reshape(-1, png.pixels_HWC.shape[-1])
        for row in np.unique(flat, axis=0):
            value = tuple(int(v) for v in row)
            if value in taken:
                continue
            if value not in owners and len(owners) == _MOST:
                return {}  # more colours than ids: this is no painting
            here = (png.pixels_HWC == row).all(axis=-1)
            owners[value] = [
                name
                for name in owners.get(value, left)
                if name in masks[t] and not (here & ~masks[t][name]).any()
            ]
    return owners


def _on_top(png: Png, masks: Masks, known: Mapping[str, Value]) -> set[tuple[str, str]]:
    """Pairs (below, above) that an overlap of this frame shows."""
    edges: set[tuple[str, str]] = set()
    for one, other in combinations(sorted(masks, key=id_number), 2):
        pixels = png.pixels_HWC[masks[one] & masks[other]]
        for below, above in ((one, other), (other, one)):
            told = above in known and known[above] != known.get(below)
            if told and (pixels == known[above]).all(axis=-1).any():
                edges.add((below, above))
    return edges


def _order(edges: set[tuple[str, str]], known: Mapping[str, Value]) -> tuple[str, ...] | None:
    """Ids from bottom to top, ties by number; None where the pairs contradict each other."""
    left = sorted(known, key=id_number)
    order: list[str] = []
    while left:
        ready = [
            name
            for name in left
            if not any(above == name and below in left for below, above in edges)
        ]
        if not ready:
            return None
        order.append(ready[0])
        left.remove(ready[0])
    return tuple(order)


def _union(masks: Masks, size: tuple[int, int]) -> NDArray[np.bool_]:
    union = np.zeros(size, dtype=bool)
    for mask in masks.values():
        union |= mask
    return union
