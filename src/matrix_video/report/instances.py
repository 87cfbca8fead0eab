"""Instances in the colours that the questions name: their phrases in a caption, and their boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from matrix_video.data.sample import Sample, Span
from matrix_video.data.tracks import MaskTrack, State
from matrix_video.evaluation.questions import BOX_COLOURS
from matrix_video.report.strip import Strip

HUES = len(BOX_COLOURS)
"""Instance colours of the style sheet; further instances begin again with the first."""


@dataclass(frozen=True)
class Piece:
    """``css`` names the colour, ``who`` the instances that the words speak of."""

    text: str
    css: str = ""
    who: str = ""


def pieces(sample: Sample) -> tuple[Piece, ...]:
    """The caption cut at its phrases; joined, they are the caption again.

    Full mentions before class nouns before verbs: where spans overlap, the first that claims the
    characters keeps them.
    """
    mentions: list[tuple[Span, str, str]] = []
    nouns: list[tuple[Span, str, str]] = []
    for index, instance in enumerate(sample.instances):
        css = f"i{index % HUES}"
        mentions += [(span, css, instance.id) for span in instance.mentions]
        nouns += [(span, css, instance.id) for span in instance.noun_spans]
    verbs = [
        (one.verb_span, "verb", f"{one.subject} → {one.object}")
        for one in sample.interactions
        if one.verb_span is not None
    ]
    kept: list[tuple[Span, str, str]] = []
    for mark in (*mentions, *nouns, *verbs):
        if all(mark[0].end <= span.start or span.end <= mark[0].start for span, _, _ in kept):
            kept.append(mark)
    found: list[Piece] = []
    at = 0
    for span, css, who in sorted(kept, key=lambda mark: mark[0].start):
        found += [Piece(sample.caption[at : span.start]), Piece(span.of(sample.caption), css, who)]
        at = span.end
    found.append(Piece(sample.caption[at:]))
    return tuple(piece for piece in found if piece.text)


def box_paths(sample: Sample, tracks: Mapping[str, MaskTrack], strip: Strip) -> dict[int, str]:
    """Boxes of instances in the frames in which they are visible, by index into `BOX_COLOURS`:
    one SVG path for all frames of the strip, in its pixels."""
    found: dict[int, str] = {}
    for colour, instance in enumerate(sample.instances[:HUES]):
        track = tracks.get(instance.id)
        if track is None:
            continue
        x_scale, y_scale = strip.width / track.width, strip.height / track.height
        for row, t in enumerate(range(0, len(track), strip.stride)):
            if track.states[t] is not State.VISIBLE or row >= strip.frames:
                continue
            rows, columns = np.nonzero(track.mask(t))
            left, right = columns.min() * x_scale, (columns.max() + 1) * x_scale
            top, foot = (row * strip.height + y * y_scale for y in (rows.min(), rows.max() + 1))
            box = f"M{left:.4g} {top:.6g}H{right:.4g}V{foot:.6g}H{left:.4g}z"
            found[colour] = found.get(colour, "") + box
    return found
