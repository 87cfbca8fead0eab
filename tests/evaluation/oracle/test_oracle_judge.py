"""What the judge accepts, and the form of its verdicts."""

import numpy as np
import pytest

from matrix_video.data.sample import Interaction
from matrix_video.data.tracks import State, first_masks
from matrix_video.data.video import Video
from matrix_video.evaluation.oracle import OracleJudge
from matrix_video.evaluation.verdict import Judge
from matrix_video.services.errors import MatrixError
from matrix_video.world.clips import make_clip

JUDGE: Judge = OracleJudge()


def _video(frames_THWC):
    return Video(frames_THWC, np.arange(len(frames_THWC)) / 8, 8.0)


@pytest.fixture(scope="module")
def clip():
    return make_clip(0, "val", 1)


def test_a_verdict_answers_every_interaction_and_every_frame(clip):
    (asked,) = clip.sample.interactions
    foil = asked.model_copy(update={"subject": asked.object, "object": asked.subject})
    unknown = Interaction(subject=asked.subject, verb="admire", object=asked.object)
    change = {"interactions": (asked, foil, unknown), "source": None}  # its instances tell
    sample = clip.sample.model_copy(update=change)
    masks = first_masks(clip.tracks())
    verdict = JUDGE.judge(_video(clip.frames_THWC), sample, masks)
    alone = JUDGE.judge(_video(clip.frames_THWC), clip.sample, masks)
    assert verdict.answers[0] == alone.answers[0]
    assert [one.reply for one in verdict.answers[0]] == ["yes"] * 10
    assert "no" in {one.reply for one in verdict.answers[1]}
    assert {one.reason for one in verdict.answers[2]} == {
        "no geometry is known for the verb 'admire'"
    }
    assert [one.frame for one in verdict.propagation] == list(range(1, 17))
    assert list(verdict.tracks) == list(masks)
    for name, mask_HW in masks.items():
        assert len(verdict.tracks[name]) == 17
        np.testing.assert_array_equal(verdict.tracks[name].mask(0), mask_HW)


def test_the_remains_of_a_vanished_instance_are_no_mask():
    """An instance of which a foot is left is gone: its later frames are absent."""
    clip = make_clip(0, "val", 3)
    frames_THWC = clip.frames_THWC.copy()
    for t in range(6, 17):
        mask_HW = clip.masks_RTHW[0, t].copy()
        mask_HW[np.flatnonzero(mask_HW.any(axis=1))[-1] - 2 :] = False
        frames_THWC[t][mask_HW] = clip.scene.background
        assert 20 < clip.masks_RTHW[0, t].sum() - mask_HW.sum() < 40
    verdict = JUDGE.judge(_video(frames_THWC), clip.sample, first_masks(clip.tracks()))
    states = verdict.tracks[clip.sample.instances[0].id].states
    assert states[0] is State.VISIBLE
    assert all(state is State.ABSENT for state in states[6:])


def test_without_first_masks_nothing_is_scored(clip):
    verdict = JUDGE.judge(_video(clip.frames_THWC), clip.sample, {})
    assert {one.reply for one in verdict.answers[0]} == {"unscored"}
    assert verdict.propagation == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source": "youtube"}, "has the source 'youtube'"),
        ({"source": None, "instances": ()}, "has neither a source nor instances"),
        ({"phrase": "red car", "noun": "car"}, "has no source and an instance 'red car'"),
        ({"phrase": "shiny ball", "noun": "ball"}, "an instance 'shiny ball'"),
    ],
)
def test_a_sample_that_is_no_tiny_world_is_refused(clip, change, reason):
    first, *others = clip.sample.instances
    if "phrase" in change:
        change = {"source": None, "instances": (first.model_copy(update=change), *others)}
    sample = clip.sample.model_copy(update=change)
    with pytest.raises(MatrixError, match="judges tiny world's videos alone") as refused:
        JUDGE.judge(_video(clip.frames_THWC), sample, first_masks(clip.tracks()))
    assert reason in str(refused.value)
    assert clip.sample.id in str(refused.value)


@pytest.mark.parametrize("repeat", [(1, 1, 2), (1, 2, 1), (1, 2, 2)])
def test_frame_sizes_that_the_thresholds_are_not_made_for_are_refused(clip, repeat):
    frames_THWC = np.kron(clip.frames_THWC, np.ones((*repeat, 1), dtype=np.uint8))
    big = {
        name: np.kron(mask_HW, np.ones(repeat[1:], dtype=bool))
        for name, mask_HW in first_masks(clip.tracks()).items()
    }
    for masks in (big, first_masks(clip.tracks())):
        with pytest.raises(MatrixError, match=r"made for frames of \(64, 64\) pixels"):
            JUDGE.judge(_video(frames_THWC), clip.sample, masks)
    with pytest.raises(MatrixError, match="masks"):
        JUDGE.judge(_video(clip.frames_THWC), clip.sample, big)


def test_one_frame_shows_no_interaction(clip):
    with pytest.raises(MatrixError, match="1 frames shows no interaction"):
        JUDGE.judge(_video(clip.frames_THWC[:1]), clip.sample, first_masks(clip.tracks()))
