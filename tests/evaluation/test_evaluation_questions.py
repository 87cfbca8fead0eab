import re
from pathlib import Path

import pytest

from matrix_video.data.sample import Instance, Interaction, Sample
from matrix_video.evaluation.oracle.verbs import RULES
from matrix_video.evaluation.questions import (
    BOX_COLOURS,
    KISA_QUESTIONS,
    NUM_QUESTIONS,
    SGI_QUESTIONS,
    Questions,
    QuestionSet,
    entity,
    key_interaction,
    share_effect,
    template,
    write_questions,
)
from matrix_video.services.errors import MatrixError
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


def test_every_verb_of_the_world_has_questions_of_its_own_and_a_rule():
    assert set(RULES) == set(WORLD_VERBS)
    others = [template(_sample(verb=verb), _sample(verb=verb).interactions[0]) for verb in RULES]
    assert len(set(others)) == len(RULES)


def test_the_ten_questions_are_split_in_six_and_four():
    assert (*KISA_QUESTIONS, *SGI_QUESTIONS) == tuple(range(1, NUM_QUESTIONS + 1))
    assert (len(KISA_QUESTIONS), len(SGI_QUESTIONS)) == (6, 4)


@pytest.mark.parametrize("verb", [*RULES, "admire", "hand a {cup} to"])
def test_ten_different_questions_name_the_entities_and_nothing_is_left_open(verb):
    sample = _sample(verb=verb)
    texts = template(sample, sample.interactions[0])
    assert len(texts) == len(set(texts)) == NUM_QUESTIONS
    for text in texts:
        assert text.endswith("?")
        assert not re.search(r"[{}]", text.replace("{cup}", ""))
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


def test_verbs_share_an_effect_with_themselves_and_with_what_looks_alike():
    assert share_effect("admire", "admire")
    assert share_effect("push", "chase")
    assert share_effect("chase", "hit")
    assert not share_effect("hit", "push")
    assert not share_effect("push", "pull")
    assert not share_effect("push", "admire")


def test_questions_of_a_file_take_the_place_of_the_templates(tmp_path: Path):
    asked, foil = _sample(verb="admire"), Interaction(subject="id1", verb="admire", object="id3")
    file = write_questions(tmp_path, [asked])
    own = QuestionSet.model_validate_json(file.read_text())
    assert own.source == "template"
    assert own.texts == template(asked, asked.interactions[0])
    words = tuple(f"Question {number}?" for number in range(10))
    file.write_text(own.model_copy(update={"texts": words, "source": "me"}).model_dump_json())
    found = Questions.read(tmp_path)
    assert found.texts(asked, asked.interactions[0]) == words
    assert found.texts(asked, foil) == template(asked, foil)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not ten questions in line 1 .Invalid JSON"),
        ('{"sample": "s"}', "subject: not ten questions in line 1 .Field required"),
        ("short", "texts: not ten questions in line 1 .*at least 10 items"),
        ("twice", "an interaction has two sets of questions"),
        ("stranger", "line 1 asks about an interaction that its sample 's' does not have"),
    ],
)
def test_a_broken_file_of_questions_is_told_by_its_line(tmp_path: Path, text: str, problem: str):
    sample = _sample()
    file = write_questions(tmp_path, [sample])
    line = file.read_text()
    own = QuestionSet.model_validate_json(line)
    text = {
        "short": own.model_copy(update={"texts": ("Why?",)}).model_dump_json(),
        "twice": line + line,
        "stranger": own.model_copy(update={"verb": "pull"}).model_dump_json(),
    }.get(text, text)
    file.write_text(text)
    with pytest.raises(MatrixError, match=problem):
        Questions.read(tmp_path, [sample])
