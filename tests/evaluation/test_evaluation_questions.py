import re

import pytest

from matrix_video.data.sample import Instance, Interaction, Sample
from matrix_video.evaluation.oracle.verbs import RULES
from matrix_video.evaluation.questions import (
    BOX_COLOURS,
    KISA_QUESTIONS,
    NUM_QUESTIONS,
    SGI_QUESTIONS,
    VERBS,
    entity,
    key_interaction,
    questions,
)
from matrix_video.world.scene import VERBS as WORLD_VERBS


def _sample(count=3, verb="push"):
    return Sample(
        id="s",
        file_name="videos/s.mp4",
        caption="two of them",
        instances=tuple(
            Instance(id=f"id{i + 1}", noun="ball", phrase=f"ball number {i + 1}")
            for i in range(count)
        ),
        interactions=(Interaction(subject="id3", verb=verb, object="id1"),),
    )


def test_box_colours_follow_the_order_of_the_instances():
    assert BOX_COLOURS == ("red", "green", "blue", "yellow", "magenta", "cyan")
    sample = _sample(7)
    names = [entity(sample, instance.id) for instance in sample.instances]
    assert names[:6] == [f"ball number {i + 1} ({BOX_COLOURS[i]} bbox)" for i in range(6)]
    assert names[6] == "ball number 7"


def test_every_verb_of_the_world_has_questions_and_a_rule():
    assert set(VERBS) == set(RULES) == set(WORLD_VERBS)


def test_the_ten_questions_are_split_in_six_and_four():
    assert (*KISA_QUESTIONS, *SGI_QUESTIONS) == tuple(range(1, NUM_QUESTIONS + 1))
    assert (len(KISA_QUESTIONS), len(SGI_QUESTIONS)) == (6, 4)


@pytest.mark.parametrize("verb", VERBS)
def test_ten_different_questions_name_the_entities_and_nothing_is_left_open(verb):
    sample = _sample(verb=verb)
    texts = questions(sample, sample.interactions[0])
    assert len(texts) == len(set(texts)) == NUM_QUESTIONS
    for text in texts:
        assert text.endswith("?")
        assert not re.search(r"[{}]", text)
        assert (
            "ball number 3 (blue bbox)" in text
            or "ball number 1 (red bbox)" in text
            or (text.startswith(("Do both", "Are they", "Do they", "Does the embrace")))
        )


def test_the_key_interaction_is_told_in_one_line():
    sample = _sample()
    assert key_interaction(sample, sample.interactions[0]) == (
        "ball number 3 (blue bbox) push ball number 1 (red bbox)"
    )


def test_a_verb_without_questions_is_a_key_error():
    sample = _sample(verb="admire")
    with pytest.raises(KeyError, match="admire"):
        questions(sample, sample.interactions[0])
