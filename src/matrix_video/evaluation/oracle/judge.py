"""The oracle judge: verdicts on tiny world's videos by geometry, no model asked.

It sees the pixels of the generated video, the first-frame masks of the prompt, and the prompt. It
never sees how a clip was made, and it looks at every frame. Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.sample import Interaction, Sample
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.video import Video
from matrix_video.evaluation.oracle.answers import AWAY, answer
from matrix_video.evaluation.oracle.geometry import Cast, Pair
from matrix_video.evaluation.oracle.tracker import track
from matrix_video.evaluation.oracle.tracks import Strangers, Track
from matrix_video.evaluation.oracle.verbs import RULES
from matrix_video.evaluation.verdict import Answer, Propagation, Verdict, unscored
from matrix_video.services.errors import MatrixError
from matrix_video.world.palette import CLASSES, COLOURS, FRAME_SIZE

SOURCE: Final = "tiny-world"
"""`Sample.source` of tiny world's clips."""
_Pairs = dict[tuple[Track, Track], Pair]


class OracleJudge:
    """A `Judge` of tiny world's videos; it holds no state."""

    name = "oracle"
    version = "3"
    verbs = tuple(RULES)

    def judge(
        self, video: Video, sample: Sample, first_masks: Mapping[str, NDArray[np.bool_]]
    ) -> Verdict:
        """Follow the instances once, then answer for each of ``sample.interactions``.

        An interaction whose verb has no rule, or one of whose participants has no first-frame
        mask, is unscored. Raises `MatrixError` for a sample that is not tiny world's, a video or
        mask of another size than its frames, and a video of fewer than two frames.
        """
        refuse(video, sample, first_masks)
        if not first_masks:
            nobody = unscored("no instance has a first-frame mask")
            return Verdict(tuple(nobody for _ in sample.interactions))
        tracking = track(video.frames_THWC, list(first_masks.values()))
        found, pairs = dict(zip(first_masks, tracking.tracks, strict=True)), _Pairs()
        return Verdict(
            answers=tuple(_answers(one, found, pairs) for one in sample.interactions),
            propagation=tuple(
                _propagation(t, strangers, found)
                for t, strangers in enumerate(tracking.strangers, start=1)
            ),
            tracks={name: _mask_track(one) for name, one in found.items()},
        )


def refuse(video: Video, sample: Sample, first_masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Raise `MatrixError` where the judge's thresholds and colours would mean nothing."""
    strange = _strange(sample)
    if strange is not None:
        raise MatrixError(
            f"the oracle judges tiny world's videos alone; sample {sample.id!r} {strange}",
            remedy="Give a prompt set that matrix world made, or another judge",
            field="source",
        )
    size = (FRAME_SIZE, FRAME_SIZE)
    wrong = {name: mask.shape for name, mask in first_masks.items() if mask.shape != size}
    if video.size != size or wrong:
        came = f"masks {wrong}" if wrong else f"a video of {video.size}"
        raise MatrixError(
            f"the oracle's thresholds are made for frames of {size} pixels; {came} came for "
            f"sample {sample.id!r}",
            remedy="Generate at the prompt's own size: leave out --height and --width",
            field="size",
        )
    if len(video) < 2:
        raise MatrixError(
            f"a video of {len(video)} frames shows no interaction (sample {sample.id!r})",
            remedy="Generate at least 2 frames",
            field="num_frames",
        )


def _strange(sample: Sample) -> str | None:
    """How a sample shows that it is not tiny world's; its instances tell where no source does."""
    if sample.source is not None:
        return None if sample.source == SOURCE else f"has the source {sample.source!r}"
    for instance in sample.instances:
        words = set(instance.phrase.split())
        if instance.noun not in CLASSES or not words & set(COLOURS):
            return f"has no source and an instance {instance.phrase!r}"
    return None if sample.instances else "has neither a source nor instances"


def _answers(asked: Interaction, found: Mapping[str, Track], pairs: _Pairs) -> tuple[Answer, ...]:
    if asked.verb not in RULES:
        return unscored(f"no geometry is known for the verb {asked.verb!r}")
    named = (asked.subject, asked.object)
    for name in named:
        if name not in found:
            return unscored(f"{name} has no first-frame mask")
    s, o = (found[name] for name in named)
    others = tuple(one for name, one in found.items() if name not in named)
    return answer(RULES[asked.verb], Cast(s, o, others, pairs))


def _propagation(t: int, strangers: Strangers, tracks: Mapping[str, Track]) -> Propagation:
    """With the grounds: what is strange in a frame, and what share is left of those that are lost.

    The oracle looks at every frame after the first.
    """
    left = {f"{name} left": float(one.left_T[t]) for name, one in tracks.items() if one.lost_T[t]}
    strange = {
        "strange blobs": float(strangers.blobs),
        "stray pixels": float(strangers.stray),
        "background shift": min(strangers.shift, AWAY),
        "background noise": min(strangers.rough, AWAY),
    }
    emerged = strangers.emerged
    evidence = {**(strange if emerged else {}), **left}
    return Propagation(t, "yes" if emerged else "no", "yes" if left else "no", evidence)


def _mask_track(one: Track) -> MaskTrack:
    """A frame in which an instance is hidden, out of frame or gone is *absent*, whatever pixels of
    its colour are left there: attention is not scored on the remains of a failure, which would
    make success and failure differ by themselves.
    """
    return MaskTrack.from_masks(one.seen_THW & one.shown_T[:, None, None])
