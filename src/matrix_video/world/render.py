"""Scene → pixels and exact masks, all frames at once.

Shapes: T frames, H rows, W columns, R actors, 3 colour channels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from matrix_video.world.palette import COLOURS, FRAME_SIZE, NUM_FRAMES
from matrix_video.world.scene import Scene
from matrix_video.world.shapes import DISTANCE

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
        alpha_THW = DISTANCE[actor.look.noun](dx_THW, dy_THW, actor.look.radius)
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
