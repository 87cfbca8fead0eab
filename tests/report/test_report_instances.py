"""Captions in pieces: nothing lost, nothing twice, every phrase in its instance's colour."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from matrix_video.data.sample import Instance, Interaction, Sample, Span
from matrix_video.report.instances import pieces

CAPTION = "the red ball pushes a blue box, and the ball stops"


def span(text: str, start: int = 0) -> Span:
    at = CAPTION.index(text, start)
    return Span(start=at, end=at + len(text))


def instance(number: int, mentions: list[Span], nouns: list[Span]) -> Instance:
    return Instance(
        id=f"id{number}", noun="n", phrase="n", mentions=tuple(mentions), noun_spans=tuple(nouns)
    )


def sample(*instances: Instance, verb: Span | None) -> Sample:
    one = Interaction(subject="id1", verb="push", object="id2", verb_span=verb)
    return Sample(
        id="a", file_name="a.mp4", caption=CAPTION, instances=instances, interactions=(one,)
    )


def test_phrases_take_the_colour_of_their_instance() -> None:
    """A noun without a full mention is coloured by itself."""
    ball = instance(1, [span("red ball")], [span("ball"), span("ball", 20)])
    found = pieces(sample(ball, instance(2, [span("blue box")], []), verb=span("pushes")))
    assert [(p.text, p.css, p.who) for p in found if p.css] == [
        ("red ball", "i0", "id1"),
        ("pushes", "verb", "id1 → id2"),
        ("blue box", "i1", "id2"),
        ("ball", "i0", "id1"),
    ]


spans = st.tuples(st.integers(0, len(CAPTION) - 1), st.integers(1, 12)).map(
    lambda pair: Span(start=pair[0], end=min(len(CAPTION), pair[0] + pair[1]))
)
marks = st.tuples(st.lists(spans, max_size=3), st.lists(spans, max_size=2))


@given(st.lists(marks, min_size=2, max_size=9), st.none() | spans)
def test_pieces_joined_are_the_caption(
    given_marks: list[tuple[list[Span], list[Span]]], verb: Span | None
) -> None:
    instances = [instance(i, *one) for i, one in enumerate(given_marks, start=1)]
    found = pieces(sample(*instances, verb=verb))
    assert "".join(piece.text for piece in found) == CAPTION
    assert all(piece.text for piece in found)
    assert {piece.css for piece in found} <= {"", "verb", "i0", "i1", "i2", "i3", "i4", "i5"}
