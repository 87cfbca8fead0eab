"""First-frame masks from pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matrix_video.data.dataset import Dataset
from matrix_video.data.tracks import first_masks
from matrix_video.generation.config import GenerateConfig
from matrix_video.generation.idmaps import read_id_map
from matrix_video.generation.run import load_prompt
from matrix_video.services.errors import MatrixError


def picture(file: Path, *colours: tuple[int, int, int]) -> Path:
    """Stripes of 1, 2, 3, ... columns, each of a colour, on black."""
    image_HWC = np.zeros((8, 12, 3), dtype=np.uint8)
    start = 1
    for width, colour in enumerate(colours, start=1):
        image_HWC[:, start : start + width] = colour
        start += width
    Image.fromarray(image_HWC).save(file)
    return file


def test_a_colour_is_an_instance(tmp_path: Path) -> None:
    masks = read_id_map(picture(tmp_path / "a.png", (255, 0, 0), (0, 0, 1)), (8, 12))
    assert masks.shape == (2, 8, 12)
    assert masks[0, 0].nonzero()[0].tolist() == [2, 3]  # the larger one first
    assert masks[1, 0].nonzero()[0].tolist() == [1]
    assert read_id_map(picture(tmp_path / "b.png"), (8, 12)).shape == (0, 8, 12)


def test_it_stands_for_the_tracks(prompts: Path, tmp_path: Path) -> None:
    data = Dataset(prompts)
    own = np.stack([*first_masks(data.tracks(0)).values()])
    image_HWC = np.zeros((*own.shape[1:], 3), dtype=np.uint8)
    for mask_HW, colour in zip(own, ((9, 9, 9), (200, 0, 0)), strict=True):
        image_HWC[mask_HW] = colour
    Image.fromarray(image_HWC).save(tmp_path / "p0.png")
    by_track = load_prompt(data, 0, with_masks=True).prompt.masks_IHW
    by_picture = load_prompt(data, 0, with_masks=True, id_maps=tmp_path).prompt.masks_IHW
    assert by_track is not None
    assert by_picture is not None
    assert {mask.tobytes() for mask in by_track} == {mask.tobytes() for mask in by_picture}
    assert load_prompt(data, 0, with_masks=False, id_maps=tmp_path).prompt.masks_IHW is None


def test_mistakes_are_named(tmp_path: Path) -> None:
    problem = r"p7\.png: id_maps: there is no such id map\. .*named after its id"
    with pytest.raises(MatrixError, match=problem):
        read_id_map(tmp_path / "p7.png", (8, 12))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(MatrixError, match=r"text\.png: id_maps: the mask cannot be read"):
        read_id_map(tmp_path / "text.png", (8, 12))
    flat = picture(tmp_path / "a.png", (255, 0, 0))
    with pytest.raises(MatrixError, match="has 8x12 pixels, the first frame 16x12"):
        read_id_map(flat, (16, 12))
    smooth = np.arange(8 * 12 * 3, dtype=np.uint16).reshape(8, 12, 3).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "smooth.png")
    with pytest.raises(MatrixError, match=r"no mask: it holds 9\d colours"):
        read_id_map(tmp_path / "smooth.png", (8, 12))
    with pytest.raises(MatrixError, match=r"id_maps: id maps are given, but nothing that takes"):
        GenerateConfig(prompts=tmp_path, out=tmp_path / "o", id_maps=tmp_path)


@pytest.mark.parametrize("kind", ["16 bits", "palette", "nothing around"])
def test_id_maps_are_read_as_masks_are(tmp_path: Path, kind: str) -> None:
    ids_HW = np.zeros((8, 12), np.uint16)
    ids_HW[:, :2], ids_HW[:, 6:] = 258, 515
    if kind == "16 bits":
        image = Image.fromarray(ids_HW)
    elif kind == "palette":
        image = Image.fromarray((ids_HW % 256).astype(np.uint8), mode="P")
        image.putpalette([0, 0, 0] * 2 + [90, 0, 0] * 2)  # two of one colour are two all the same
    else:  # white where nobody is, but not seen
        seen_HW = (255 * (ids_HW > 0)).astype(np.uint8)
        image = Image.fromarray(np.dstack([255 - ids_HW % 250, *[seen_HW] * 3]).astype(np.uint8))
    image.save(tmp_path / "a.png")
    masks = read_id_map(tmp_path / "a.png", (8, 12))
    assert [int(mask_HW.sum()) for mask_HW in masks] == [48, 16]
