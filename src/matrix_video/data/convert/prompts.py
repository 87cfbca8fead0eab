"""Prompts that carry the ids inline, and captions with spans.

The authors write ``a <id1> woman hands a cup to a <id2> man``: the tag stands before the class
noun. They do not say where a mention begins or ends, so these rules are our choice:

- a mention goes on from the tag until a function word, punctuation, the next tag, a word that
  looks like a verb (-ing, -ed, -s) or the end of a plural noun; its last word is the class noun;
- it begins at the tag, or before it, just after a determiner that is near ("a tall <id1> man");
- a tag that no word follows belongs to the word before it;
- in scripts without spaces a mention is the whole run of letters after the tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matrix_video.data.sample import Instance, Span

TAG = re.compile(r"<(id[1-9][0-9]*)>")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_LAST_WORD = re.compile(rf"({_WORD.pattern})\s*$")
_DETERMINING = (
    "a an the another one two three four this that these those his her its their my your our some "
    "each every other"
)
_CONNECTING = (
    "and or but nor while when as then so if who whom whose which where because to of in on at by "
    "with without from into onto over under above below near behind beside between against across "
    "along around through toward towards after before during up down off out is are was were be "
    "been being am has have had do does did can could will would may might must should he she it "
    "they him them himself herself itself themselves not very"
)
_DETERMINERS = frozenset(_DETERMINING.split())
_FUNCTION_WORDS = _DETERMINERS | frozenset(_CONNECTING.split())
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
    mentions: dict[str, list[Span]] = {name: [] for name in names}
    nouns: dict[str, list[Span]] = {name: [] for name in names}
    starts = sorted({position for _, position in tagged.tags})
    floor = 0
    spans: dict[int, tuple[Span, Span] | None] = {}
    for k, start in enumerate(starts):
        ceiling = starts[k + 1] if k + 1 < len(starts) else len(tagged.caption)
        spans[start] = _mention(tagged.caption, floor, start, ceiling)
        found = spans[start]
        floor = max(start, found[0].end) if found else start
    for name, position in tagged.tags:
        pair = spans[position]
        if pair is not None and pair[0] not in mentions[name]:
            mentions[name].append(pair[0])
            nouns[name].append(pair[1])
    made: list[Instance] = []
    for name in sorted(names, key=id_number):
        phrase = mentions[name][0].of(tagged.caption) if mentions[name] else _UNNAMED
        noun = nouns[name][0].of(tagged.caption) if nouns[name] else _UNNAMED
        made.append(
            Instance(
                id=name,
                noun=noun,
                phrase=phrase,
                mentions=tuple(mentions[name]),
                noun_spans=tuple(nouns[name]),
            )
        )
    return tuple(made)


def _mention(caption: str, floor: int, start: int, ceiling: int) -> tuple[Span, Span] | None:
    """The full mention and its noun around a tag that stood at ``start``."""
    words = _words_after(caption, start, ceiling)
    if words:
        first, last = words[0], words[-1]
        begin = _premodifiers(caption, floor, start)
        if begin is None or begin == start:
            begin = first.start
        return Span(start=begin, end=last.end), last
    before = _LAST_WORD.search(caption, floor, start)
    if before is None:
        return None
    word = Span(start=before.start(1), end=before.end(1))
    begin = _premodifiers(caption, floor, word.start)
    return Span(start=word.start if begin is None else begin, end=word.end), word


def _words_after(caption: str, start: int, ceiling: int) -> list[Span]:
    words: list[Span] = []
    cursor = start
    while len(words) < _MAX_WORDS:
        while caption[cursor:ceiling][:1].isspace():
            cursor += 1
        match = _WORD.match(caption, cursor, ceiling)
        if match is None or match.group().casefold() in _FUNCTION_WORDS:
            break
        if words and _looks_like_verb(match.group()):
            break
        words.append(Span(start=match.start(), end=match.end()))
        cursor = match.end()
        if _is_plural(match.group()):
            break
    return words


def _premodifiers(caption: str, floor: int, start: int) -> int | None:
    """Where the words between a determiner and ``start`` begin; None without a determiner."""
    begin = start
    for _ in range(_MAX_WORDS):
        match = _LAST_WORD.search(caption, floor, begin)
        if match is None:
            return None
        word = match.group(1).casefold()
        if word in _DETERMINERS:
            return begin
        if word in _FUNCTION_WORDS:
            return None
        begin = match.start(1)
    return None


def _looks_like_verb(word: str) -> bool:
    word = word.casefold()
    return (len(word) > 4 and word.endswith(("ing", "ed"))) or _is_plural(word)


def _is_plural(word: str) -> bool:
    word = word.casefold()
    return len(word) > 2 and word.endswith("s") and not word.endswith(("ss", "us", "is"))


def _within(inner: Span, outer: Span) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end
