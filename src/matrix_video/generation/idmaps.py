"""First-frame masks from pictures: one flat colour an instance, black where there is none.

Shapes: I instances, H W pixels. So a person, or any segmenter, can say who is where without a data
set's mask tracks. Which colour is which instance does not matter (our choice): `paint_ids` paints
the masks anew, as in training.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from matrix_video.backbones.condition import MOST_IDS
from matrix_video.services.errors import MatrixError


def read_id_map(file: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Masks bool [I,H,W] of a picture of ``size`` (H, W), largest colour first.

    Raises `MatrixError` for a file that is missing or no picture, another size, and more colours
    than there can be instances: edges that are smoothed have hundreds.
    """
    try:
        with Image.open(file) as opened:
            picture_HWC = np.asarray(opened.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise MatrixError(
            f"no picture could be read ({error})",
            remedy="give a PNG for every prompt, named after its id, or leave out --id-maps",
            file=file,
            field="id_maps",
        ) from error
    if picture_HWC.shape[:2] != size:
        height, width = picture_HWC.shape[:2]
        raise MatrixError(
            f"the id map has {height}x{width} pixels, the first frame {size[0]}x{size[1]}",
            remedy="resize it without smoothing, to the size that is generated",
            file=file,
            field="id_maps",
        )
    packed_HW = (picture_HWC.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=2)
    colours, counts = np.unique(packed_HW[packed_HW != 0], return_counts=True)
    if len(colours) > MOST_IDS:
        raise MatrixError(
            f"the id map has {len(colours)} colours, room is for {MOST_IDS} instances",
            remedy="use one flat colour an instance, without smoothed edges, on black",
            file=file,
            field="id_maps",
        )
    ordered = colours[np.argsort(-counts, kind="stable")]
    return packed_HW[None] == ordered[:, None, None]
