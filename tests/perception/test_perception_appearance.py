"""Plain pictures without a network: drawn ones, and tiny world's first frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from matrix_video.data.dataset import Dataset
from matrix_video.data.tracks import first_masks
from matrix_video.perception.appearance import AppearanceFinder, colour_likeness, shape_likeness
from matrix_video.perception.locate import locate, overlap
from matrix_video.perception.regions import colour_regions
from matrix_video.world.palette import COLOURS
from matrix_video.world.write import write_split


def drawing() -> Any:
    """A grey picture: large red disc, small red disc, blue box, green box that touches it."""
    image = Image.new("RGB", (120, 80), (225, 225, 225))
    draw = ImageDraw.Draw(image)
    draw.ellipse((5, 5, 35, 35), fill=(210, 30, 30))
    draw.ellipse((50, 50, 68, 68), fill=(205, 45, 35))
    draw.rectangle((80, 10, 100, 30), fill=(40, 60, 220))
    draw.rectangle((101, 10, 117, 26), fill=(40, 150, 60))
    return np.asarray(image)


def test_words_tell_things_apart() -> None:
    frame = drawing()
    drawn = [(210, 30, 30), (40, 60, 220), (40, 150, 60), (205, 45, 35)]  # largest first
    for mask, colour in zip(colour_regions(frame), drawn, strict=True):
        assert (mask == (frame == colour).all(axis=2)).all()
    phrases = {
        "id1": "small red ball",
        "id2": "the big red circle",
        "id3": "blue square",
        "id4": "navy man",  # nothing is: blue is likelier a blue, and taken
        "id5": "tall woman",  # no word says how she would look
        "id6": "lime box",
    }
    found = locate(AppearanceFinder(), frame, phrases)

    def middle(key: str) -> tuple[int, int]:
        proposal = found[key].proposal
        assert proposal is not None
        rows, columns = proposal.mask_HW.nonzero()
        return round(float(columns.mean())), round(float(rows.mean()))

    assert [middle(key) for key in ("id1", "id2", "id3")] == [(59, 59), (20, 20), (90, 20)]
    assert middle("id6") == (109, 18)
    assert found["id5"].reason == "no region"
    assert found["id4"].proposal is None


def test_colours_have_names() -> None:
    """Those of tiny world among themselves, though CSS means others by the same names."""
    likeness_NN = np.stack(
        [colour_likeness(name, np.array([*COLOURS.values()], dtype=float)) for name in COLOURS]
    )
    assert likeness_NN.argmax(axis=0).tolist() == [*range(len(COLOURS))]
    assert likeness_NN.diagonal().min() > 0.35


@pytest.mark.parametrize("name", ["disc", "square", "triangle", "star"])
def test_shapes_are_known_at_their_place_and_size(name: str) -> None:
    image = Image.new("1", (90, 90))
    draw = ImageDraw.Draw(image)
    if name == "disc":
        draw.ellipse((3, 60, 20, 77), fill=1)
    elif name == "square":
        draw.rectangle((70, 3, 88, 21), fill=1)
    elif name == "triangle":
        draw.polygon([(45, 10), (25, 45), (65, 45)], fill=1)
    else:
        turns = np.arange(10) * np.pi / 5
        radii = np.where(np.arange(10) % 2, 12, 24)
        points = [
            (45 + r * np.sin(turn), 50 - r * np.cos(turn))
            for r, turn in zip(radii, turns, strict=True)
        ]
        draw.polygon(points, fill=1)
    found = shape_likeness(np.asarray(image))
    assert max(found, key=lambda shape: found[shape]) == name
    assert sum(found.values()) == pytest.approx(1)


def test_an_empty_picture_has_no_regions() -> None:
    plain = np.full((40, 40, 3), 200, dtype=np.uint8)
    assert colour_regions(plain) == []
    assert AppearanceFinder().propose(plain, ["red ball"]) == [[]]


def test_tiny_worlds_instances_are_found(tmp_path: Path) -> None:
    write_split(tmp_path, 60, seed=1, split="train")
    clips = Dataset(tmp_path)
    overlaps: list[float] = []
    for index in range(len(clips)):
        masks = first_masks(clips.tracks(index))
        phrases = {one.id: one.phrase for one in clips.sample(index).instances if one.id in masks}
        found = locate(AppearanceFinder(), clips.video(index).frames_THWC[0], phrases)
        for key, one in found.items():
            overlaps.append(overlap(one.proposal.mask_HW, masks[key]) if one.proposal else 0.0)
    right = [value for value in overlaps if value >= 0.5]
    assert len(right) >= 0.98 * len(overlaps)
    assert np.mean(right) > 0.98
