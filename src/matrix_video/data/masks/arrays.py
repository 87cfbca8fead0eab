"""Masks in arrays: npz and npy, as one file for a clip or one for each frame.

Shapes: T frames, N objects, H rows, W columns.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from matrix_video.data.masks.numbering import object_name, places
from matrix_video.data.masks.pictures import Mask, Part, Picture
from matrix_video.services.errors import MatrixError

ARRAYS: Final = frozenset({".npz", ".npy"})
_LARGEST = 1 << 33
"""Bytes of the arrays of a file; their headers tell them before they are loaded."""
_IDS: Final = ("obj_ids", "object_ids", "out_obj_ids", "ids")
_Array = NDArray[Any]


def array_parts(path: Path, size: tuple[int, int] | None, num_frames: int) -> list[Part]:
    """One file for the clip: ids [T,H,W], masks [T,N,H,W], [N,T,H,W] or [T,H,W,N], an array an
    object, or an array a frame."""
    arrays, names = _load(path)
    many = len(arrays) > 1
    arrays = {k: _squeezed(a, 2 if many and num_frames > 1 else 3) for k, a in arrays.items()}

    def part(frame: int, name: str | None, array_HW: _Array) -> Part:
        return Part(frame, name, path, partial(_picture, [(name, array_HW)], path))

    kinds = {array.ndim for array in arrays.values()}
    if many and kinds == {2}:  # a frame, or frame and object
        return [part(p.frame, p.object, arrays[key]) for key, p in places(arrays, path).items()]
    if many and kinds == {3} and all(len(array) < len(arrays) for array in arrays.values()):
        # More arrays than rows in each: objects of a frame.
        return [
            part(place.frame, name, mask_HW)
            for key, place in places(arrays, path).items()
            for name, mask_HW in _stack(key, arrays[key], names, path)
        ]
    by_object: list[tuple[str | None, _Array]] = []
    for key, array in arrays.items():
        if array.ndim == 3:
            by_object.append((object_name(key) if many else None, array))
            continue
        if array.ndim != 4 or many:
            raise _shape(key, array, path)
        if size is not None and array.shape[1:3] == size != array.shape[2:]:
            array = np.moveaxis(array, -1, 1)
        # Frames come first, unless only the second axis has their number.
        turned = array.shape[1] == num_frames != array.shape[0]
        by_object += _stack(key, array if turned else array.swapaxes(0, 1), names, path)
    lengths = {len(array) for _, array in by_object}
    if len(lengths) > 1:
        raise MatrixError(
            f"the arrays hold different numbers of frames: {sorted(lengths)}",
            remedy="Give every object one mask for each frame",
            file=path,
        )
    return [part(t, name, mask) for name, masks in by_object for t, mask in enumerate(masks)]


def array_picture(path: Path) -> Picture:
    """The file of one frame: ids [H,W], masks [N,H,W], or an array [H,W] an object."""
    arrays, names = _load(path)
    found: list[tuple[str | None, _Array]] = []
    for key, array in arrays.items():
        array = _squeezed(array, 2)
        if array.ndim == 3:
            found += _stack(key, array, names, path)
        else:
            found.append((object_name(key) if len(arrays) > 1 else None, array))
    return _picture(found, path)


def _load(path: Path) -> tuple[dict[str, _Array], tuple[str, ...]]:
    """Arrays by name, never by pickle, and the objects' names where an array holds them.

    Headers are read before contents.
    """
    try:
        size = sum(_sizes(path))
        if size > _LARGEST:
            raise MatrixError(
                f"the arrays hold {size:,} bytes",
                remedy="Store the masks as pictures, or as one file for each frame",
                file=path,
            )
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"masks": loaded}, ()
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        told = (
            "it holds Python objects, which are never loaded"
            if "allow_pickle" in str(error) or "Object arrays" in str(error)
            else str(error)
        )
        raise MatrixError(
            f"the arrays cannot be read ({told})",
            remedy="Save plain arrays of numbers with numpy.savez_compressed",
            file=path,
        ) from error
    key = next((key for key in _IDS if key in arrays and arrays[key].ndim == 1), None)
    named = [] if key is None else arrays.pop(key).tolist()
    return arrays, tuple(object_name(str(value)) for value in named)


def _sizes(path: Path) -> Iterator[int]:
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            yield _bytes(file)
        return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                yield _bytes(file)


def _bytes(file: IO[bytes]) -> int:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, kind = read(file)
    count = kind.itemsize
    for length in shape:
        count *= length
    return count


def _stack(
    key: str, array: _Array, names: tuple[str, ...], path: Path
) -> Iterable[tuple[str, _Array]]:
    """The arrays of objects, with their names or numbers from 1."""
    names = names or tuple(str(i + 1) for i in range(len(array)))
    if len(names) != len(array):
        raise _shape(key, array, path)
    return zip(names, array, strict=True)


def _squeezed(array: _Array, least: int) -> _Array:
    """Without SAM's axis of one channel before rows and columns."""
    while array.ndim > least and array.shape[-3] == 1:
        array = array.squeeze(-3)
    return array


def _picture(group: list[tuple[str | None, _Array]], path: Path) -> Picture:
    """Masks of named objects; an array without a name holds ids, or the mask of object 1."""
    masks: dict[str, Mask] = {}
    size = group[0][1].shape if group else ()
    for name, array_HW in group:
        if array_HW.shape != size or array_HW.ndim != 2:
            raise _shape(name or "masks", array_HW, path)
        if name is None and _holds_ids(array_HW):
            masks |= {str(int(v)): array_HW == v for v in np.unique(array_HW) if v != 0}
        else:
            masks[name or "1"] = _boolean(array_HW, path)
    return Picture((size[0], size[1]) if size else (0, 0), masks)


def _holds_ids(array_HW: _Array) -> bool:
    """Whether numbers name objects: integers, and whole floats beyond the 1 of a mask."""
    if array_HW.dtype.kind != "f":
        return array_HW.dtype.kind in "iu"
    return bool(
        array_HW.min(initial=0) == 0 and array_HW.max(initial=0) > 1 and not (array_HW % 1).any()
    )


def _boolean(array_HW: _Array, path: Path) -> Mask:
    """Booleans and numbers as they are; logits cut at 0, probabilities at one half."""
    if array_HW.dtype.kind in "biu":
        return array_HW != 0
    if array_HW.dtype.kind != "f" or not np.isfinite(array_HW).all():
        raise MatrixError(
            f"masks of the kind {array_HW.dtype}, or with values that are no numbers",
            remedy="Store booleans, or integers that name the objects",
            file=path,
        )
    return array_HW > (0.0 if array_HW.min(initial=0) < 0 else 0.5)


def _shape(name: str, array: _Array, path: Path) -> MatrixError:
    return MatrixError(
        f"the array {name!r} has the shape {tuple(array.shape)}",
        remedy="Give ids [frames, rows, columns], or masks [frames, objects, rows, columns] with "
        "an array 'obj_ids' of their names",
        file=path,
    )
