"""Which clips belong to which split, and which triples nobody trains on.

A triple is (verb, class and colour of the subject, class and colour of the object); the order of
a bidirectional pair does not count. A hash sorts all triples into three bins: *shared* (base,
train, analysis, val and test-iid draw from these), *composition* (only test-composition does)
and unused ones, which keep the shared set small enough for `base` to cover it.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal, get_args

import numpy as np

from matrix_video.world.scene import VERBS, Look

Split = Literal["base", "train", "analysis", "val", "test-iid", "test-composition"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)
Bin = Literal["shared", "composition", "unused"]

# Of twelve parts four are shared and two held out: about 1,470 and 735 triples.
_PARTS: Final = 12
_SHARED: Final = 4
_COMPOSITION: Final = 2


def triple_bin(verb: str, subject: Look, object_: Look) -> Bin:
    """The bin of a triple, by a hash of its words (independent of seeds and of machines)."""
    pair = [f"{look.colour} {look.noun}" for look in (subject, object_)]
    if VERBS[verb].bidirectional:
        pair.sort()
    digest = hashlib.sha256("|".join([verb, *pair]).encode()).digest()
    part = int.from_bytes(digest[:8], "big") % _PARTS
    if part < _SHARED:
        return "shared"
    return "composition" if part < _SHARED + _COMPOSITION else "unused"


def wanted_bin(split: Split) -> Bin:
    return "composition" if split == "test-composition" else "shared"


def clip_generator(seed: int, split: Split, index: int) -> np.random.Generator:
    """The random stream of one clip: streams of two splits or two clips never meet."""
    return np.random.default_rng(np.random.SeedSequence([seed, SPLITS.index(split), index]))
