import re
from collections.abc import Callable
from pathlib import Path

import pytest

from matrix_video.data.sample import Instance, Interaction, Sample
from matrix_video.evaluation.oracle.verbs import RULES
from matrix_video.evaluation.questions import (
    BOX_COLOURS,
    NUM_QUESTIONS,
    QuestionSet,
    entity,
    key_interaction,
    read_questions,
    share_effect,
    template,
    texts,
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
    assert key_interaction(sample, sample.interactions[0]) == f"{names[2]} push {names[0]}"


def test_every_verb_of_the_world_has_questions_of_its_own_and_a_rule():
    assert set(RULES) == set(WORLD_VERBS)
    others = [template(_sample(verb=verb), _sample(verb=verb).interactions[0]) for verb in RULES]
    assert len(set(others)) == len(RULES)


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


def test_verbs_share_an_effect_with_themselves_and_with_what_looks_alike():
    assert share_effect("admire", "admire")
    assert share_effect("push", "chase")
    assert share_effect("chase", "hit")
    assert not share_effect("hit", "push")
    assert not share_effect("push", "pull")
    assert not share_effect("push", "admire")


def test_questions_of_a_file_take_the_place_of_the_templates(tmp_path: Path):
    asked, foil = _sample(verb="admire"), Interaction(subject="id1", verb="admire", object="id3")
    (own,) = asked.interactions
    assert read_questions(tmp_path, [asked]) == {}
    file = write_questions(tmp_path, [asked])
    assert QuestionSet.model_validate_json(file.read_text()).source == "template"
    assert read_questions(tmp_path, [asked]) == {}  # the same words
    file.write_text(_reworded(file), encoding="utf-8-sig")  # as some editors store it
    found = read_questions(tmp_path, [asked])
    assert texts(asked, own, found) == tuple(f"Question {number}?" for number in range(10))
    assert texts(asked, foil, found) == template(asked, foil)


def _reworded(file: Path, **change: object) -> str:
    words = tuple(f"Question {number}?" for number in range(10))
    own = QuestionSet.model_validate_json(file.read_text())
    return own.model_copy(update={"texts": words, "source": "me", **change}).model_dump_json()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda file: "{", "line 2: this is not a line of JSON"),
        (lambda file: '{"sample": "s"}', "subject: not ten questions in line 2 .Field required"),
        (
            lambda file: _reworded(file, texts=("Why?",)),
            "texts: not ten questions in line 2 .*at le",
        ),
        (lambda file: _reworded(file)[:-1] + ',"source":"you"}', "line 2: .*'source' stands twice"),
        (lambda file: file.read_text(), "line 2: .*'id3 push id1' of sample 's' already has quest"),
        (
            lambda file: _reworded(file, verb="pull"),
            "line 2: .*'id3 pull id1' of .*is not asked for",
        ),
        (lambda file: _reworded(file, sample="x"), "line 2: .*'id3 push id1' of sample 'x' is not"),
    ],
)
def test_a_broken_file_of_questions_is_told_by_its_line(
    tmp_path: Path, change: Callable[[Path], str], problem: str
):
    sample = _sample()
    file = write_questions(tmp_path, [sample])
    file.write_text(file.read_text() + change(file))
    with pytest.raises(MatrixError, match=rf"questions\.jsonl: {problem}"):
        read_questions(tmp_path, [sample])
