"""The judge's own tracks of a generated video.

Analysis of generated videos needs masks of what was generated, not of what the prompt's own video
shows. Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

import numpy as np

from matrix_video.data.tracks import MaskTrack
from matrix_video.evaluation.oracle import Verdict
from matrix_video.evaluation.oracle.tracker import Presence, Track


def tracks_of(verdict: Verdict) -> dict[str, MaskTrack]:
    """Mask tracks by id, of the instances that have a first-frame mask.

    A frame in which an instance is hidden, out of frame or vanished is *absent*, whatever pixels of
    its colour are left there: attention is not scored on the remains of a failure, which would
    make success and failure differ by themselves.
    """
    return {name: _mask_track(track) for name, track in verdict.tracks.items()}


def _mask_track(track: Track) -> MaskTrack:
    there_T = np.array([p in (Presence.SEEN, Presence.MELTED) for p in track.presence_T])
    return MaskTrack.from_masks(np.asarray(track.seen_THW, dtype=bool) & there_T[:, None, None])
