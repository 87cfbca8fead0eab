"""Captions in pieces: nothing lost, nothing twice, every phrase in its instance's colour."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from matrix_video.data.sample import Instance, Interaction, Sample, Span
from matrix_video.report.caption import pieces

CAPTION = "the red ball pushes a blue box, and the ball stops"


def span(text: str, start: int = 0) -> Span:
    at = CAPTION.index(text, start)
    return Span(start=at, end=at + len(text))


def sample(*instances: Instance, verb: Span | None = None) -> Sample:
    interactions = ()
    if verb is not None:
        interactions = (Interaction(subject="id1", verb="push", object="id2", verb_span=verb),)
    return Sample(
        id="a", file_name="a.mp4", caption=CAPTION, instances=instances, interactions=interactions
    )


def test_phrases_take_the_colour_of_their_instance() -> None:
    ball = Instance(
        id="id1",
        noun="ball",
        phrase="red ball",
        mentions=(span("red ball"), span("ball", 20)),
        noun_spans=(span("ball"), span("ball", 20)),
    )
    box = Instance(id="id2", noun="box", phrase="blue box", mentions=(span("blue box"),))
    found = pieces(sample(ball, box, verb=span("pushes")))
    assert [(p.text, p.css, p.who) for p in found if p.css] == [
        ("red ball", "i0", "id1"),
        ("pushes", "verb", "id1 → id2"),
        ("blue box", "i1", "id2"),
        ("ball", "i0", "id1"),
    ]


def test_a_noun_without_a_full_mention_is_coloured_by_itself() -> None:
    ball = Instance(id="id1", noun="ball", phrase="red ball", noun_spans=(span("ball"),))
    assert [p.text for p in pieces(sample(ball)) if p.css] == ["ball"]


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    spans = st.tuples(st.integers(0, len(CAPTION) - 1), st.integers(1, 12)).map(
        lambda pair: Span(start=pair[0], end=min(len(CAPTION), pair[0] + pair[1]))
    )
    instances = tuple(
        Instance(
            id=f"id{i + 1}",
            noun="ball",
            phrase="ball",
            mentions=tuple(draw(st.lists(spans, max_size=3))),
            noun_spans=tuple(draw(st.lists(spans, max_size=2))),
        )
        for i in range(draw(st.integers(2, 9)))
    )
    return sample(*instances, verb=draw(st.none() | spans))


@given(samples())
def test_pieces_joined_are_the_caption(given_sample: Sample) -> None:
    found = pieces(given_sample)
    assert "".join(piece.text for piece in found) == CAPTION
    assert all(piece.text for piece in found)
    assert {piece.css for piece in found} <= {"", "verb", "i0", "i1", "i2", "i3", "i4", "i5"}
