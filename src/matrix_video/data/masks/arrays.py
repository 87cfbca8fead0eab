"""Masks in arrays: npz and npy, as one file for a clip or one for each frame.

Shapes: T frames, N objects, H rows, W columns.
"""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from matrix_video.data.masks.numbering import Place, object_name, places
from matrix_video.data.masks.pictures import Frame, Mask, Picture
from matrix_video.services.errors import MatrixError

ARRAYS: Final = frozenset({".npz", ".npy"})
_LARGEST = 1 << 33
"""Bytes of the arrays of a file; their headers tell them before they are loaded."""
_IDS: Final = ("obj_ids", "object_ids", "out_obj_ids", "ids")
_Array = NDArray[Any]


def array_frames(path: Path, size: tuple[int, int] | None, num_frames: int) -> dict[int, Frame]:
    """One file for the clip: ids [T,H,W], masks [T,N,H,W], [N,T,H,W] or [T,H,W,N], an array an
    object, or an array a frame."""
    arrays = _load(path)
    if not arrays:
        return {}
    names = _names(arrays)
    least = 2 if len(arrays) > 1 and num_frames > 1 else 3
    arrays = {key: _squeezed(array, least) for key, array in arrays.items()}
    many = len(arrays) > 1
    frames: dict[int, Frame] = {}
    if many and all(array.ndim == 2 for array in arrays.values()):  # a frame, or frame and object
        grouped: dict[int, dict[str, _Array]] = defaultdict(dict)
        for name, place in places(arrays, path).items():
            grouped[place.frame][place.object or ""] = arrays[name]
        return {n: _later(group, path) for n, group in sorted(grouped.items())}
    if many and all(a.ndim == 3 and len(a) < len(arrays) for a in arrays.values()):
        # More arrays than rows in each: objects of a frame.
        for key, place in sorted(places(arrays, path).items(), key=lambda item: item[1].frame):
            frames[place.frame] = _later(_stack(key, arrays[key], names, path), path)
        return frames
    by_object: dict[str, _Array] = {}
    for key, array in arrays.items():
        if array.ndim == 4:  # frames first, unless only the second axis has their number
            if size is not None and array.shape[1:3] == size != array.shape[2:]:
                array = np.moveaxis(array, -1, 1)
            swap = array.shape[1] == num_frames != array.shape[0]
            stacked = array.swapaxes(0, 1) if swap else array
            if many:
                raise _shape(key, array, path)
            by_object = _stack(key, stacked.swapaxes(0, 1), names, path)
        elif array.ndim == 3:
            by_object[object_name(key) if many else ""] = array
        else:
            raise _shape(key, array, path)
    lengths = {len(array) for array in by_object.values()}
    if len(lengths) != 1:
        raise MatrixError(
            f"the arrays hold different numbers of frames: {sorted(lengths)}",
            remedy="Give every object one mask for each frame",
            file=path,
        )
    for t in range(lengths.pop()):
        frames[t] = _later({name: array[t] for name, array in by_object.items()}, path)
    return frames


def array_files(path: Path, files: Mapping[str, Path]) -> dict[int, Frame]:
    """A file a frame: ids [H,W], masks [N,H,W], or an array [H,W] an object."""

    def read(file: Path) -> Picture:
        arrays = _load(file)
        names = _names(arrays)
        by_object: dict[str, _Array] = {}
        for key, array in arrays.items():
            array = _squeezed(array, 2)
            if array.ndim == 3:
                by_object |= _stack(key, array, names, file)
            elif array.ndim == 2:
                by_object[object_name(key) if len(arrays) > 1 else ""] = array
            else:
                raise _shape(key, array, file)
        return _later(by_object, file)()

    grouped: dict[int, list[tuple[Place, Path]]] = defaultdict(list)
    for name, place in places(files, path).items():
        grouped[place.frame].append((place, files[name]))

    def reader(group: list[tuple[Place, Path]]) -> Frame:
        def frame() -> Picture:
            pictures = [(place.object, read(file)) for place, file in group]
            masks: dict[str, Mask] = {}
            for name, picture in pictures:
                for key, mask in picture.masks.items():
                    masks[key if name is None else name] = mask
            return Picture(pictures[0][1].size, masks)

        return frame

    return {number: reader(group) for number, group in sorted(grouped.items())}


def _load(path: Path) -> dict[str, _Array]:
    """Arrays by name, never by pickle; their headers are read before their contents."""
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
            return {"masks": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
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


def _names(arrays: dict[str, _Array]) -> tuple[str, ...]:
    """The objects' names where an array beside the masks holds them; it is taken out."""
    key = next((key for key in _IDS if key in arrays and arrays[key].ndim == 1), None)
    return () if key is None else tuple(object_name(str(v)) for v in arrays.pop(key).tolist())


def _stack(key: str, array: _Array, names: tuple[str, ...], path: Path) -> dict[str, _Array]:
    """An array of objects, by their names or numbers from 1."""
    names = names or tuple(str(i + 1) for i in range(len(array)))
    if len(names) != len(array):
        raise _shape(key, array, path)
    return dict(zip(names, array, strict=True))


def _squeezed(array: _Array, least: int) -> _Array:
    """Without SAM's axis of one channel before rows and columns."""
    while array.ndim > least and array.shape[-3] == 1:
        array = array.squeeze(-3)
    return array


def _later(group: Mapping[str, _Array], path: Path) -> Frame:
    def read() -> Picture:
        masks: dict[str, Mask] = {}
        size = next(iter(group.values())).shape
        for name, array_HW in group.items():
            if array_HW.shape != size or array_HW.ndim != 2:
                raise _shape(name, array_HW, path)
            if not name and _holds_ids(array_HW):
                values = [int(v) for v in np.unique(array_HW) if v != 0]
                masks |= {str(v): array_HW == v for v in values}
            else:
                masks[name or "1"] = _boolean(array_HW, path)
        return Picture(cast("tuple[int, int]", size), masks)

    return read


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
