"""Tags in prompts ↔ spans in captions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.data.convert.prompts import TAG, derive_instances, read_prompt, write_prompt
from matrix_video.data.sample import Instance, Span


@pytest.mark.parametrize(
    ("prompt", "caption", "mentions"),
    [
        (
            "a <id1> woman hands a cup to a <id2> man",
            "a woman hands a cup to a man",
            {"id1": ["woman"], "id2": ["man"]},
        ),
        (
            "the tall bearded <id1> man, smiling, and a small red <id2> police car.",
            "the tall bearded man, smiling, and a small red police car.",
            {"id1": ["tall bearded man"], "id2": ["small red police car"]},
        ),
        ("<id2> dogs run; <id2>dogs sleep", "dogs run; dogs sleep", {"id2": ["dogs", "dogs"]}),
        ("<id1> <id2> people", "people", {"id1": ["people"], "id2": ["people"]}),
        ("<id1><id2> people", "people", {"id1": ["people"], "id2": ["people"]}),
        ("a man <id1>, who waits", "a man, who waits", {"id1": ["man"]}),
        ("the old dog <id3>", "the old dog", {"id3": ["old dog"]}),
        (
            "man hugs tall young woman<id1>",
            "man hugs tall young woman",
            {"id1": ["tall young woman"]},
        ),
        ("he gives <id1> Tom a cup", "he gives Tom a cup", {"id1": ["Tom"]}),
        ("one (<id1> cat) is", "one (cat) is", {"id1": ["cat"]}),
        ("一个<id1>女人把杯子递给<id2>男人。", "一个女人把杯子递给男人。", {"id2": ["男人"]}),
        ("a  <id1>  man", "a   man", {"id1": ["man"]}),
        ("<id1>", "", {"id1": []}),
        (" <id1> ,", " ,", {"id1": []}),
        ("an <id12> äußerst-große Frau", "an äußerst-große Frau", {"id12": ["äußerst-große Frau"]}),
        ("no <id0> tag <ID> here <idx>", "no <id0> tag <ID> here <idx>", {}),
        ("a <ID1> man, a <id02> dog", "a man, a dog", {"id1": ["man"], "id2": ["dog"]}),
        (f"<id{'9' * 12}> is too many", f"<id{'9' * 12}> is too many", {}),
    ],
)
def test_tags_come_out(prompt: str, caption: str, mentions: dict[str, list[str]]) -> None:
    tagged = read_prompt(prompt)
    assert tagged.caption == caption
    found = {
        instance.id: [span.of(caption) for span in instance.mentions]
        for instance in derive_instances(tagged, ())
    }
    assert {name: found[name] for name in mentions} == mentions
    assert set(found) == {name for name, _ in tagged.tags}


def test_noun_is_the_last_word_of_the_mention() -> None:
    tagged = read_prompt("a small red <id2> police car and a <id1> dog")
    one, two = derive_instances(tagged, ["id7", "id2"])[:2]
    assert (one.id, one.noun, one.phrase) == ("id1", "dog", "dog")
    assert (two.noun, two.phrase) == ("car", "small red police car")
    assert [span.of(tagged.caption) for span in two.noun_spans] == ["car"]
    silent = derive_instances(tagged, ["id7"])[2]
    assert silent == Instance(id="id7", noun="instance", phrase="instance")
    assert derive_instances(read_prompt("a <id7> "), ()) == (silent,)


def instance(name: str, mentions: list[tuple[int, int]], nouns: list[tuple[int, int]]) -> Instance:
    return Instance(
        id=name,
        noun="x",
        phrase="x",
        mentions=tuple(Span(start=a, end=b) for a, b in mentions),
        noun_spans=tuple(Span(start=a, end=b) for a, b in nouns),
    )


@given(data=st.data())
def test_captions_come_back_exactly(data: st.DataObject) -> None:
    letters = st.sampled_from(" \n.,()'<>1ad-女é") | st.characters(codec="utf-8")
    caption = data.draw(st.text(letters, max_size=20).filter(lambda text: not TAG.search(text)))
    places = st.tuples(st.integers(0, len(caption)), st.integers(0, len(caption)))
    spans = st.lists(places.map(sorted).filter(lambda p: p[0] < p[1]).map(tuple), max_size=3)
    instances = [
        instance(name, data.draw(spans), data.draw(spans)) for name in ("id1", "id2", "id13")
    ] if caption else []  # fmt: skip
    prompt = write_prompt(caption, instances)
    tagged = read_prompt(prompt)
    assert tagged.caption == caption
    wanted = set()
    for one in instances:
        wanted |= {(one.id, noun.start) for noun in one.noun_spans}
        for mention in one.mentions:
            inside = [mention.start <= n.start and n.end <= mention.end for n in one.noun_spans]
            if not any(inside):
                wanted.add((one.id, mention.start))
    assert set(tagged.tags) == wanted
    assert len(tagged.tags) == len(wanted)


@given(st.lists(st.sampled_from([*" a.ß,<", "<id1>", "<id2> "]), max_size=12).map("".join))
def test_any_prompt_can_be_read(prompt: str) -> None:
    tagged = read_prompt(prompt)
    assert [name for name, _ in tagged.tags] == [f"id{n}" for n in TAG.findall(prompt)]
    letters = [letter for letter in tagged.caption if not letter.isspace()]
    assert letters == [letter for letter in TAG.sub("", prompt) if not letter.isspace()]
    for one in derive_instances(tagged, ()):
        for mention, noun in zip(one.mentions, one.noun_spans, strict=True):
            assert mention.end == noun.end
            assert mention.of(tagged.caption).strip() == mention.of(tagged.caption)
