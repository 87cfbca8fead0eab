"""Signed distances of the four shapes, vectorised over frames and pixels.

Shapes: T frames, H rows, W columns. A distance is negative inside, in pixels (exact for balls,
within a pixel of the edge for the others, which is all that anti-aliasing reads).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_COS36, _SIN36 = math.cos(math.pi / 5), math.sin(math.pi / 5)
_INNER = 0.55  # inner over outer radius of the star: fat enough to cover tokens


def ball(dx_THW: Floats, dy_THW: Floats, radius: float) -> Floats:
    return np.sqrt(dx_THW * dx_THW + dy_THW * dy_THW) - np.float32(radius)


def box(dx_THW: Floats, dy_THW: Floats, radius: float) -> Floats:
    return np.maximum(np.abs(dx_THW), np.abs(dy_THW)) - np.float32(0.94 * radius)


def cone(dx_THW: Floats, dy_THW: Floats, radius: float) -> Floats:
    """Upright triangle: base at 0.95 radius below the centre, apex 1.15 radius above it."""
    bottom, top, half = 0.95 * radius, 1.15 * radius, 1.1 * radius
    height = bottom + top
    slope = math.hypot(height, half)
    side = np.abs(dx_THW) * np.float32(height / slope)
    side -= (dy_THW + np.float32(top)) * np.float32(half / slope)
    return np.maximum(side, dy_THW - np.float32(bottom))


def star(dx_THW: Floats, dy_THW: Floats, radius: float) -> Floats:
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


DISTANCE = {"ball": ball, "box": box, "cone": cone, "star": star}
