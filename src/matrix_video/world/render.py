"""Scene → pixels and exact masks, all frames at once.

Shapes: T frames, H rows, W columns, R actors, 3 colour channels. The distance from an outline is
negative inside, in pixels: exact for balls, within a pixel of the edge for the others, which is all
that anti-aliasing reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from matrix_video.world.palette import COLOURS, FRAME_SIZE, NUM_FRAMES
from matrix_video.world.scene import Scene

_Floats = NDArray[np.float32]

_COS36, _SIN36 = math.cos(math.pi / 5), math.sin(math.pi / 5)
_INNER = 0.55  # inner over outer radius of the star: fat enough to cover tokens
_CENTRES = np.arange(FRAME_SIZE, dtype=np.float32) + np.float32(0.5)

_SOFTNESS = 1.6
"""Width of an edge in pixels. A little softer than one pixel: at 64 x 64 a camera's lens would
blur as much, and a small VAE spends its bits on motion instead of on stair steps."""


def render(scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Frames uint8 [T,H,W,3] and visible masks bool [R,T,H,W].

    A pixel belongs to the topmost actor that covers at least half of it; edges of the frames are
    anti-aliased over ``_SOFTNESS`` pixels.
    """
    num_actors = len(scene.actors)
    shape = (NUM_FRAMES, FRAME_SIZE, FRAME_SIZE)
    rows = np.linspace(scene.shade, -scene.shade, FRAME_SIZE, dtype=np.float32)
    frames_CTHW = np.empty((3, *shape), dtype=np.float32)
    for channel, level in enumerate(scene.background):
        frames_CTHW[channel] = np.float32(level) + rows[None, :, None]
    masks_RTHW = np.zeros((num_actors, *shape), dtype=bool)
    for index in sorted(range(num_actors), key=lambda i: scene.actors[i].depth):
        actor = scene.actors[index]
        path_T2 = actor.path_T2.astype(np.float32)
        stretch_T2 = actor.stretch_T2.astype(np.float32)
        dx_THW = np.broadcast_to(
            ((_CENTRES[None] - path_T2[:, :1]) / stretch_T2[:, :1])[:, None, :], shape
        )
        dy_THW = np.broadcast_to(
            ((_CENTRES[None] - path_T2[:, 1:]) / stretch_T2[:, 1:])[:, :, None], shape
        )
        alpha_THW = _DISTANCE[actor.look.noun](dx_THW, dy_THW, actor.look.radius)
        np.multiply(alpha_THW, np.float32(-1 / _SOFTNESS), out=alpha_THW)
        alpha_THW += np.float32(0.5)
        np.clip(alpha_THW, 0, 1, out=alpha_THW)
        for channel, level in enumerate(COLOURS[actor.look.colour]):
            plane_THW = frames_CTHW[channel]
            plane_THW += alpha_THW * (np.float32(level) - plane_THW)
        covered_THW = alpha_THW >= 0.5
        masks_RTHW[:, covered_THW] = False
        masks_RTHW[index] = covered_THW
    frames_THWC = np.ascontiguousarray(np.moveaxis(frames_CTHW, 0, -1))
    return np.rint(frames_THWC).astype(np.uint8), masks_RTHW


def _ball(dx_THW: _Floats, dy_THW: _Floats, radius: float) -> _Floats:
    return np.sqrt(dx_THW * dx_THW + dy_THW * dy_THW) - np.float32(radius)


def _box(dx_THW: _Floats, dy_THW: _Floats, radius: float) -> _Floats:
    return np.maximum(np.abs(dx_THW), np.abs(dy_THW)) - np.float32(0.94 * radius)


def _cone(dx_THW: _Floats, dy_THW: _Floats, radius: float) -> _Floats:
    """Upright triangle: base at 0.95 radius below the centre, apex 1.15 radius above it."""
    bottom, top, half = 0.95 * radius, 1.15 * radius, 1.1 * radius
    height = bottom + top
    slope = math.hypot(height, half)
    side = np.abs(dx_THW) * np.float32(height / slope)
    side -= (dy_THW + np.float32(top)) * np.float32(half / slope)
    return np.maximum(side, dy_THW - np.float32(bottom))


def _star(dx_THW: _Floats, dy_THW: _Floats, radius: float) -> _Floats:
    """Five-pointed, one point up: fold the plane into a tenth, then one half-plane is left."""
    outer = 1.15 * radius
    x, y = np.abs(dx_THW), -dy_THW
    for normal_x, normal_y in ((_COS36, -_SIN36), (-_COS36, -_SIN36)):
        fold = np.float32(2) * np.maximum(
            x * np.float32(normal_x) + y * np.float32(normal_y), np.float32(0)
        )
        x, y = x - fold * np.float32(normal_x), y - fold * np.float32(normal_y)
    x = np.abs(x)
    inner_x, inner_y = _INNER * outer * _SIN36, _INNER * outer * _COS36
    edge_x, edge_y = inner_x, inner_y - outer
    length = math.hypot(edge_x, edge_y)
    side = x * np.float32(-edge_y / length) + (y - np.float32(outer)) * np.float32(edge_x / length)
    return side.astype(np.float32, copy=False)


_DISTANCE: Final[dict[str, Callable[[_Floats, _Floats, float], _Floats]]] = {
    "ball": _ball,
    "box": _box,
    "cone": _cone,
    "star": _star,
}
