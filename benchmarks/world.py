"""How fast tiny world renders and writes clips, on one core.

    python benchmarks/world.py [--clips 200] [--out FILE]

Rows, all of the same scenes: ``render`` (scene to pixels and exact masks, in memory), ``pillow``
(the plain alternative: the scene drawn by Pillow at four times the size and shrunk, masks from a
second drawing; flat background, no soft edges), ``clip`` (from a seed: draw the scene, render,
caption) and ``write`` (a data set folder: clips, lossless video, tracks, metadata). Rows are
measured interleaved; a row's figure is the median over rounds, and ``render_over_pillow`` compares
the two that do the same work. Asked for: 100 clips a second in memory, 20 written.
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import tyro
from PIL import Image, ImageDraw

from matrix_video.world.clips import make_clip
from matrix_video.world.palette import COLOURS, FRAME_SIZE, NUM_FRAMES
from matrix_video.world.render import render
from matrix_video.world.scene import Actor, Scene
from matrix_video.world.splits import Split
from matrix_video.world.write import write_split

_SCALE: Final = 4
_SEED: Final = 0
_SPLIT: Final[Split] = "val"


@dataclass(frozen=True)
class WorldBenchmark:
    """Measure tiny world."""

    clips: int = 200
    """Clips per round and row."""
    rounds: int = 3
    """Rounds; the median counts."""
    out: Path | None = None
    """JSON file for the result."""


def _outline(actor: Actor, frame: int) -> list[tuple[float, float]]:
    """A polygon of the actor at four times the size: good enough to time the alternative."""
    corners = {"ball": 24, "box": 4, "cone": 3, "star": 10}[actor.look.noun]
    angles = np.arange(corners) * 2 * np.pi / corners + np.pi / 4
    x, y = actor.path_T2[frame]
    width, height = actor.stretch_T2[frame] * actor.look.radius
    return [(_SCALE * (x + width * np.cos(a)), _SCALE * (y + height * np.sin(a))) for a in angles]


def render_with_pillow(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The same scene through ImageDraw, for comparison of speed alone."""
    large = (FRAME_SIZE * _SCALE, FRAME_SIZE * _SCALE)
    frames: list[np.ndarray] = []
    masks = np.zeros((len(scene.actors), NUM_FRAMES, FRAME_SIZE, FRAME_SIZE), bool)
    for t in range(NUM_FRAMES):
        image = Image.new("RGB", large, scene.background)
        owner = Image.new("L", large, 0)
        for index in sorted(range(len(scene.actors)), key=lambda i: scene.actors[i].depth):
            outline = _outline(scene.actors[index], t)
            ImageDraw.Draw(image).polygon(outline, fill=COLOURS[scene.actors[index].look.colour])
            ImageDraw.Draw(owner).polygon(outline, fill=index + 1)
        frames.append(np.asarray(image.resize((FRAME_SIZE,) * 2, Image.Resampling.BOX)))
        small = np.asarray(owner.resize((FRAME_SIZE,) * 2, Image.Resampling.NEAREST))
        for index in range(len(scene.actors)):
            masks[index, t] = small == index + 1
    return np.stack(frames), masks


def _rows(clips: int, scenes: list[Scene]) -> dict[str, Callable[[], None]]:
    """What is timed, by row; each works through all scenes once."""

    def draw() -> None:
        for scene in scenes:
            render(scene)

    def pillow() -> None:
        for scene in scenes:
            render_with_pillow(scene)

    def clip() -> None:
        for index in range(clips):
            make_clip(_SEED, _SPLIT, index)

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_split(Path(folder) / "world", clips, _SEED, _SPLIT)

    return {"render": draw, "pillow": pillow, "clip": clip, "write": write}


def main(config: WorldBenchmark) -> None:
    scenes = [make_clip(_SEED, _SPLIT, index).scene for index in range(config.clips)]
    rows = _rows(config.clips, scenes)
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(config.rounds):
        for name, work in rows.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    rates = {name: config.clips / statistics.median(taken) for name, taken in seconds.items()}
    result = {
        "benchmark": "world",
        "clips": config.clips,
        "rounds": config.rounds,
        "rows": [{"method": name, "clips_per_second": rate} for name, rate in rates.items()],
        "render_over_pillow": rates["render"] / rates["pillow"],
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("numpy", "av", "pillow", "matrix-video")},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if config.out is not None:
        config.out.write_text(text + "\n")


if __name__ == "__main__":
    main(tyro.cli(WorldBenchmark))
