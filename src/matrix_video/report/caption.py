"""A caption in pieces, each belonging to an instance, to a verb, or to nobody."""

from __future__ import annotations

from dataclasses import dataclass

from matrix_video.data.sample import Sample, Span
from matrix_video.evaluation.questions import BOX_COLOURS

HUES = len(BOX_COLOURS)
"""Instance colours of the style sheet, those of the boxes that the questions name; further
instances begin again with the first."""


@dataclass(frozen=True)
class Piece:
    """``css`` names the colour, ``who`` the instances that the words speak of."""

    text: str
    css: str = ""
    who: str = ""


def pieces(sample: Sample) -> tuple[Piece, ...]:
    """The caption cut at its phrases; joined, they are the caption again.

    Full mentions before class nouns before verbs: where spans overlap, the first that claims the
    characters keeps them.
    """
    order = {instance.id: i for i, instance in enumerate(sample.instances)}
    marks: list[tuple[Span, str, str]] = []
    for instance in sample.instances:
        css = f"i{order[instance.id] % HUES}"
        marks += [(span, css, instance.id) for span in instance.mentions]
    for instance in sample.instances:
        css = f"i{order[instance.id] % HUES}"
        marks += [(span, css, instance.id) for span in instance.noun_spans]
    for interaction in sample.interactions:
        if interaction.verb_span is not None:
            who = f"{interaction.subject} → {interaction.object}"
            marks.append((interaction.verb_span, "verb", who))
    kept: list[tuple[Span, str, str]] = []
    for mark in marks:
        if all(mark[0].end <= k.start or k.end <= mark[0].start for k, _, _ in kept):
            kept.append(mark)
    found: list[Piece] = []
    at = 0
    for span, css, who in sorted(kept, key=lambda mark: mark[0].start):
        if at < span.start:
            found.append(Piece(sample.caption[at : span.start]))
        found.append(Piece(span.of(sample.caption), css, who))
        at = span.end
    if at < len(sample.caption):
        found.append(Piece(sample.caption[at:]))
    return tuple(found)
