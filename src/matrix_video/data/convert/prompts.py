"""Prompts that carry the ids inline, and captions with spans.

The authors write ``a <id1> woman hands a cup to a <id2> man``: the tag stands before the mention,
or inside it, before the class noun. They do not say where a mention begins or ends, so these rules
are our choice: it ends where nouns.py finds the end; it begins at the tag, or before it, just after
a determiner that is near ("a tall <id1> man"); a tag that no word follows belongs to the word
before it; in scripts without spaces a mention is the whole run of letters after the tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matrix_video.data.convert.nouns import (
    DETERMINERS,
    FUNCTION_WORDS,
    WORD,
    Mention,
    find_mention,
)
from matrix_video.data.sample import Instance, Span

TAG = re.compile(r"<(id[1-9][0-9]*)>")
_LAST_WORD = re.compile(rf"({WORD.pattern})\s*$")
_MAX_WORDS = 4
_UNNAMED = "instance"
"""Noun and phrase of an id that no prompt names: ours may not be empty."""


@dataclass(frozen=True)
class Tagged:
    """A prompt without its tags, and where each stood: id and position in the caption."""

    caption: str
    tags: tuple[tuple[str, int], ...]


def read_prompt(prompt: str) -> Tagged:
    """Take the tags out, each with the one space that it brought."""
    caption = ""
    tags: list[tuple[str, int]] = []
    cursor = 0
    for match in TAG.finditer(prompt):
        caption += prompt[cursor : match.start()]
        cursor = match.end()
        after = prompt[cursor : cursor + 1]
        if after.isspace() and not caption[-1:].isalnum():
            cursor += 1
        elif caption[-1:].isspace() and not after.isalnum() and not TAG.match(prompt, cursor):
            caption = caption[:-1]  # "a man <id1>, who": the space before it is the tag's
            tags = [(name, min(position, len(caption))) for name, position in tags]
        tags.append((match.group(1), len(caption)))
    caption += prompt[cursor:]
    return Tagged(caption, tuple(tags))


def id_number(name: str) -> int:
    """1 for id1; ids are sorted by it."""
    return int(name[2:])


def write_prompt(caption: str, instances: Sequence[Instance]) -> str:
    """Put each id's tag before its nouns, or before a mention in which no noun is marked.

    ``read_prompt`` gives the caption back exactly, unless the caption itself holds tags.
    """
    places: set[tuple[int, int]] = set()
    for instance in instances:
        number = id_number(instance.id)
        places.update((noun.start, number) for noun in instance.noun_spans)
        for mention in instance.mentions:
            if not any(_within(noun, mention) for noun in instance.noun_spans):
                places.add((mention.start, number))
    prompt = ""
    cursor = 0
    for start, number in sorted(places):
        prompt += caption[cursor:start]
        # In scripts without spaces a space after the tag would be read as one of the caption.
        glued = caption[start - 1 : start].isalnum() and start > 0
        prompt += f"<id{number}>" if glued else f"<id{number}> "
        cursor = start
    return prompt + caption[cursor:]


def derive_instances(tagged: Tagged, ids: Iterable[str]) -> tuple[Instance, ...]:
    """Instances of the tagged ids and of ``ids`` (those with masks), in the order of the ids."""
    names = {name for name, _ in tagged.tags} | set(ids)
    found: dict[str, list[Mention]] = {name: [] for name in names}
    starts = sorted({position for _, position in tagged.tags})
    floor = 0
    mentions: dict[int, Mention | None] = {}
    for k, start in enumerate(starts):
        ceiling = starts[k + 1] if k + 1 < len(starts) else len(tagged.caption)
        mentions[start] = one = _mention(tagged.caption, floor, start, ceiling)
        floor = max(start, one.span.end) if one else start
    for name, position in tagged.tags:
        one = mentions[position]
        if one is not None and one not in found[name]:
            found[name].append(one)
    return tuple(
        Instance(
            id=name,
            noun=found[name][0].noun.of(tagged.caption) if found[name] else _UNNAMED,
            phrase=found[name][0].span.of(tagged.caption) if found[name] else _UNNAMED,
            mentions=tuple(one.span for one in found[name]),
            noun_spans=tuple(one.noun for one in found[name]),
            doubtful=any(one.doubtful for one in found[name]),
        )
        for name in sorted(names, key=id_number)
    )


def _mention(caption: str, floor: int, start: int, ceiling: int) -> Mention | None:
    """The full mention and its noun around a tag that stood at ``start``."""
    begin, determiner = _premodifiers(caption, floor, start)
    if begin is not None:
        whole = find_mention(caption, begin, ceiling, determiner)
        tagged = whole is not None and not caption[whole.span.end : start].strip()
        if whole is not None and (tagged or whole.span.end > start):
            return whole  # "a tall <id1> man", and "a man <id1> who waits"
    found = find_mention(caption, start, ceiling)
    if found is not None:
        return found
    before = _LAST_WORD.search(caption, floor, start)
    if before is None or before.group(1).casefold() in FUNCTION_WORDS:
        return None
    word = Span(start=before.start(1), end=before.end(1))
    begin, _ = _premodifiers(caption, floor, word.start)
    span = Span(start=word.start if begin is None else begin, end=word.end)
    return Mention(span, word, doubtful=False)


def _premodifiers(caption: str, floor: int, start: int) -> tuple[int | None, str]:
    """Where the words between a determiner and ``start`` begin, and the determiner."""
    begin = start
    for _ in range(_MAX_WORDS):
        match = _LAST_WORD.search(caption, floor, begin)
        word = "" if match is None else match.group(1).casefold()
        if word in DETERMINERS:
            return begin, word
        if match is None or word in FUNCTION_WORDS:
            break
        begin = match.start(1)
    return None, ""


def _within(inner: Span, outer: Span) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end
