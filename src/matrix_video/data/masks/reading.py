"""A clip's masks, whoever made them, as mask tracks that fit its video.

Shapes: H rows, W columns.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matrix_video.data.masks.numbering import frames_of, match_names
from matrix_video.data.masks.pictures import Mask, Picture, wrong_size
from matrix_video.data.masks.sources import open_masks
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
    source = open_masks(path, None if resize else size, num_frames)
    placed, notes = frames_of(list(source.frames), num_frames, stride, path)
    rles: dict[str, dict[int, str]] = defaultdict(dict)
    pixels: Counter[str] = Counter()
    faults: dict[str, list[MatrixError]] = defaultdict(list)
    annotated: dict[str, set[int]] = defaultdict(set)
    everywhere: set[int] = set()
    whole: Counter[str] = Counter()
    between = softened = 0
    sizes: set[tuple[int, int]] = set()
    for number, read in source.frames.items():
        try:
            picture = read()
            masks = _fitted(picture, size, resize, path)
        except MatrixError as error:
            faults[error.problem].append(error)
            continue
        if picture.masks:
            sizes.add(picture.size)
        if picture.known is None:
            everywhere.add(placed[number])
        for name in picture.known or ():
            annotated[name].add(placed[number])
        between += picture.between
        softened += picture.between > 0
        for name, mask_HW in masks.items():
            if mask_HW.any():
                rles[name][placed[number]] = encode_rle(mask_HW)
                pixels[name] += int(mask_HW.sum())
                whole[name] += _covers_corners(mask_HW)
            else:
                rles.setdefault(name, {})
    if faults:
        raise _once(faults)
    aliases = _plain(rles)
    rles = {aliases[name]: by_frame for name, by_frame in rles.items()}
    pixels = Counter({aliases[name]: pixels[name] for name in aliases})
    if not rles or not any(pixels.values()):
        raise MatrixError(
            "all masks are empty", remedy="Make the masks again, or leave this clip out", file=path
        )
    chosen = {name: name for name in rles} if names is None else match_names(names, pixels, path)
    if between:
        notes.append(
            f"{softened} masks hold values in between on their borders (smoothed or lossy): "
            f"{between} pixels against {pixels.total()} in objects"
        )
    if sizes - {size}:
        notes.append(f"masks of {_by(next(iter(sizes - {size})))} were stretched to {_by(size)}")
    others = [f"{n} ({pixels[n]} pixels)" for n in rles if n not in chosen.values()]
    if others:
        notes.append(f"objects that nothing names: {', '.join(others[:8])}, {len(others)} in all")
    own = {alias: name for name, alias in aliases.items()}
    notes += [
        f"object {name} covers all corners and most of every frame: is it the background?"
        for name in rles
        if whole[own[name]] == len(source.frames)
    ]
    tracks = {
        wanted: _track(rles[found], everywhere | annotated[own[found]], size, num_frames)
        for wanted, found in chosen.items()
    }
    return MaskSet(tracks, source.files, (*source.notes, *notes))


def _fitted(
    picture: Picture, size: tuple[int, int], resize: bool, path: Path
) -> Mapping[str, Mask]:
    if picture.size == size or not picture.masks:
        return picture.masks
    if not resize:
        raise wrong_size(picture.size, size, path)
    return {n: resize_masks(mask_HW[None], size)[0] for n, mask_HW in picture.masks.items()}


def _covers_corners(mask_HW: Mask) -> bool:
    return bool(mask_HW[[0, 0, -1, -1], [0, -1, 0, -1]].all()) and 2 * mask_HW.sum() > mask_HW.size


def _track(
    rles: Mapping[int, str], annotated: set[int], size: tuple[int, int], num_frames: int
) -> MaskTrack:
    states = tuple(
        State.VISIBLE if t in rles else State.ABSENT if t in annotated else State.UNKNOWN
        for t in range(num_frames)
    )
    return MaskTrack(*size, states, tuple(rles.get(t) for t in range(num_frames)))


def _once(faults: Mapping[str, Sequence[MatrixError]]) -> MatrixError:
    """The first fault, how many masks share it, and how many other faults there are."""
    problem, same = next(iter(faults.items()))
    others = sum(map(len, faults.values())) - len(same)
    more = f" ({len(same)} masks like this)" if len(same) > 1 else ""
    more += f" ({others} masks have other faults)" if others else ""
    first = same[0]
    return MatrixError(problem + more, remedy=first.remedy, file=first.file, field=first.field)


def _plain(names: Mapping[str, object]) -> dict[str, str]:
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
