"""Where masks come from: folders of pictures, arrays and run lengths, all as frames of masks.

Shapes: H rows, W columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matrix_video.data.masks.arrays import ARRAYS, array_files, array_frames
from matrix_video.data.masks.numbering import places
from matrix_video.data.masks.pictures import SUFFIXES, Frame, Mask, Picture, read_picture
from matrix_video.data.masks.runlengths import rle_frames
from matrix_video.services.errors import MatrixError


@dataclass(frozen=True)
class Source:
    """Frames by number, each read when asked for.

    ``frames[n]()`` gives the masks of frame n, by object; names are decimal numbers, colours
    ``#rrggbb`` or words.
    """

    frames: Mapping[int, Frame]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def open_masks(path: Path, size: tuple[int, int] | None, num_frames: int) -> Source:
    """The masks at ``path``: a folder, an npz or npy array, JSON run lengths, or one picture.

    ``size``: what pictures must have, None for any. ``num_frames`` of the video tell frames from
    objects in arrays. Raises ``MatrixError`` for what is none of these.
    """
    if path.is_dir():
        return _folder(path, size, num_frames)
    if not path.is_file():
        raise MatrixError(
            "there are no masks here",
            remedy="Give a folder of mask pictures, an .npz or .npy array, or a .json of run "
            "lengths",
            file=path,
        )
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _frames_of(path, rle_frames(path))
    if suffix in ARRAYS:
        return _frames_of(path, array_frames(path, size, num_frames))
    if suffix in SUFFIXES:
        return Source({0: lambda: read_picture(path, size)}, (path,))
    raise _nothing(path)


def _folder(path: Path, size: tuple[int, int] | None, num_frames: int) -> Source:
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    known = [f for f in files if f.suffix.lower() in SUFFIXES | ARRAYS]
    kinds = {f.suffix.lower() in ARRAYS for f in known}
    if not known:
        raise _nothing(path)
    if len(kinds) > 1:
        raise MatrixError(
            "the folder holds both pictures and arrays",
            remedy="Keep one of the two",
            file=path,
        )
    root = path  # below folders that hold nothing but the next, such as one of the video's name
    while all(len(f.relative_to(root).parts) > 2 for f in known):
        first = {f.relative_to(root).parts[0] for f in known}
        if len(first) > 1:
            break
        root = root / first.pop()
    if any(len(f.relative_to(root).parts) > 2 for f in known):
        raise MatrixError(
            "the masks lie more than one folder deep",
            remedy="Give a folder with the masks of each object in a folder of their own, or of "
            "all objects together",
            file=path,
        )
    left = len(files) - len(known)
    notes = (f"{left} files beside the masks are no pictures and left aside",) if left else ()
    by_name = {f.relative_to(root).with_suffix("").as_posix(): f for f in known}
    if len(by_name) < len(known):
        raise MatrixError(
            "two masks differ in the kind of file alone", remedy="Keep one of each", file=path
        )
    if kinds == {True}:
        return Source(array_files(path, by_name), tuple(known), notes)
    grouped: dict[int, dict[str | None, Path]] = defaultdict(dict)
    for name, place in places(by_name, path).items():
        grouped[place.frame][place.object] = by_name[name]

    def reader(group: dict[str | None, Path]) -> Frame:
        return lambda: _merge(group, size)

    frames = {number: reader(group) for number, group in sorted(grouped.items())}
    return Source(frames, tuple(known), notes)


def _merge(group: Mapping[str | None, Path], size: tuple[int, int] | None) -> Picture:
    """One frame from a picture of all objects, or from a picture of each."""
    if None in group:
        return read_picture(group[None], size)
    masks: dict[str, Mask] = {}
    between, found = 0, (0, 0)
    for name, file in group.items():
        picture = read_picture(file, size or (found if masks else None))
        found = picture.size
        between += picture.between
        if len(picture.masks) > 1:
            raise MatrixError(
                f"a mask of the one object {name!r} holds the values {', '.join(picture.masks)}",
                remedy="Store each object's mask as 0 and one other value, or all objects in "
                "pictures of one folder",
                file=file,
            )
        empty = np.zeros(picture.size, dtype=bool)
        masks[str(name)] = next(iter(picture.masks.values()), empty)
    return Picture(found, masks, between, frozenset(masks))


def _frames_of(path: Path, masks: Mapping[int, Frame]) -> Source:
    if not masks:
        raise _nothing(path)
    return Source(masks, (path,))


def _nothing(path: Path) -> MatrixError:
    return MatrixError(
        "no masks were found",
        remedy="Give pictures (.png), arrays (.npz, .npy) or run lengths (.json)",
        file=path,
    )
