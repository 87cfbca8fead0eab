"""The one validator of a sample: `validate` for every reader, and `wording` for `matrix check`.

A reader refuses what it cannot use. Wrong words can be read, and old data sets may have them, so
they are problems of the check alone. A span lies on whole words; it is wrong where it says another
instance's noun, a verb, or nothing but modifiers. Any other word than the noun may be a pronoun, an
irregular plural or a synonym: a note. The rules are our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from matrix_video.data.sample import (
    Draft,
    Fault,
    Instance,
    Interaction,
    Span,
    contradictions,
    spans_of,
)
from matrix_video.data.spans import cuts_word, same_words, says

Loc = tuple[int | str, ...]

_HOLLOW: Final = frozenset(
    ["a", "an", "the", "and", "or", "of", "in", "on", "at", "by", "to", "with", "from", "into"]
)
_REQUIRED: Final = {
    name
    for model in (Draft, Instance, Interaction, Span)
    for name, field in model.model_fields.items()
    if field.is_required()
}


@dataclass(frozen=True)
class Read:
    """A sample as far as it can be read, and all for which a reader refuses it.

    Invalid parts are left out of ``draft``, so that its video and tracks can be checked as well; it
    is None where a part cannot be spared. ``moved``: parts behind those stand at other indices now.
    """

    draft: Draft | None
    faults: list[Fault]
    moved: bool = False


def validate(value: dict[str, Any]) -> Read:
    """Read what was stored as a sample. ``value`` is changed where it is invalid."""
    try:
        draft = Draft.model_validate(value)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
    else:
        return Read(draft, contradictions(draft))
    faults: list[Fault] = []
    cuts: set[Loc] = set()
    for item in errors:
        unknown = item["type"] == "extra_forbidden"
        problem = "unknown field" if unknown else item["msg"].removeprefix("Value error, ")
        remedy = "Remove it, or correct its name" if unknown else "Correct this line, or remove it"
        faults.append(Fault(place(item["loc"]), problem, remedy))
        cuts.add(_spared(item["loc"]))
    if () in cuts:
        return Read(None, faults)
    for cut in sorted(cuts, reverse=True):  # the last of a list first
        holder: Any = value
        for step in cut[:-1]:
            holder = holder[step]
        del holder[cut[-1]]
    draft = Draft.model_validate(value)
    moved = any(isinstance(cut[-1], int) for cut in cuts)
    return Read(draft, faults if moved else faults + contradictions(draft), moved)


def place(loc: Sequence[int | str]) -> str:
    """A path of keys and indices as one writes it: ``instances[0].noun``."""
    parts = (
        f"[{part}]" if isinstance(part, int) else f".{part if part.isprintable() else ascii(part)}"
        for part in loc
    )
    return "".join(parts).removeprefix(".")


def _spared(loc: Loc) -> Loc:
    """The smallest part around ``loc`` that a sample can do without; () where there is none."""
    while loc and (loc[-1] in _REQUIRED or loc[-1] == "[key]"):
        loc = loc[:-1]
    return loc


def wording(draft: Draft) -> list[Fault]:
    """Spans that do not say what they should, and guesses that nobody has looked at."""
    found: list[Fault] = []
    readable: set[str] = set()
    for field, span in spans_of(draft):
        if span.end > len(draft.caption):
            continue
        text = span.of(draft.caption)
        if text != text.strip() or any(
            cuts_word(draft.caption, cut) for cut in (span.start, span.end)
        ):
            problem = f"span [{span.start}, {span.end}) reads {text!r}, which is not whole words"
            found.append(Fault(field, problem, "Let the span begin and end with a word"))
        else:
            readable.add(field)
    for index, instance in enumerate(draft.instances):
        if instance.doubtful:
            problem = f"the noun {instance.noun!r} of {instance.phrase!r} was guessed"
            remedy = "Correct noun and spans where it is wrong, and take 'doubtful' away"
            found.append(Fault(f"instances[{index}]", problem, remedy, note=True))
        for name, spans in (("mentions", instance.mentions), ("noun_spans", instance.noun_spans)):
            for k, span in enumerate(spans):
                field = f"instances[{index}].{name}[{k}]"
                if field in readable and not _names(draft.caption, instance, span, name):
                    found.append(_misread(draft, instance, span, field))
    return found


def _names(caption: str, instance: Instance, span: Span, name: str) -> bool:
    """Whether the span says the noun or a plain plural of it, or a mention the whole phrase."""
    text, noun = span.of(caption), instance.noun
    plurals = [noun + "s", noun + "es", noun[:-1] + "ies" if noun.endswith("y") else noun]
    if name == "noun_spans":
        return same_words(text, noun, *plurals)
    return says(text, instance.phrase, noun, *plurals) or any(
        span.start <= n.start and n.end <= span.end for n in instance.noun_spans
    )


def _misread(draft: Draft, instance: Instance, span: Span, field: str) -> Fault:
    text = span.of(draft.caption)
    nouns = {other.noun for other in draft.instances} - {instance.noun}
    verb = any(
        act.verb_span is not None
        and act.verb_span.start < span.end
        and span.start < act.verb_span.end
        for act in draft.interactions
    )
    modifiers = _HOLLOW.union(instance.phrase.casefold().split())
    wrong = says(text, *nouns) or verb or modifiers.issuperset(text.casefold().split())
    problem = f"the span reads {text!r}, but the noun of {instance.phrase!r} is {instance.noun!r}"
    remedy = "Move the span onto the noun, or correct the noun"
    if not wrong:
        remedy = "Leave it where it is a pronoun, a plural or another name; else move the span"
    return Fault(field, problem, remedy, note=not wrong)
