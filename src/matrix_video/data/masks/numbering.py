"""Which frame of which object a mask is: from file and array names, and against the video."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matrix_video.services.errors import MatrixError

_NUMBER = re.compile(r"[0-9]+")
_WORDS: Final = {
    "object": ("obj", "id", "inst", "mask", "track"),
    "frame": ("frame", "f", "img", "image", "t"),
}
_NAME = re.compile(r"<?(?:obj(?:ect)?|id|inst(?:ance)?|mask|track)?[ _-]*([0-9]+)>?", re.IGNORECASE)


def object_name(text: str) -> str:
    """``id1``, ``<id1>``, ``obj_001`` and ``001`` are object ``1``; other names stay."""
    match = _NAME.fullmatch(text.strip())
    return str(int(match.group(1))) if match else text.strip()


@dataclass(frozen=True)
class Place:
    """``frame`` as the masks number it; ``object`` None where one mask holds all objects."""

    frame: int
    object: str | None


def places(names: Iterable[str], source: Path) -> dict[str, Place]:
    """What every name says, such as ``00000``, ``frame_00000``, ``0-7``, ``ball/00000``.

    The number that varies is the frame. Where two vary, the words before them tell (``obj1_f7``),
    else the one with more values is the frame. A folder is an object, unless it is called a frame
    or there are more of them than of files in them. Raises ``MatrixError`` where that leaves a
    doubt, and where two names say the same.
    """
    names = list(names)
    folders = {name: name.rpartition("/")[0] for name in names}
    files = {name: name.rpartition("/")[2] for name in names}
    found: dict[str, Place] = {}
    if any(folders.values()) and _by_frame(folders.values(), files.values()):
        for name in names:
            number = int(_NUMBER.findall(folders[name])[-1])
            found[name] = Place(number, object_name(files[name]))
    else:
        frame, thing = _columns(list(files.values()), source)
        for name, file in files.items():
            numbers = _NUMBER.findall(file)
            owner = numbers[thing] if thing is not None else None
            owner = folders[name] or owner
            number = int(numbers[frame]) if frame is not None else 0
            found[name] = Place(number, object_name(owner) if owner else None)
    seen: dict[Place, str] = {}
    for name, place in found.items():
        if place in seen:
            raise _unclear(f"{seen[place]!r} and {name!r} are the same", source)
        seen[place] = name
    return found


def _by_frame(folders: Iterable[str], files: Iterable[str]) -> bool:
    """Whether folders are frames, and the files in them objects."""
    distinct = set(folders)
    if not all(_NUMBER.search(folder) for folder in distinct):
        return False
    words = {_kind(_NUMBER.split(folder)[0]) for folder in distinct}
    return words == {"frame"} or (words == {None} and len(distinct) > len(set(files)))


def _columns(files: list[str], source: Path) -> tuple[int | None, int | None]:
    """Which of the numbers in a file's name is the frame, and which the object."""
    shapes = sorted({_NUMBER.sub("0", file) for file in files})
    if len(shapes) > 1:
        raise _unclear(f"they are named both like {shapes[0]!r} and like {shapes[1]!r}", source)
    columns = list(zip(*([int(n) for n in _NUMBER.findall(file)] for file in files), strict=True))
    if not columns:
        return None, None
    kinds = [_kind(word) for word in _NUMBER.split(files[0])[:-1]]
    varying = [i for i, column in enumerate(columns) if len(set(column)) > 1]
    varying = varying or [len(columns) - 1]
    if len(varying) == 1:
        only = varying[0]
        if kinds[only] == "object" and len(columns) > 1:  # objects of one and the same frame
            return max(i for i in range(len(columns)) if i != only), only
        return only, None  # a mask_00007 alone counts frames
    if len(varying) > 2:
        raise _unclear(f"{len(varying)} numbers in them vary", source)
    first, second = varying
    if kinds[first] != kinds[second]:
        frame = first if kinds[first] == "frame" or kinds[second] == "object" else second
    elif len(set(columns[first])) != len(set(columns[second])):
        frame = max(varying, key=lambda i: len(set(columns[i])))
    else:
        raise _unclear("two numbers in them vary alike, and nothing says which is which", source)
    return frame, second if frame == first else first


