"""Boxes of instances over a strip, in the colours that the questions name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from matrix_video.data.sample import Sample
from matrix_video.data.tracks import MaskTrack, State
from matrix_video.evaluation.questions import BOX_COLOURS
from matrix_video.report.strip import Strip


@dataclass(frozen=True)
class BoxPath:
    """The boxes of one instance in all frames of a strip: an SVG path in pixels of the strip."""

    colour: int
    """Index into `BOX_COLOURS`."""
    path: str


def box_paths(sample: Sample, tracks: Mapping[str, MaskTrack], strip: Strip) -> tuple[BoxPath, ...]:
    """Boxes of the instances that have a colour, in the frames in which they are visible."""
    found: list[BoxPath] = []
    for colour, instance in enumerate(sample.instances[: len(BOX_COLOURS)]):
        track = tracks.get(instance.id)
        if track is None:
            continue
        x_scale, y_scale = strip.width / track.width, strip.height / track.height
        parts: list[str] = []
        for row, t in enumerate(range(0, len(track), strip.stride)):
            if track.states[t] is not State.VISIBLE or row >= strip.frames:
                continue
            rows, columns = np.nonzero(track.mask(t))
            left, right = columns.min() * x_scale, (columns.max() + 1) * x_scale
            top, foot = rows.min() * y_scale, (rows.max() + 1) * y_scale
            y = row * strip.height + top
            parts.append(f"M{left:.4g} {y:.6g}H{right:.4g}V{y + foot - top:.6g}H{left:.4g}z")
        if parts:
            found.append(BoxPath(colour, "".join(parts)))
    return tuple(found)
