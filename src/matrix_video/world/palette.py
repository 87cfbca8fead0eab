"""The vocabulary of tiny world: what an instance can look like.

The only file of this room that others may read (the oracle judge segments by these colours).
Sizes are pixels of the 64 x 64 frame; a token of the tiny model is 8 pixels wide, so the smallest
instance is two tokens across.
"""

from __future__ import annotations

from typing import Final

FRAME_SIZE: Final = 64
NUM_FRAMES: Final = 17
FPS: Final = 8.0

COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (214, 40, 40),
    "green": (46, 160, 67),
    "blue": (45, 85, 225),
    "yellow": (245, 200, 20),
    "purple": (150, 50, 190),
    "cyan": (30, 195, 205),
}
"""Far apart in RGB, so that a decoded video still tells them apart."""

BACKGROUNDS: Final[tuple[tuple[int, int, int], ...]] = (
    (236, 236, 236),
    (222, 226, 232),
    (236, 230, 220),
    (226, 234, 224),
    (214, 214, 214),
    (236, 226, 230),
)
"""Pale and grey, far from every instance colour."""

CLASSES: Final = ("ball", "box", "cone", "star")
RADII: Final[dict[str, float]] = {"small": 8.5, "large": 10.5}
