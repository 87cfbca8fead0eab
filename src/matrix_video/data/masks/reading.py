"""A clip's masks, whoever made them, as mask tracks that fit its video.

Shapes: H rows, W columns.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matrix_video.data.masks.arrays import ARRAYS, array_parts, array_picture
from matrix_video.data.masks.numbering import frames_of, match_names, places
from matrix_video.data.masks.pictures import (
    SUFFIXES,
    Mask,
    Part,
    Picture,
    read_picture,
    wrong_size,
)
from matrix_video.data.masks.runlengths import rle_parts
from matrix_video.data.tracks import MaskTrack, State, encode_rle, resize_masks
from matrix_video.services.errors import MatrixError


@dataclass(frozen=True)
class MaskSet:
    """Tracks by object, the files that they came from, and what is worth telling of them."""

    tracks: dict[str, MaskTrack]
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def read_masks(
    path: Path,
    size: tuple[int, int],
    num_frames: int,
    *,
    names: Sequence[str] | None = None,
    stride: int | None = None,
    resize: bool = False,
) -> MaskSet:
    """Read the masks of one video, whose ``size`` is (H, W).

    ``path`` is a folder of pictures (a frame each, with numbers, palette indices or flat colours
    for objects, or a folder for each object, or ``<object>-<frame>``), an .npz or .npy array
    (ids [T,H,W], masks [T,N,H,W], an array an object) or a folder of such, or a .json of COCO run
    lengths (by object, by frame, SA-V, VIS).

    ``names``: the objects that are wanted, as numbers, words, or ``#rrggbb``; ``id1``, ``obj_1``
    and ``001`` are 1. None: all, under the names of the masks. ``stride``: the masks were made for
    every so many frames of the video; frames without masks are unknown. ``resize``: stretch masks
    of another size, by area, instead of refusing them.

    Frames are read one by one. Raises ``MatrixError``, with one fault of many masks told once.
    """
    parts, notes = _parts(path, None if resize else size, num_frames)
    placed, more = frames_of(sorted({part.frame for part in parts}), num_frames, stride, path)
    notes += more
    found: dict[str, _Object] = defaultdict(_Object)
    faults: dict[str, list[MatrixError]] = defaultdict(list)
    everywhere: set[int] = set()
    between = softened = 0
    sizes: set[tuple[int, int]] = set()
    for part in parts:
        t = placed[part.frame]
        try:
            picture = part.read()
            masks = _owned(picture, part)
            if picture.size not in (size, (0, 0)) and not resize:
                raise wrong_size(picture.size, size, path)
        except MatrixError as error:
            faults[error.problem].append(error)
            continue
        if masks:
            sizes.add(picture.size)
        if part.object is None:
            everywhere.add(t)
        else:
            found[part.object].annotated.add(t)
        between += picture.between
        softened += picture.between > 0
        for name, mask_HW in masks.items():
            fits = picture.size == size
            found[name].add(t, mask_HW if fits else resize_masks(mask_HW[None], size)[0])
    if faults:
        raise _once(faults)
    plain = _plain(list(found))
    found = {plain[name]: one for name, one in found.items()}
    pixels = Counter({name: one.pixels for name, one in found.items()})
    if not any(pixels.values()):
        raise MatrixError(
            "all masks are empty", remedy="Make the masks again, or leave this clip out", file=path
        )
    chosen = {name: name for name in found} if names is None else match_names(names, pixels, path)
    if between:
        notes.append(
            f"{softened} masks hold values in between on their borders (smoothed or lossy): "
            f"{between} pixels against {pixels.total()} in objects"
        )
    if sizes - {size}:
        notes.append(f"masks of {_by(next(iter(sizes - {size})))} were stretched to {_by(size)}")
    others = [f"{n} ({pixels[n]} pixels)" for n in found if n not in chosen.values()]
    if others:
        notes.append(f"objects that nothing names: {', '.join(others[:8])}, {len(others)} in all")
    notes += [
        f"object {name} covers all corners and most of every frame: is it the background?"
        for name, one in found.items()
        if one.covering == len(placed)
    ]
    tracks = {
        wanted: found[name].track(everywhere, size, num_frames) for wanted, name in chosen.items()
    }
    return MaskSet(tracks, tuple(dict.fromkeys(part.file for part in parts)), tuple(notes))


class _Object:
    """What was read of one object."""

    def __init__(self) -> None:
        self.rles: dict[int, str] = {}
        self.annotated: set[int] = set()
        """Frames with masks of this object alone."""
        self.pixels = self.covering = 0

    def add(self, t: int, mask_HW: Mask) -> None:
        if not mask_HW.any():
            return
        self.rles[t] = encode_rle(mask_HW)
        pixels = int(mask_HW.sum())
        self.pixels += pixels
        corners = mask_HW[[0, 0, -1, -1], [0, -1, 0, -1]]
        self.covering += bool(corners.all()) and 2 * pixels > mask_HW.size

    def track(self, everywhere: set[int], size: tuple[int, int], num_frames: int) -> MaskTrack:
        states = tuple(
            State.VISIBLE
            if t in self.rles
            else State.ABSENT
            if t in everywhere or t in self.annotated
            else State.UNKNOWN
            for t in range(num_frames)
        )
        return MaskTrack(*size, states, tuple(self.rles.get(t) for t in range(num_frames)))


def _parts(
    path: Path, size: tuple[int, int] | None, num_frames: int
) -> tuple[list[Part], list[str]]:
    """What holds masks at ``path``, and notes. ``size`` (None: any) and ``num_frames`` of the video
    tell the axes of arrays apart."""
    suffix = path.suffix.lower()
    parts: list[Part] = []
    notes: list[str] = []
    if path.is_dir():
        parts, notes = _folder(path)
    elif suffix == ".json":
        parts = rle_parts(path)
    elif suffix in ARRAYS:
        parts = array_parts(path, size, num_frames)
    if not parts:
        raise MatrixError(
            "no masks were found",
            remedy="Give a folder of mask pictures (.png), arrays (.npz, .npy) or run lengths "
            "(.json)",
            file=path,
        )
    return parts, notes


def _folder(path: Path) -> tuple[list[Part], list[str]]:
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    pictures = [f for f in files if f.suffix.lower() in SUFFIXES]
    arrays = [f for f in files if f.suffix.lower() in ARRAYS]
    if pictures and arrays:
        raise MatrixError(
            "the folder holds both pictures and arrays", remedy="Keep one of the two", file=path
        )
    known, read = (arrays, array_picture) if arrays else (pictures, read_picture)
    root = path  # below folders that hold nothing but the next, such as one of the video's name
    while known and all(len(f.relative_to(root).parts) > 2 for f in known):
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
    by_name = {f.relative_to(root).with_suffix("").as_posix(): f for f in known}
    if len(by_name) < len(known):
        raise MatrixError(
            "two masks differ in the kind of file alone", remedy="Keep one of each", file=path
        )
    parts = [
        Part(p.frame, p.object, by_name[n], partial(read, by_name[n]))
        for n, p in places(by_name, path).items()
    ]
    left = len(files) - len(known)
    return parts, [f"{left} files beside the masks are no pictures and left aside"] if left else []


def _owned(picture: Picture, part: Part) -> Mapping[str, Mask]:
    """The masks; of a named object the one that there is, under that name."""
    if part.object is None:
        return picture.masks
    if len(picture.masks) > 1:
        raise MatrixError(
            f"a mask of the one object {part.object!r} holds the values {', '.join(picture.masks)}",
            remedy="Store each object's mask as 0 and one other value, or all objects in "
            "pictures of one folder",
            file=part.file,
        )
    return dict(zip([part.object], picture.masks.values(), strict=False))


def _once(faults: Mapping[str, Sequence[MatrixError]]) -> MatrixError:
    """The first fault, how many masks share it, and how many other faults there are."""
    problem, same = next(iter(faults.items()))
    others = sum(map(len, faults.values())) - len(same)
    more = f" ({len(same)} masks like this)" if len(same) > 1 else ""
    more += f" ({others} masks have other faults)" if others else ""
    first = same[0]
    return MatrixError(problem + more, remedy=first.remedy, file=first.file, field=first.field)


def _plain(names: Sequence[str]) -> dict[str, str]:
    """Names of colours as numbers, where all are greys, or indices of the common palette.

    That palette (PASCAL VOC's, which DAVIS and SAM 2 use) spreads the bits of an index over the
    high bits of the three channels.
    """
    colours = {name: int(name[1:], 16) for name in names if name.startswith("#")}
    if len(colours) == len(names):
        if all(c == (c & 255) * 0x010101 for c in colours.values()):
            return {name: str(c & 255) for name, c in colours.items()}
        known = {_palette_colour(index): str(index) for index in range(256)}
        if all(c in known for c in colours.values()):
            return {name: known[c] for name, c in colours.items()}
    return {name: name for name in names}


def _palette_colour(index: int) -> int:
    colour = 0
    for place in range(8):
        for channel in range(3):  # red, green, blue
            bit = index >> (3 * place + channel) & 1
            colour |= bit << (16 - 8 * channel + 7 - place)
    return colour


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
