"""Seeds, splits, captions and the timeline of tiny world."""

import re

import numpy as np
import pytest

from matrix_video.world.captions import vocabulary
from matrix_video.world.clips import WorldClip, make_clip
from matrix_video.world.palette import FRAME_SIZE, NUM_FRAMES
from matrix_video.world.physics import TOUCH
from matrix_video.world.scene import VERBS
from matrix_video.world.splits import SPLITS, triple_bin


def test_a_seed_is_a_clip() -> None:
    first, again = make_clip(3, "train", 7), make_clip(3, "train", 7)
    assert first.sample == again.sample
    assert np.array_equal(first.frames_THWC, again.frames_THWC)
    assert np.array_equal(first.masks_RTHW, again.masks_RTHW)
    assert make_clip(4, "train", 7).sample.scene != first.sample.scene


GOLDEN = (
    "the green cone and the cyan box embrace each other",
    "7bb4c95bb6fd7cb1a139",
)


def test_known_clip_stays_as_it_is() -> None:
    """A change here changes every data set and the shipped model's world."""
    sample = make_clip(0, "val", 0).sample
    assert (sample.caption, sample.scene) == GOLDEN


def test_splits_share_no_scene() -> None:
    scenes = [make_clip(0, split, i).sample.scene for split in SPLITS for i in range(40)]
    assert len(set(scenes)) == len(scenes)


@pytest.mark.parametrize("split", SPLITS)
def test_triples_come_from_the_bin_of_the_split(split: str) -> None:
    expected = "composition" if split == "test-composition" else "shared"
    for index in range(40):
        scene = make_clip(0, split, index).scene  # type: ignore[arg-type]
        for event in scene.events:
            pair = scene.actors[event.subject].look, scene.actors[event.object].look
            assert triple_bin(event.verb, *pair) == expected


def test_bidirectional_triples_have_no_order() -> None:
    looks = [actor.look for actor in make_clip(0, "val", 0).scene.actors[:2]]
    assert triple_bin("hug", looks[0], looks[1]) == triple_bin("hug", looks[1], looks[0])


def test_all_verbs_and_counts_occur(val_clips: list[WorldClip]) -> None:
    assert {clip.sample.interactions[0].verb for clip in val_clips} == set(VERBS)
    assert {len(clip.sample.instances) for clip in val_clips} == {2, 3, 4}
    assert {verb.category for verb in VERBS.values()} == {
        "contact",
        "force",
        "transport",
        "manipulation",
        "social",
    }


def test_spans_cover_what_they_name(val_clips: list[WorldClip]) -> None:
    for clip in val_clips:
        sample = clip.sample
        for instance in sample.instances:
            for span in instance.mentions:
                assert span.of(sample.caption) == instance.phrase
            for span in instance.noun_spans:
                assert span.of(sample.caption) == instance.noun
        interaction = sample.interactions[0]
        assert interaction.verb_span is not None
        forms = VERBS[interaction.verb]
        said = interaction.verb_span.of(sample.caption)
        assert said in (*forms.present, *forms.progressive, *forms.passive)
        for participant in (interaction.subject, interaction.object):
            assert sample.instance(participant).mentions, sample.caption


def test_phrases_tell_instances_apart(val_clips: list[WorldClip]) -> None:
    """No phrase of a participant fits another instance of the clip."""
    for clip in val_clips:
        for i, actor in enumerate(clip.scene.actors):
            words = clip.sample.instances[i].phrase.split()
            for j, other in enumerate(clip.scene.actors):
                look = other.look
                fits = set(words) <= {look.noun, look.colour, look.size}
                assert fits == (i == j), clip.sample.caption
            assert actor.look.noun == words[-1]


def test_base_captions_name_many_and_say_seldom_who_acts(base_clips: list[WorldClip]) -> None:
    named = [
        clip
        for clip in base_clips
        if clip.sample.interactions
        and all(
            clip.sample.instance(i).mentions
            for i in (clip.sample.interactions[0].subject, clip.sample.interactions[0].object)
        )
    ]
    lone = [clip for clip in base_clips if not clip.sample.interactions]
    telling = [clip for clip in named if clip.sample.interactions[0].verb_span]
    assert 0.4 < len(named) / len(base_clips) < 0.7
    assert 0.05 < len(telling) / len(base_clips) < 0.25
    assert 0.1 < len(lone) / len(base_clips) < 0.4


def test_vocabulary_holds_every_word(
    val_clips: list[WorldClip], base_clips: list[WorldClip]
) -> None:
    words = {w for c in val_clips + base_clips for w in re.findall(r"\w+|,", c.sample.caption)}
    assert words <= set(vocabulary())


def test_timeline_agrees_with_the_paths(val_clips: list[WorldClip]) -> None:
    """Participants meet at the contact frame and not before (chase: never)."""
    for clip in val_clips:
        event = clip.scene.events[0]
        subject, object_ = clip.scene.actors[event.subject], clip.scene.actors[event.object]
        distance_T = np.hypot(*(subject.path_T2 - object_.path_T2).T)
        touching = TOUCH * (subject.look.radius + object_.look.radius) + 1e-6
        contact = event.timeline.contact
        assert 0 <= event.timeline.approach < contact <= event.timeline.end < NUM_FRAMES
        if event.verb == "chase":
            assert (distance_T > touching).all()
        else:
            assert distance_T[contact] <= touching
            assert distance_T[0] > touching


def test_participants_never_leave_and_others_may(val_clips: list[WorldClip]) -> None:
    left = 0
    for clip in val_clips:
        event = clip.scene.events[0]
        for index, actor in enumerate(clip.scene.actors):
            if index in (event.subject, event.object):
                assert (actor.path_T2 > 0).all()
                assert (actor.path_T2 < FRAME_SIZE).all()
            elif not clip.masks_RTHW[index, -1].any():
                left += 1
    assert left >= 5
