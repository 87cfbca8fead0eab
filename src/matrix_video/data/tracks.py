"""Mask tracks: one boolean mask a frame for one instance, stored as COCO RLE.

Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

_LONGEST: Final = 6
"""Digits of a run length, of five bits each: more than any frame needs."""
_LARGEST: Final = 1 << 26
"""Pixels of a mask, as of the largest frame that is decoded."""
_FLOAT32_EXACT: Final = 1 << 24


class State(StrEnum):
    """What is known of an instance in one frame (three states, our choice)."""

    VISIBLE = "visible"
    ABSENT = "absent"  # occluded or out of frame: an all-zero target
    UNKNOWN = "unknown"  # not annotated: never supervised, never scored


@dataclass(frozen=True)
class MaskTrack:
    """Masks of one instance over a clip.

    ``rles[t]`` is the COCO RLE counts string of frame t, or None where the state is not visible.
    Raises ``ValueError`` when built from parts that contradict each other: lists of different
    length, a mask in a frame that is not visible or none in one that is, an RLE that is broken,
    empty, or of another size.
    """

    height: int
    width: int
    states: tuple[State, ...]
    rles: tuple[str | None, ...]

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"masks of {self.height}x{self.width} pixels")
        if len(self.states) != len(self.rles):
            raise ValueError(f"{len(self.states)} states but {len(self.rles)} masks")
        for t, (state, counts) in enumerate(zip(self.states, self.rles, strict=True)):
            if (counts is not None) != (state is State.VISIBLE):
                raise ValueError(f"frame {t} is {state.value} but mask is {counts!r}")
            if counts is None:
                continue
            runs = run_lengths(counts, t)
            if sum(runs) != self.height * self.width:
                raise ValueError(
                    f"frame {t}: RLE covers {sum(runs)} pixels, not "
                    f"{self.height}x{self.width} = {self.height * self.width}"
                )
            if not sum(runs[1::2]):
                raise ValueError(f"frame {t} is visible but its mask is empty")

    def __len__(self) -> int:
        return len(self.states)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @classmethod
    def from_masks(cls, masks_THW: NDArray[np.bool_], unknown: Sequence[int] = ()) -> MaskTrack:
        """Encode dense masks; an empty frame is absent, frames listed in ``unknown`` unknown."""
        if masks_THW.ndim != 3 or masks_THW.dtype != np.bool_:
            raise ValueError(f"expected bool [T,H,W], got {masks_THW.dtype} {masks_THW.shape}")
        _, height, width = masks_THW.shape
        states = [State.VISIBLE if mask_HW.any() else State.ABSENT for mask_HW in masks_THW]
        for t in unknown:
            states[t] = State.UNKNOWN
        rles = tuple(
            encode_rle(mask_HW) if state is State.VISIBLE else None
            for state, mask_HW in zip(states, masks_THW, strict=True)
        )
        return cls(height, width, tuple(states), rles)

    def mask(self, t: int) -> NDArray[np.bool_]:
        """Dense mask [H,W] of frame t; all false unless visible."""
        counts = self.rles[t]
        if counts is None:
            return np.zeros((self.height, self.width), dtype=bool)
        return rle_mask(self.size, counts)

    def masks(self) -> NDArray[np.bool_]:
        """Dense masks [T,H,W]."""
        masks_THW = np.zeros((len(self), self.height, self.width), dtype=bool)
        for t in range(len(self)):
            masks_THW[t] = self.mask(t)
        return masks_THW

    def take(self, frames: Sequence[int]) -> MaskTrack:
        """The track of these frames, in this order, repeats allowed."""
        return MaskTrack(
            self.height,
            self.width,
            tuple(self.states[t] for t in frames),
            tuple(self.rles[t] for t in frames),
        )


def first_masks(tracks: Mapping[str, MaskTrack]) -> dict[str, NDArray[np.bool_]]:
    """First-frame masks [H,W] by instance id, of those that are visible there."""
    return {
        name: track.mask(0) for name, track in tracks.items() if track.states[0] is State.VISIBLE
    }


def resize_masks(masks_THW: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Masks [T,h,w] by area: cells of ``size`` (h, w) that are covered at least half.

    Cell (y, x) is the rectangle [y H/h, (y+1) H/h) x [x W/w, (x+1) W/w) of the mask. Where a frame
    covers none so far, it keeps its best cell, the first of the largest area; an empty frame stays
    empty. Areas are counted in units of 1/(h w) pixel, which makes every number an integer and the
    cut exact for any ratio, up or down.
    """
    _, height, width = masks_THW.shape
    # Every partial sum is an integer of at most H * W, so floats hold it exactly.
    kind = np.float32 if height * width <= _FLOAT32_EXACT else np.float64
    across = masks_THW.astype(kind) @ _overlap(width, size[1]).astype(kind).T
    covered_Thw = (_overlap(height, size[0]).astype(kind) @ across).astype(np.int64)
    resized_Thw = 2 * covered_Thw >= height * width
    lost = ~resized_Thw.any(axis=(1, 2)) & covered_Thw.any(axis=(1, 2))
    for t in np.flatnonzero(lost):
        resized_Thw[t].flat[int(covered_Thw[t].argmax())] = True
    return resized_Thw


