"""Masks as COCO run lengths in JSON: by object, by frame, as SA-V's masklets or VIS annotations.

Shapes: H rows, W columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sized
from functools import partial
from pathlib import Path
from typing import Any, cast

from matrix_video.data.masks.numbering import object_name, places
from matrix_video.data.masks.pictures import Mask, Part, Picture
from matrix_video.data.tracks import rle_counts, rle_mask
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import read_json


def rle_parts(path: Path) -> list[Part]:
    """COCO run lengths as JSON: by object, by frame, as SA-V's masklets or as VIS annotations."""
    value: Any = read_json(path, strict=True)
    frames: dict[int, dict[str, object]] = defaultdict(dict)
    try:
        for frame, name, rle in _entries(value, path):
            known = object_name(name)
            if known in frames[frame]:
                raise _arrangement(f"two masks of the object {known!r} for frame {frame}", path)
            frames[frame][known] = rle
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _arrangement(f"an entry of another kind ({error})", path) from error
    return [Part(n, None, path, partial(_picture, n, group, path)) for n, group in frames.items()]


def _picture(number: int, group: Mapping[str, object], path: Path) -> Picture:
    """A null is an object that is not seen."""
    masks: dict[str, Mask] = {}
    size = 0, 0
    for name, rle in group.items():
        if rle is None:
            continue
        try:
            size, counts = rle_counts(rle)
        except ValueError as error:
            raise MatrixError(
                f"{error}",
                remedy="Store COCO run lengths: {'size': [rows, columns], 'counts': ...}",
                file=path,
                field=f"frame {number}: {name}",
            ) from error
        masks[name] = rle_mask(size, counts)
    return Picture(size, masks)


def _entries(value: Any, path: Path) -> Iterator[tuple[int, str, object]]:
    """(frame, object, run lengths or null) of every known arrangement."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        if isinstance(fields.get("masklet"), list):  # SA-V
            for frame, row in enumerate(fields["masklet"]):
                ids = fields.get("masklet_id") or range(len(row))
                yield from ((frame, str(i), rle) for i, rle in zip(ids, row, strict=True))
            return
        if isinstance(fields.get("annotations"), list):  # VIS
            if len({a.get("video_id") for a in fields["annotations"]}) > 1:
                raise _arrangement("annotations of several videos", path)
            _same_lengths((one["segmentations"] for one in fields["annotations"]), path)
            for one in fields["annotations"]:
                for frame, rle in enumerate(one["segmentations"]):
                    yield frame, str(one.get("id", 1)), rle
            return
        rows = {k: v for k, v in fields.items() if isinstance(v, list | dict)}
        if rows and all(isinstance(v, list) for v in rows.values()):  # by object
            _same_lengths(rows.values(), path)
            for name, row in rows.items():
                yield from ((frame, name, rle) for frame, rle in enumerate(row))
            return
        if rows and all("counts" in v for v in rows.values()):  # run lengths by name
            for name, place in places(rows, path).items():
                yield place.frame, place.object or "1", rows[name]
            return
        by_frame = {k: cast("dict[str, Any]", v) for k, v in rows.items() if isinstance(v, dict)}
        if rows and len(by_frame) == len(rows):
            for name, place in places(by_frame, path).items():
                yield from ((place.frame, key, rle) for key, rle in by_frame[name].items())
            return
    elif isinstance(value, list) and value:
        for frame, row in enumerate(cast("list[Any]", value)):
            if isinstance(row, dict) and "counts" in row:
                yield frame, "1", row
            elif isinstance(row, dict):
                yield from ((frame, key, rle) for key, rle in row.items())
            elif isinstance(row, list):
                yield from ((frame, str(i + 1), rle) for i, rle in enumerate(row))
            elif row is not None:
                raise _arrangement(f"a {type(row).__name__} for frame {frame}", path)
        return
    raise _arrangement("no run lengths that we know", path)


def _same_lengths(rows: Iterable[Sized], path: Path) -> None:
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:  # the end of a shorter list would read as "not seen"
        raise _arrangement(f"lists of {sorted(lengths)} frames for its objects", path)


def _arrangement(found: str, path: Path) -> MatrixError:
    return MatrixError(
        f"the file holds {found}",
        remedy='Give {"1": [run lengths of frame 0, of frame 1, ...], "2": ...}, with null where '
        "the object is not seen",
        file=path,
    )
