"""Sets in the authors' layout, and a comparison of folders that does not use our own readers."""

from __future__ import annotations

import csv
import re
import shutil
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from matrix_video.data.convert import convert
from matrix_video.data.video import write_video

T, H, W = 5, 8, 10
COLOURS = {"id1": (255, 0, 0), "id2": (0, 255, 0), "id3": (9, 8, 7), "id7": (0, 0, 254)}
PALETTE = bytes([0, 0, 0, 128, 0, 0, 0, 128, 0, 7, 7, 7])


def box(t: int, top: int, left: int, size: int = 3) -> np.ndarray:
    mask = np.zeros((H, W), dtype=bool)
    mask[top : top + size, left + t % 2 : left + t % 2 + size] = True
    return mask


def save(path: Path, image: Image.Image, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "PNG", **options)


def mask_image(mask: np.ndarray, mode: str = "L", value: int = 255) -> Image.Image:
    if mode == "1":
        return Image.fromarray(mask)
    if mode == "RGB":
        return Image.fromarray(np.repeat((mask * value).astype(np.uint8)[..., None], 3, axis=2))
    grey = Image.fromarray((mask * value).astype(np.uint8))
    if mode == "P":
        grey = Image.frombytes("P", grey.size, grey.tobytes())
        grey.putpalette(PALETTE)
    return grey


def painted(masks: dict[str, np.ndarray], order: list[str]) -> Image.Image:
    picture = np.zeros((H, W, 3), dtype=np.uint8)
    for name in order:
        if name in masks:
            picture[masks[name]] = COLOURS[name]
    return Image.fromarray(picture)


def authors_set(root: Path, video: Path) -> Path:
    """Two clips, ids 1 and 3 without 2, overlaps, palettes, a frame missing and one all zero."""
    root.mkdir(parents=True)
    (root / "videos").mkdir()
    for name in ("000001", "000002"):
        shutil.copyfile(video, root / "videos" / f"{name}.mp4")
    one = root / "mask_annotation" / "000001"
    for t in range(T):
        masks = {"id1": box(t, 1, 1, 4), "id3": box(t, 2, 3, 4)}
        if t == 2:
            masks["id3"][:] = False
        save(one / "<id1>" / f"{t:03d}.png", mask_image(masks["id1"]))
        if t != 3:
            save(one / "<id3>" / f"{t:03d}.png", mask_image(masks["id3"], "P", 2))
        save(one / "merged" / f"{t:03d}.png", painted(masks, ["id3", "id1"]))
    two = root / "mask_annotation" / "000002"
    for t in range(T):
        save(two / "id1" / f"{t:05d}.png", mask_image(box(t, 0, 0), "1"))
        save(two / "id2" / f"{t:05d}.png", mask_image(box(t, 4, 4), "RGB", 1))
    rows = [
        ("000001.mp4", "a <id1> woman, in red, hands “a cup” to a <id3> man"),
        ("000002.mp4", 'a "tall" <id1> Frau gibt\nder <id2> Katze Wasser'),
    ]
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "prompt"])
        writer.writerows(rows)
    return root


def contents(root: Path) -> dict[str, bytes | None]:
    """Every file, and every folder with None."""
    paths = root.rglob("*")
    return {str(p.relative_to(root)): None if p.is_dir() else p.read_bytes() for p in paths}


def huge_png() -> bytes:
    """60,000 x 60,000 pixels in a few bytes."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", head), (b"IDAT", b""), (b"IEND", b""))
    )


def matches(pattern: str, text: str) -> bool:
    assert re.search(pattern, text), text
    return True


def there_and_back(source: Path, work: Path) -> tuple[Path, Path]:
    middle, back = work / "middle", work / "back"
    convert(source, middle)
    convert(middle, back)
    return middle, back


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The functions of this file, for the tests beside it."""
    return SimpleNamespace(
        box=box,
        contents=contents,
        huge_png=huge_png,
        matches=matches,
        mask_image=mask_image,
        painted=painted,
        save=save,
        there_and_back=there_and_back,
    )


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 frames of 8x10."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    frames = np.random.default_rng(1).integers(0, 256, (T, H, W, 3), dtype=np.uint8)
    write_video(path, frames, 8.0, lossless=True)
    return path


@pytest.fixture
def authors(tmp_path: Path, video: Path) -> Path:
    return authors_set(tmp_path / "authors", video)
