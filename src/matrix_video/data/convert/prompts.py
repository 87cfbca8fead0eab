"""Prompts that carry the ids inline, and captions with spans.

The authors write ``a <id1> woman hands a cup to a <id2> man``: the tag stands before the mention,
or inside it, before the class noun. Others write ``a man<id1> and woman <id2> danced``. Nobody says
where a mention begins or ends, so these rules are our choice:

- it ends where nouns.py finds the end, and begins at the tag, or before it, just after a
  determiner that is near ("a tall <id1> man"); in scripts without spaces it is the whole run of
  letters after the tag;
- a tag belongs to the word before it where it is glued to that word alone, where no word or only a
  verb or function word follows, and where another tag shows that this prompt puts them so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from matrix_video.data.convert.layout import id_number
from matrix_video.data.convert.nouns import (
    DETERMINERS,
    FUNCTION_WORDS,
    WORD,
    Mention,
    classes,
    find_mention,
)
from matrix_video.data.sample import Instance, Span

TAG = re.compile(r"<id0{0,8}([1-9][0-9]{0,8})>", re.IGNORECASE)
_LAST_WORD = re.compile(rf"({WORD.pattern})\s*$")
_NEXT_WORD = re.compile(rf"\s*({WORD.pattern})")
_MAX_WORDS = 4
_UNNAMED = "instance"
"""Noun and phrase of an id that no prompt names: ours may not be empty."""


@dataclass(frozen=True)
class Tagged:
    """A prompt without its tags, and where each stood: id and position in the caption.

    ``behind``: positions of tags that belong to the word before them; ``unsure``: of those that
    may belong to either word.
    """

    caption: str
    tags: tuple[tuple[str, int], ...]
    behind: frozenset[int]
    unsure: frozenset[int]


def read_prompt(prompt: str) -> Tagged:
    """Take the tags out, each with the one space that it brought."""
    caption = ""
    tags: list[tuple[str, int]] = []
    glued: dict[int, bool] = {}  # by position: to the word before it alone, or to the next one
    cursor = 0
    for match in TAG.finditer(prompt):
        caption += prompt[cursor : match.start()]
        cursor = match.end()
        after = prompt[cursor : cursor + 1]
        left, right = caption[-1:].isalnum(), after.isalnum()
        if after.isspace() and not left:
            cursor += 1
        elif caption[-1:].isspace() and not right and not TAG.match(prompt, cursor):
            caption = caption[:-1]  # "a man <id1>, who": the space before it is the tag's
            tags = [(name, min(position, len(caption))) for name, position in tags]
        tags.append((f"id{match.group(1)}", len(caption)))
        if left or right:
            glued[len(caption)] = not right
    caption += prompt[cursor:]
    behind = {position for position, to_last in glued.items() if to_last}
    unsure: set[int] = set()
    before = len(behind) < len(glued)  # there are tags that surely stand before their words
    for position in {position for _, position in tags} - glued.keys():
        last = _content(_LAST_WORD.search(caption, max(0, position - 100), position))
        following = _content(_NEXT_WORD.match(caption, position))
        if last and (not following or not classes(following) - {"verb"}):
            behind.add(position)
        elif last:
            unsure.add(position)
        elif following:
            before = True
    if before:
        unsure.clear()
    elif behind:
        behind, unsure = behind | unsure, set()
    return Tagged(caption, tuple(tags), frozenset(behind), frozenset(unsure))


def _content(match: re.Match[str] | None) -> str:
    """The word that was found, unless it is a function word."""
    word = "" if match is None else match.group(1)
    return "" if word.casefold() in FUNCTION_WORDS else word


def write_prompt(caption: str, instances: Sequence[Instance]) -> str:
    """Put each id's tag before its nouns, or before a mention in which no noun is marked.

    ``read_prompt`` gives the caption back exactly, unless the caption itself holds tags.
    """
    places: set[tuple[int, int]] = set()
    for instance in instances:
        number = id_number(instance.id)
        places.update((noun.start, number) for noun in instance.noun_spans)
        for mention in instance.mentions:
            if not any(
                mention.start <= noun.start and noun.end <= mention.end
                for noun in instance.noun_spans
            ):
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
    for start, ceiling in pairwise([*starts, len(tagged.caption)]):
        behind = start in tagged.behind
        one = _mention(tagged.caption, floor, start, ceiling, behind=behind)
        if one is not None and start in tagged.unsure and one.span.start >= start:
            one = replace(one, doubtful=True)
        mentions[start] = one
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


def _mention(caption: str, floor: int, start: int, ceiling: int, *, behind: bool) -> Mention | None:
    """The full mention and its noun around a tag that stood at ``start``."""
    begin, determiner = _premodifiers(caption, floor, start)
    if begin is not None:
        whole = find_mention(caption, begin, start if behind else ceiling, determiner)
        tagged = whole is not None and not caption[whole.span.end : start].strip()
        if whole is not None and (tagged or whole.span.end > start):
            return whole  # "a tall <id1> man", and "a man <id1> who waits"
    found = None if behind else find_mention(caption, start, ceiling)
    if found is not None:
        return found
    match = _LAST_WORD.search(caption, floor, start)
    if match is None or not _content(match):
        return None
    word = Span(start=match.start(1), end=match.end(1))
    begin = word.start
    while (match := _LAST_WORD.search(caption, floor, begin)) and (
        "adjective" in classes(_content(match))
    ):
        begin = match.start(1)
    return Mention(Span(start=begin, end=word.end), word, doubtful=False)


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
