"""How fast data sets are converted on one core, and that many clips take no more memory than few.

    python benchmarks/convert.py [--clips 4] [--small 11000] [--out FILE]

Large clips are 81 frames of 480 x 832 with three ids, the small ones 4 frames of 16 x 16 with two.
Rows: ``authors to ours`` (PNGs as Pillow writes them, merged pictures too), ``back to authors``
(pictures that were kept) and ``ours to authors`` (pictures drawn from tracks). Seconds are CPU
seconds of the process. Memory is resident, after a fifth of the clips and at its highest after
that. Asked for: 2 large clips a second each way, memory flat over 11,000 small ones.
"""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import tyro
from PIL import Image

from matrix_video.data.convert import convert
from matrix_video.data.video import write_video

_COLOURS: Final = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


@dataclass(frozen=True)
class ConvertBenchmark:
    """Measure matrix convert."""

    clips: int = 4
    """Large clips."""
    small: int = 11_000
    """Small clips; 0: leave them out."""
    out: Path | None = None
    """JSON file for the result."""


def _write_set(root: Path, clips: int, shape: tuple[int, int, int], ids: int) -> None:
    """A set in the authors' layout: one clip drawn, the others copies of its bytes."""
    frames, height, width = shape
    rows, columns = np.mgrid[:height, :width]
    pictures: dict[str, bytes] = {}
    work = root / "work.png"
    root.mkdir()
    for t in range(frames):
        merged = np.zeros((height, width, 3), dtype=np.uint8)
        for k in range(ids):
            angle = np.arctan2(rows - height / 2, columns - (k + 1) * width / (ids + 1) - t)
            reach = height / 4 * (1 + 0.1 * np.sin(6 * angle) + 0.04 * np.sin(25 * angle + t))
            away = np.hypot(rows - height / 2, columns - (k + 1) * width / (ids + 1) - t)
            mask = away < reach
            merged[mask] = _COLOURS[k]
            Image.fromarray(mask.astype(np.uint8) * 255).save(work)
            pictures[f"<id{k + 1}>/{t:03d}.png"] = work.read_bytes()
        Image.fromarray(merged).save(work)
        pictures[f"merged/{t:03d}.png"] = work.read_bytes()
    work.unlink()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (frames, height // 8, width // 8, 3), dtype=np.uint8)
    video = root / "video.mp4"
    write_video(video, noise.repeat(8, axis=1).repeat(8, axis=2), 16.0)
    raw = video.read_bytes()
    video.unlink()
    (root / "videos").mkdir()
    table = ["video,prompt"]
    for n in range(clips):
        (root / "videos" / f"{n:06d}.mp4").write_bytes(raw)
        for name, data in pictures.items():
            path = root / "mask_annotation" / f"{n:06d}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        table.append(f"{n:06d}.mp4,a <id1> tall man throws a ball to a <id2> woman in red")
    (root / "metadata.csv").write_text("\n".join(table) + "\n")


def _resident() -> float:
    """MiB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def _measure(name: str, clips: int, work: Callable[[], object]) -> dict[str, Any]:
    seen: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            seen.append(_resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, wall = time.process_time(), time.perf_counter()
    work()
    seconds, wall = time.process_time() - began, time.perf_counter() - wall
    done.set()
    watcher.join()
    row = {
        "way": name,
        "clips": clips,
        "clips_per_cpu_second": round(clips / seconds, 2),
        "wall_seconds": round(wall, 1),
        "mib_after_a_fifth": round(seen[len(seen) // 5]) if seen else None,
        "mib_at_most": round(max(seen, default=0)),
    }
    print(row, flush=True)
    return row


def _ways(folder: Path, size: str, clips: int, shape: tuple[int, int, int], ids: int) -> list[Any]:
    folder.mkdir()
    authors, ours, back, drawn = (folder / n for n in ("authors", "ours", "back", "drawn"))
    _write_set(authors, clips, shape, ids)
    rows = [
        _measure(f"{size}: authors to ours", clips, lambda: convert(authors, ours)),
        _measure(f"{size}: back to authors", clips, lambda: convert(ours, back)),
    ]
    shutil.rmtree(ours / "authors")
    rows.append(_measure(f"{size}: ours to authors", clips, lambda: convert(ours, drawn)))
    return rows


def main(config: ConvertBenchmark) -> None:
    rows: list[Any] = []
    with tempfile.TemporaryDirectory() as name:
        _write_set(Path(name) / "warm", 1, (4, 16, 16), 2)
        convert(Path(name) / "warm", Path(name) / "warmed")
        rows += _ways(Path(name) / "large", "large", config.clips, (81, 480, 832), 3)
    if config.small:
        with tempfile.TemporaryDirectory() as name:
            rows += _ways(Path(name) / "small", "small", config.small, (4, 16, 16), 2)
    result = {
        "benchmark": "convert",
        "rows": rows,
        "machine": platform.machine(),
        "versions": {n: version(n) for n in ("numpy", "av", "pillow", "matrix-video")},
    }
    if config.out is not None:
        config.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(ConvertBenchmark))
