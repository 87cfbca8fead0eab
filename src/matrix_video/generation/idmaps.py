"""First-frame masks from pictures: one flat colour an instance, black where there is none.

Shapes: I instances, H W pixels. So a person, or any segmenter, can say who is where without a data
set's mask tracks. Which colour is which instance does not matter (our choice): `paint_ids` paints
the masks anew, as in training.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matrix_video.backbones.condition import MOST_IDS
from matrix_video.data.masks.pictures import read_picture
from matrix_video.services.errors import MatrixError


def read_id_map(file: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Masks bool [I,H,W] of a picture of ``size`` (H, W), largest first.

    Numbers and palette indices name instances as colours do. Raises `MatrixError` for a file that
    is missing or holds no mask (`data.masks.pictures`), another size, and more instances than
    there can be.
    """
    if not file.is_file():
        raise MatrixError(
            "there is no such id map",
            remedy="give every prompt a picture that is named after its id, or leave out --id-maps",
            file=file,
            field="id_maps",
        )
    try:
        picture = read_picture(file)
    except MatrixError as error:
        raise MatrixError(
            error.problem,
            remedy="make the id map again: one flat colour an instance, unsmoothed, on black",
            file=file,
            field="id_maps",
        ) from error
    if picture.size != size:
        height, width = picture.size
        raise MatrixError(
            f"the id map has {height}x{width} pixels, the first frame {size[0]}x{size[1]}",
            remedy="resize it without smoothing, to the size that is generated",
            file=file,
            field="id_maps",
        )
    if len(picture.masks) > MOST_IDS:
        raise MatrixError(
            f"the id map has {len(picture.masks)} instances, room is for {MOST_IDS}",
            remedy="use one flat colour an instance, without smoothed edges, on black",
            file=file,
            field="id_maps",
        )
    masks = sorted(picture.masks.values(), key=lambda mask_HW: -int(mask_HW.sum()))
    return np.stack(masks) if masks else np.zeros((0, *size), dtype=bool)
