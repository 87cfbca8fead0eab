"""From caption phrases to text tokens.

Spans are half-open character ranges of the caption; tokens are indices into the padded sequence
that the text encoder sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from matrix_video.data.sample import Instance, Role, Sample, Span
from matrix_video.services.errors import MatrixError

Mentions = Literal["noun", "full", "all"]


class FastTokenizer(Protocol):
    """What we use of a tokenizer of transformers backed by Rust (the ones with offsets)."""

    def __call__(
        self,
        text: str,
        *,
        padding: Literal[False, "max_length"],
        truncation: bool,
        max_length: int | None,
        return_offsets_mapping: bool,
        verbose: bool,
    ) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Phrase:
    """A noun phrase of one participant or a verb phrase of one interaction.

    ``instances`` is the participant, or for a verb its subject and object. ``spans`` holds one
    span unless all mentions were asked for; ``text`` is what they read.
    """

    role: Role
    instances: tuple[str, ...]
    spans: tuple[Span, ...]
    text: str


def phrases(sample: Sample, mentions: Mentions = "full") -> tuple[Phrase, ...]:
    """The phrases of a sample, interaction by interaction: subject, object, verb.

    A participant counts once, with the role of its first interaction. ``full`` takes its first
    full mention without the article, ``noun`` its first class noun, ``all`` every full mention.
    Participants that no phrase mentions and verbs without a span are left out (paper section 3
    leaves the choice of tokens open; the default is our choice).
    """
    found: list[Phrase] = []
    met: set[str] = set()
    for interaction in sample.interactions:
        participants: list[tuple[Role, str]] = [
            ("subject", interaction.subject),
            ("object", interaction.object),
        ]
        for role, name in participants:
            if name in met:
                continue
            met.add(name)
            spans = _mentions(sample.instance(name), mentions)
            if spans:
                found.append(_phrase(sample, role, (name,), spans))
        if interaction.verb_span is not None:
            both = tuple(dict.fromkeys((interaction.subject, interaction.object)))
            found.append(_phrase(sample, "verb", both, (interaction.verb_span,)))
    return tuple(found)


def token_indices(
    tokenizer: FastTokenizer, caption: str, spans: Sequence[Span], *, max_length: int
) -> tuple[tuple[int, ...], ...]:
    """Tokens of each span, ascending, in the sequence padded or truncated to ``max_length``.

    A token belongs to a span when it shares a character with it that is not white space; special
    and padding tokens cover no character. Raises ``MatrixError`` naming the phrase where a span
    lost tokens to truncation, or never had one.
    """
    whole = _offsets(tokenizer, caption, None)
    kept = _offsets(tokenizer, caption, max_length)
    found: list[tuple[int, ...]] = []
    for span in spans:
        phrase = span.of(caption)
        tokens = _touching(kept, caption, span)
        wanted = len(_touching(whole, caption, span))
        if wanted == 0:
            raise MatrixError(
                f"the phrase {phrase!r} (characters {span.start} to {span.end}) maps to no token "
                f"of the caption {caption!r}",
                remedy="Correct the span, or write the phrase in characters the tokenizer knows",
                field="caption",
            )
        if len(tokens) < wanted:
            raise MatrixError(
                f"the phrase {phrase!r} is cut off: the caption has {len(whole)} tokens, but the "
                f"model reads {max_length}, and {wanted - len(tokens)} of the phrase's {wanted} "
                "are lost",
                remedy="Shorten the caption or move the phrase forward",
                field="caption",
            )
        found.append(tokens)
    return tuple(found)


def phrase_tokens(
    tokenizer: FastTokenizer, sample: Sample, found: Sequence[Phrase], *, max_length: int
) -> tuple[tuple[int, ...], ...]:
    """Tokens of each phrase, those of all its spans together; errors name the sample too."""
    try:
        return tuple(
            tuple(
                sorted(
                    {
                        token
                        for tokens in token_indices(
                            tokenizer, sample.caption, phrase.spans, max_length=max_length
                        )
                        for token in tokens
                    }
                )
            )
            for phrase in found
        )
    except MatrixError as error:
        raise MatrixError(
            error.problem, remedy=error.remedy, field=f"{sample.id}: {error.field}"
        ) from error


def _mentions(instance: Instance, mentions: Mentions) -> tuple[Span, ...]:
    if mentions == "noun":
        return instance.noun_spans[:1]
    return instance.mentions if mentions == "all" else instance.mentions[:1]


def _phrase(
    sample: Sample, role: Role, instances: tuple[str, ...], spans: tuple[Span, ...]
) -> Phrase:
    text = ", ".join(span.of(sample.caption) for span in spans)
    return Phrase(role, instances, spans, text)


def _offsets(
    tokenizer: FastTokenizer, caption: str, max_length: int | None
) -> list[tuple[int, int]]:
    encoded = tokenizer(
        caption,
        padding=False if max_length is None else "max_length",
        truncation=max_length is not None,
        max_length=max_length,
        return_offsets_mapping=True,
        verbose=False,  # the whole caption is meant to be longer than the model's limit
    )
    return [(int(start), int(end)) for start, end in encoded["offset_mapping"]]


def _touching(offsets: Sequence[tuple[int, int]], caption: str, span: Span) -> tuple[int, ...]:
    return tuple(
        index
        for index, (start, end) in enumerate(offsets)
        if caption[max(start, span.start) : min(end, span.end)].strip()
    )
