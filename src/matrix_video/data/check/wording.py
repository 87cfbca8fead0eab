"""Spans that do not say what they should, and guesses that nobody has looked at.

A reader of data sets takes any words. Here a span must lie on whole words; it is wrong where it
says another instance's noun, a verb, or nothing but modifiers. Any other word than the noun may be
a pronoun, an irregular plural or a synonym: a note. The rules are our choice.
"""

from __future__ import annotations

from typing import Final

from matrix_video.data.sample import Draft, Instance, Span, spans_of
from matrix_video.data.spans import cuts_word, same_words, says
from matrix_video.services.errors import MatrixError

_HOLLOW: Final = frozenset(
    ["a", "an", "the", "and", "or", "of", "in", "on", "at", "by", "to", "with", "from", "into"]
)


def check_words(draft: Draft) -> tuple[list[MatrixError], list[MatrixError]]:
    """The problems and the notes, each with its field. Spans out of the caption are left out."""
    problems: list[MatrixError] = []
    notes: list[MatrixError] = []
    for index, instance in enumerate(draft.instances):
        if instance.doubtful:
            problem = f"the noun {instance.noun!r} of {instance.phrase!r} was guessed"
            remedy = "Correct noun and spans where it is wrong, and take 'doubtful' away"
            notes.append(MatrixError(problem, remedy=remedy, field=f"instances[{index}]"))
    for field, instance, span in spans_of(draft):
        text = span.of(draft.caption)
        cut = any(cuts_word(draft.caption, place) for place in (span.start, span.end))
        found, remedy = problems, ""
        if span.end > len(draft.caption):
            continue
        if cut or text != text.strip():
            problem = f"span [{span.start}, {span.end}) reads {text!r}, which is not whole words"
            remedy = "Let the span begin and end with a word"
        elif instance is None or _names(draft.caption, instance, span, "noun_spans" in field):
            continue
        else:
            phrase = instance.phrase
            problem = f"the span reads {text!r}, but the noun of {phrase!r} is {instance.noun!r}"
            remedy = "Move the span onto the noun, or correct the noun"
            if not _is_wrong(draft, instance, span):
                found = notes
                remedy = "Leave it where it is a pronoun, a plural or another name; else move "
                remedy += "the span"
        found.append(MatrixError(problem, remedy=remedy, field=field))
    return problems, notes


def _names(caption: str, instance: Instance, span: Span, is_noun: bool) -> bool:
    """Whether the span says the noun or a plain plural of it, or a mention the whole phrase."""
    text, noun = span.of(caption), instance.noun
    plurals = [noun + "s", noun + "es", noun[:-1] + "ies" if noun.endswith("y") else noun]
    if is_noun:
        return same_words(text, noun, *plurals)
    return says(text, instance.phrase, noun, *plurals) or any(
        span.start <= n.start and n.end <= span.end for n in instance.noun_spans
    )


def _is_wrong(draft: Draft, instance: Instance, span: Span) -> bool:
    """Whether the span says another's noun, a verb, or nothing but modifiers."""
    text = span.of(draft.caption)
    nouns = {other.noun for other in draft.instances} - {instance.noun}
    verbs = [act.verb_span for act in draft.interactions if act.verb_span is not None]
    if says(text, *nouns) or any(v.start < span.end and span.start < v.end for v in verbs):
        return True
    return _HOLLOW.union(instance.phrase.casefold().split()).issuperset(text.casefold().split())