def _kind(word: str) -> str | None:
    """Whether the text before a number calls it an object or a frame."""
    match = re.search(r"([a-z]+)[^a-z]*$", word.lower())
    last = match.group(1) if match else ""
    return next((kind for kind, known in _WORDS.items() if last.startswith(known)), None)


def _unclear(problem: str, source: Path) -> MatrixError:
    return MatrixError(
        f"the masks' names do not tell their frames: {problem}",
        remedy="Name them 00000.png, 00001.png, ... by frame; with a mask for each object, put "
        "each object's into a folder of its own",
        file=source,
    )


def frames_of(
    numbers: Sequence[int], num_frames: int, stride: int | None, source: Path
) -> tuple[dict[int, int], list[str]]:
    """The video's frame of every mask number, and what is worth telling.

    Numbers count from 0, or from 1 where the least is 1. ``stride``: the masks were made for every
    so many frames of the video; None: they must not look it. Raises ``MatrixError`` for a number
    past the video's end, and for few masks, numbered in a row, that would all land at its start.
    """
    ordered = sorted(numbers)
    notes: list[str] = []
    first = 1 if ordered[0] == 1 else 0
    if first:
        notes.append(f"masks are numbered from 1 ({ordered[0]} to {ordered[-1]})")
    inarow = ordered == list(range(first, first + len(ordered)))
    if stride is not None and not inarow and all((n - first) % stride == 0 for n in ordered):
        step = 1  # the numbers are the video's own frames already
    else:
        step = stride or 1
    found = {n: (n - first) * step for n in ordered}
    last = found[ordered[-1]]
    if last >= num_frames:
        raise MatrixError(
            f"there is a mask numbered {ordered[-1]}"
            + (f", frame {last} at a stride of {step}" if step > 1 else "")
            + f", but the video has {num_frames} frames (0 to {num_frames - 1})",
            remedy="Make the masks from this very video"
            + (", or give the stride that they were made with (--stride)" if step > 1 else ""),
            file=source,
        )
    # Every second frame of 49 is 25 masks.
    if stride is None and inarow and 2 * len(ordered) <= num_frames + 1 and len(ordered) > 1:
        likely = -(-num_frames // len(ordered))
        likely = likely if (len(ordered) - 1) * likely < num_frames else likely - 1
        raise MatrixError(
            f"{len(ordered)} masks, numbered in a row, for a video of {num_frames} frames: they "
            "would all land on its first frames",
            remedy=f"Give --stride {likely} if the masks are of one frame in {likely}, or "
            "--stride 1 if they are of the first frames alone",
            file=source,
        )
    missing = num_frames - len(found)
    if missing:
        notes.append(f"{missing} of {num_frames} frames have no mask and count as unknown")
    return found, notes


def match_names(wanted: Sequence[str], found: Mapping[str, int], source: Path) -> dict[str, str]:
    """The masks' name of every wanted object; ``found`` holds the pixels of each name.

    A single object that the masks hold stands for a single wanted one, whatever its name.
    Raises one ``MatrixError`` for all that are missing.
    """
    ours = {name: object_name(name) for name in wanted}
    if len(found) == 1 and len(ours) == 1:
        return {next(iter(ours)): next(iter(found))}
    missing = [name for name, known in ours.items() if known not in found]
    if not missing:
        return ours
    shown = ", ".join(f"{name} ({count} pixels)" for name, count in list(found.items())[:12])
    if len(found) > 12:
        shown += f" and {len(found) - 12} more"
    if len(found) == 1:
        remedy = (
            f"White-on-black masks hold one object: give each of the {len(ours)} a folder of "
            "masks of its own, named by its id (1/00000.png, 2/00000.png)"
        )
    else:
        remedy = "Name the instances by the numbers or colours (#rrggbb) that the masks hold"
    raise MatrixError(
        f"no mask shows {', '.join(map(repr, missing))}; the masks hold {shown or 'nothing'}",
        remedy=remedy,
        file=source,
    )
