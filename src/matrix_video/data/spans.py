"""From a phrase to the characters that say it, and from characters to text tokens.

Spans are half-open character ranges of the caption; tokens are indices into the padded sequence
that the text encoder sees.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, Protocol

from matrix_video.data.sample import Role, Sample, Span
from matrix_video.services.errors import MatrixError

Mentions = Literal["noun", "full", "all"]

_ALIKE: Final = str.maketrans("’‘ʼ‐", "'''-")
_SPACED: Final = ("LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "DIGIT", "LOW LINE")
"""Scripts that part words by spaces; elsewhere a phrase may stand within a run of letters."""


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


def find_phrases(caption: str, phrases: Sequence[str]) -> tuple[tuple[Span, ...], ...]:
    """Every place where the caption says each phrase, as whole words and in order.

    Capitals, runs of white space, and the forms of quotes, hyphens and accents do not count. The
    longest phrase is placed first, and a character belongs to one phrase: next to "red ball", the
    phrase "ball" means the other balls. A phrase that is given n times must be said n times, and
    each gets one place, in the caption's order. A phrase that is given once gets every place: more
    than one span means that the caption alone does not tell which is meant. The rules are our
    choice.

    Raises `MatrixError` for a phrase that the caption does not say, or not as often as it is given.
    """
    text, places = _folded(caption)
    wanted = [_folded(phrase)[0].strip() for phrase in phrases]
    taken: set[int] = set()  # characters of the folded caption
    found: dict[str, list[Span]] = {}
    for phrase in sorted(set(wanted), key=len, reverse=True):
        spans = found[phrase] = list[Span]()
        for start, end in _whole(text, places, phrase):
            if taken.isdisjoint(range(start, end)):
                taken.update(range(start, end))
                spans.append(Span(start=places[start], end=places[end - 1] + 1))
    for given, phrase in zip(phrases, wanted, strict=True):
        count = wanted.count(phrase)
        if not found[phrase] or count not in (1, len(found[phrase])):
            raise _not_said(caption, given, phrase, len(found[phrase]), count)
    shares = {
        phrase: [tuple(spans)] if wanted.count(phrase) == 1 else [(span,) for span in spans]
        for phrase, spans in found.items()
    }
    return tuple(shares[phrase].pop(0) for phrase in wanted)


def says(text: str, *phrases: str) -> bool:
    """Whether the text has one of the phrases, as whole words."""
    folded, places = _folded(text)
    wanted = (_folded(phrase)[0].strip() for phrase in phrases)
    return any(any(True for _ in _whole(folded, places, phrase)) for phrase in wanted)


def same_words(text: str, *phrases: str) -> bool:
    """Whether the text is one of the phrases, but for what `find_phrases` does not count."""
    return _folded(text)[0] in {_folded(phrase)[0] for phrase in phrases}


def cuts_word(text: str, place: int) -> bool:
    """Whether ``place`` lies inside a word, or between a letter and its accent."""
    if not 0 < place < len(text):
        return False
    before, after = text[place - 1], text[place]
    return unicodedata.category(after).startswith("M") or (_is_spaced(before) and _is_spaced(after))


def phrases(sample: Sample, mentions: Mentions = "full") -> tuple[Phrase, ...]:
    """The phrases of a sample, interaction by interaction: subject, object, verb.

    A participant counts once, with the role of its first interaction. ``full`` takes its first
    full mention without the article, ``noun`` its first class noun, ``all`` every full mention.
    Participants that no phrase mentions and verbs without a span are left out (paper section 3
    leaves the choice of tokens open; the default is our choice).
    """
    found: list[Phrase] = []
    met: set[str] = set()

    def add(role: Role, instances: tuple[str, ...], spans: tuple[Span, ...]) -> None:
        if spans:
            text = ", ".join(span.of(sample.caption) for span in spans)
            found.append(Phrase(role, instances, spans, text))

    for interaction in sample.interactions:
        both = interaction.subject, interaction.object
        participants: tuple[tuple[Role, str], ...] = (("subject", both[0]), ("object", both[1]))
        for role, name in participants:
            if name not in met:
                met.add(name)
                instance = sample.instance(name)
                spans = instance.noun_spans if mentions == "noun" else instance.mentions
                add(role, (name,), spans if mentions == "all" else spans[:1])
        if interaction.verb_span is not None:
            add("verb", tuple(dict.fromkeys(both)), (interaction.verb_span,))
    return tuple(found)


def token_indices(
    tokenizer: FastTokenizer, caption: str, phrases: Sequence[Sequence[Span]], *, max_length: int
) -> tuple[tuple[int, ...], ...]:
    """Tokens of each phrase, ascending, in the sequence padded or truncated to ``max_length``.

    A phrase is all of its spans, as `find_phrases` gives them. A token belongs to it when it
    shares a character with a span that is not white space; special and padding tokens cover no
    character. Raises `MatrixError` naming the phrase where a span lost tokens to truncation, or
    never had one.
    """
    whole = _offsets(tokenizer, caption, None)
    kept = _offsets(tokenizer, caption, max_length)
    found: list[tuple[int, ...]] = []
    for spans in phrases:
        tokens: set[int] = set()
        for span in spans:
            there = _touching(kept, caption, span)
            wanted, phrase = len(_touching(whole, caption, span)), span.of(caption)
            if wanted == 0:
                raise MatrixError(
                    f"the phrase {phrase!r} (characters {span.start} to {span.end}) maps to no "
                    f"token of the caption {caption!r}",
                    remedy="Correct the span, or write the phrase in characters the tokenizer "
                    "knows",
                    field="caption",
                )
            if len(there) < wanted:
                raise MatrixError(
                    f"the phrase {phrase!r} is cut off: the caption has {len(whole)} tokens, but "
                    f"the model reads {max_length}, and {wanted - len(there)} of the phrase's "
                    f"{wanted} are lost",
                    remedy="Shorten the caption or move the phrase forward",
                    field="caption",
                )
            tokens.update(there)
        found.append(tuple(sorted(tokens)))
    return tuple(found)


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


@lru_cache(maxsize=1024)
def _folded(text: str) -> tuple[str, Sequence[int]]:
    """The text without what does not count, and the place in ``text`` of each of its characters."""
    letters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        if unicodedata.category(character) == "Cf":  # soft hyphens and other marks without a width
            continue
        for letter in unicodedata.normalize("NFKD", character).casefold().translate(_ALIKE):
            letter = " " if letter.isspace() else letter
            if letter != " " or letters[-1:] != [" "]:
                letters.append(letter)
                places.append(place)
    return "".join(letters), places


def _whole(text: str, places: Sequence[int], phrase: str) -> Iterator[tuple[int, int]]:
    """Where the folded text has the phrase as whole words; places do not overlap."""
    start = text.find(phrase) if phrase else -1
    while start >= 0:
        end = start + len(phrase)
        whole = _stands_alone(text, places, start, end)
        if whole:
            yield start, end
        start = text.find(phrase, end if whole else start + 1)


def _stands_alone(text: str, places: Sequence[int], start: int, end: int) -> bool:
    """Whether the folded text has whole words there: "cat" is none of "cat-like" or "can't"."""
    if any(
        (0 < cut < len(text) and places[cut] == places[cut - 1]) or cuts_word(text, cut)
        for cut in (start, end)
    ):
        return False
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    return not (
        (before.endswith("-") and _is_spaced(before[:1]))
        or (after.startswith("-") and _is_spaced(after[1:]))
        or (after == "'t" and not cuts_word(text, end + 2))
    )


def _is_spaced(letter: str) -> bool:
    return bool(letter) and unicodedata.name(letter, "").startswith(_SPACED)


def _not_said(caption: str, given: str, phrase: str, said: int, count: int) -> MatrixError:
    """The error for a phrase that is said ``said`` times, but given ``count`` times."""
    text, places = _folded(caption)
    start = text.find(phrase) if phrase else -1
    if said or start < 0:
        how = f"says {given!r} {said} times, but it is given {count} times"
        problem = how if said else f"does not say {given!r}"
    else:
        first, last = places[start], places[start + len(phrase) - 1]
        word = caption[:first].split(" ")[-1] + caption[first : last + 1]
        word += caption[last + 1 :].split(" ")[0]
        problem = f"says {given!r} only as a part of {word!r}, or of a longer phrase"
    return MatrixError(
        f"the caption {caption!r} {problem}",
        remedy="Give each phrase once for each of its places, in the caption's own words",
        field="caption",
    )
