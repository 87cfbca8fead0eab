"""A stand-in for a data set: one clip, black, whose instances are boxes side by side."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

from matrix_video.data.clip import Clip
from matrix_video.data.sample import Instance, Interaction, Sample, Span
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.video import Video

_WORDS: Final = (
    ("red", "ball", "pushes"),
    ("blue", "box", "pulls"),
    ("green", "cup", "hits"),
    ("yellow", "cat", "chases"),
    ("small", "dog", "follows"),
    ("large", "man", "carries"),
)
"""Of the stand-in tokenizer's vocabulary, so that a word is a token."""


def stand_in(clip: tuple[int, int, int], instances: int, region: float) -> Clip:
    """A clip of (T, H, W) pixels; each instance covers about ``region`` of every frame."""
    frames, height, width = clip
    caption, nouns, phrases, verbs = "", [], [], []
    for i, (colour, noun, verb) in enumerate(_WORDS[:instances]):
        start = len(caption)
        caption += f"{colour} {noun}"
        phrases.append(Span(start=start, end=len(caption)))
        nouns.append(Span(start=len(caption) - len(noun), end=len(caption)))
        if i < instances - 1:
            verbs.append(Span(start=len(caption) + 1, end=len(caption) + 1 + len(verb)))
            caption += f" {verb} "
    ids = [f"id{i + 1}" for i in range(instances)]
    known = tuple(
        Instance(
            id=ids[i],
            noun=_WORDS[i][1],
            phrase=f"{_WORDS[i][0]} {_WORDS[i][1]}",
            mentions=(phrases[i],),
            noun_spans=(nouns[i],),
        )
        for i in range(instances)
    )
    acts = tuple(
        Interaction(subject=left, verb=_WORDS[i][2], object=right, verb_span=verbs[i])
        for i, (left, right) in enumerate(pairwise(ids))
    )
    sample = Sample(
        id="plan", file_name="videos/plan.mp4", caption=caption, instances=known, interactions=acts
    )
    return Clip(
        sample,
        Video(np.zeros((frames, height, width, 3), np.uint8), np.arange(frames) / 8.0, 8.0),
        {name: _box(clip, region, i / instances) for i, name in enumerate(ids)},
    )


def _box(clip: tuple[int, int, int], region: float, left: float) -> MaskTrack:
    frames, height, width = clip
    rows = max(1, round(height * region**0.5))
    columns = max(1, round(width * region**0.5))
    first = min(round(width * left), width - columns)
    mask_THW = np.zeros((frames, height, width), dtype=bool)
    mask_THW[:, :rows, first : first + columns] = True
    return MaskTrack.from_masks(mask_THW)