@lru_cache(maxsize=64)
def _overlap(pixels: int, cells: int) -> NDArray[np.int64]:
    """Overlap [cells, pixels] of each cell with each pixel, in units of 1/cells pixel."""
    cell = np.arange(cells)[:, None]
    pixel = np.arange(pixels)[None, :]
    stop = np.minimum((cell + 1) * pixels, (pixel + 1) * cells)
    start = np.maximum(cell * pixels, pixel * cells)
    return np.maximum(stop - start, 0).astype(np.int64)


def run_lengths(counts: str, t: int = 0) -> list[int]:
    """Runs of a COCO RLE counts string, starting with background.

    The string holds base-32 digits of six bits, least significant first: bit 5 says that more
    digits follow, bit 4 of the last digit is the sign, and from the fourth run on each run is
    stored as the difference from the run two before it. We read it ourselves because the C decoder
    trusts the string to fit the size. ``ValueError`` (naming frame ``t``) where it is malformed.
    """
    digits = np.frombuffer(counts.encode(errors="surrogatepass"), np.uint8).astype(np.int64) - 48
    odd = np.flatnonzero((digits < 0) | (digits > 63))
    if len(odd):
        raise ValueError(f"frame {t}: RLE holds the character {counts[odd[0]]!r}")
    last = np.flatnonzero(~digits & 32)
    before = np.concatenate(([-1], last))
    *lengths, rest = np.diff(before, append=len(digits) - 1).tolist()
    if max(*lengths, rest, 0) > _LONGEST:
        raise ValueError(f"frame {t}: RLE holds a number without end")
    if rest:
        raise ValueError(f"frame {t}: RLE ends in the middle of a number")
    if not lengths:
        return []
    first = before[:-1] + 1
    places = np.arange(len(digits)) - np.repeat(first, lengths)
    runs = np.add.reduceat((digits & 31) << (5 * places), first)
    runs -= ((digits[last] >> 4) & 1) << (5 * np.array(lengths))
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    if runs.min() < 0:
        raise ValueError(f"frame {t}: RLE holds a run of {runs[runs < 0][0]} pixels")
    return runs.tolist()


def encode_rle(mask_HW: NDArray[np.bool_]) -> str:
    """COCO RLE counts string of a mask.

    Runs go down the columns. Their ends are found along the rows, as the mask lies in memory: to
    turn it for the encoder of pycocotools takes twice as long.
    """
    mask_HW = np.ascontiguousarray(mask_HW)
    height, width = mask_HW.shape
    rows, columns = np.divmod(np.flatnonzero(mask_HW[1:] != mask_HW[:-1]), width)
    tops = np.flatnonzero(mask_HW[0, 1:] != mask_HW[-1, :-1]) + 1
    ends = np.sort(np.concatenate((columns * height + rows + 1, tops * height)))
    start = [0, 0] if mask_HW[0, 0] else [0]  # the first run is background
    runs = np.diff(np.concatenate((start, ends, [mask_HW.size]))).tolist()
    return _packed((height, width), runs)


def rle_mask(size: tuple[int, int], counts: str) -> NDArray[np.bool_]:
    """The mask [H,W] of counts that fit ``size``, as `rle_counts` gives them."""
    return coco.decode(cast("Any", {"size": list(size), "counts": counts})).astype(bool)


def rle_counts(value: object, size: tuple[int, int] | None = None) -> tuple[tuple[int, int], str]:
    """Size (H, W) and counts string of COCO run lengths in any of their forms.

    A dict with ``size`` and ``counts``, or the counts alone, which need ``size``; counts as a
    string or as a list of runs that starts with background. Raises ``ValueError`` for another
    form or size, and for runs that do not cover the size.
    """
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        stated, value = fields.get("size"), fields.get("counts")
        match stated:
            case [int(height), int(width)] if height > 0 and width > 0:
                if size is not None and size != (height, width):
                    raise ValueError(f"RLE of {height}x{width}, not {size[0]}x{size[1]}")
                size = height, width
            case None if size is not None:
                pass
            case _:
                raise ValueError(f"RLE whose size is {stated!r}, not [rows, columns]")
    if size is None:
        raise ValueError("neither RLE with its size nor null (polygons are not read)")
    area = size[0] * size[1]
    if area > _LARGEST:
        raise ValueError(f"RLE of {size[0]}x{size[1]} pixels, at most {_LARGEST:,} are read")
    if isinstance(value, str):
        runs = run_lengths(value)
    elif isinstance(value, list):
        runs = cast("list[int]", value)
        if not all(type(run) is int and 0 <= run <= area for run in runs):
            raise ValueError("RLE runs must be whole numbers from 0 to the pixels of a frame")
    else:
        raise ValueError(f"RLE counts must be a string or a list, not {type(value).__name__}")
    if sum(runs) != area:
        raise ValueError(f"RLE covers {sum(runs)} pixels, not {size[0]}x{size[1]} = {area}")
    if isinstance(value, str):
        return size, value
    return size, _packed(size, runs)


def _packed(size: tuple[int, int], runs: list[int]) -> str:
    encoded = coco.frPyObjects(cast("Any", {"size": list(size), "counts": runs}), *size)
    return cast(bytes, encoded["counts"]).decode("ascii")  # typed str, is bytes
