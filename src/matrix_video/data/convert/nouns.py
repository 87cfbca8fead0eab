"""Where a mention ends and which word is its noun, from a lexicon of English word classes.

The lexicon (LemmInflect's tables of the NIH SPECIALIST lexicon, shipped inside the package) says
which classes a word can have, not which it has. These rules choose (our choice):

- a mention ends at punctuation, the next tag, a function word, and at the verb: a word that can
  only be a verb or adverb after a noun, or one that can be both and stands where a verb does;
- before the noun stand adjectives, participles, names and other nouns; the last one is the noun.

A choice that the rules do not settle is *doubtful*; so is a mention without a known noun.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from matrix_video.data.sample import Span


def _words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


WORD: Final = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_ONE: Final = _words_of("a an one another this that each every")
_MANY: Final = _words_of(
    "two three four five six seven eight nine ten several many few some both these those"
)
_OPEN: Final = _words_of("the his her its their my your our other no any all")
DETERMINERS: Final = _ONE | _MANY | _OPEN
_OBJECTS: Final = _words_of("him them it me us himself herself itself themselves")
_PARTICLES: Final = _words_of("up down off out away back over")
_OTHERS: Final = _words_of(
    "and or but nor while when as then so if who whom whose which where because to of in on at by "
    "with without from into onto under above below near behind beside between against across "
    "along around through toward towards after before during inside outside past is are was were "
    "be been being am has have had do does did can could will would may might must should he she "
    "they we i not very also just now there here for like about among beneath upon within than"
)
FUNCTION_WORDS: Final = DETERMINERS | _OBJECTS | _PARTICLES | _OTHERS
_UNCHANGED: Final = _words_of(
    "cut hit put let set shut hurt spread split bet bid burst cast cost shed quit read"
)
"""Verbs whose past is their base form: "a man cut the rope"."""
_PEOPLE: Final = _words_of(
    "man woman boy girl child kid person baby toddler lady guy gentleman teenager adult couple men "
    "women children people kids boys girls mother father dad mom son daughter brother sister "
    "dog cat horse puppy kitten bird"
)
"""Nouns that rarely stand before another noun: a word after them that can be a verb is one."""
_COLOURS: Final = _words_of("red blue green yellow black white grey gray brown pink purple")
"""Nouns as well, but not before another word that can be one: "a red sports car"."""
_TITLES: Final = _words_of("mr mrs ms dr prof st jr sr")
"""Their stop does not end a mention: "Mr. Smith"."""
_MOST_WORDS: Final = 7
_VERB: Final = frozenset({"verb"})


@dataclass(frozen=True)
class Mention:
    span: Span
    noun: Span
    doubtful: bool


def find_mention(caption: str, start: int, end: int, before: str = "") -> Mention | None:
    """The mention that begins at the first word after ``start``, with its noun; None where no word
    stands there. ``before``: the determiner, which tells one from many."""
    words = _words(caption, start, end)
    if not words:
        return None
    texts = [span.of(caption) for span in words]
    after = WORD.search(caption, words[-1].end)
    gap = caption[words[-1].end : after.start()] if after else "."
    following = after.group().casefold() if after is not None and not gap.strip() else ""
    count, doubtful = _length(texts, before.casefold(), following, at_start=start == 0)
    noun = words[count - 1]
    return Mention(Span(start=words[0].start, end=noun.end), noun, doubtful)


def _words(caption: str, start: int, end: int) -> list[Span]:
    found: list[Span] = []
    cursor = start
    while len(found) < _MOST_WORDS:
        match = WORD.search(caption, cursor, end)
        gap = caption[cursor : match.start()].strip() if match else ""
        titled = bool(found) and found[-1].of(caption).casefold() in _TITLES
        if match is None or (gap and not (titled and gap == ".")):
            break
        if match.group().casefold() in FUNCTION_WORDS:
            break
        found.append(Span(start=match.start(), end=match.end()))
        cursor = match.end()
    return found


def _length(
    words: Sequence[str], determiner: str, following: str, *, at_start: bool
) -> tuple[int, bool]:
    """How many of the words are the mention, and whether that is a guess."""
    kinds = [classes(word, first=at_start and not k) for k, word in enumerate(words)]
    last = 0  # of the noun phrase, from 1
    doubtful = False
    for k, (word, can) in enumerate(zip(words, kinds, strict=True)):
        lower = word.casefold()
        if _is_possessive(lower):  # "the old fisherman's dog": the dog, or is it the fisherman?
            last, doubtful = 0, True
            continue
        later = any("noun" in other for other in kinds[k + 1 :])
        if not last:
            modifies = lower in _COLOURS or (lower.endswith("ing") and "adjective" in can)
            if "noun" in can and not (modifies and later):
                last = k + 1
            elif can == _VERB and k and not lower.endswith(("ing", "ed", "en")):
                return k, True  # "a <id1> tall threw": no noun at all
            continue
        modifies = "adjective" in kinds[k - 1] and lower.endswith(("ing", "ed"))
        if modifies and k + 1 < len(words) and "noun" in kinds[k + 1]:
            doubtful = True  # "a red shopping cart", but also "a blonde wearing jeans"
            continue
        if "noun" not in can:
            return last, doubtful
        if "verb" not in can:
            doubtful |= not _lookup(lower) and lower == word  # two words, and one is not English
            last = k + 1
            continue
        verb = _is_verb(words, k, kinds, determiner, following)
        if verb is True:
            return last, doubtful
        if verb is None:
            return last if lower.endswith("s") else k + 1, True
        last = k + 1
    if last:
        return last, doubtful
    return len(words), any(can and "noun" not in can for can in kinds) or len(words) > 1


def _is_verb(
    words: Sequence[str],
    k: int,
    kinds: Sequence[frozenset[str]],
    determiner: str,
    following: str,
) -> bool | None:
    """Whether a word that can be noun and verb, after a noun, is the verb; None: not settled."""
    word, head = words[k].casefold(), words[k - 1].casefold()
    after = words[k + 1].casefold() if k + 1 < len(words) else following
    object_comes = after in DETERMINERS | _OBJECTS
    if k + 1 < len(words) and kinds[k + 1] == _VERB:
        return False  # "the fire trucks collided": the verb comes later
    third = word.endswith("s") and not word.endswith("ss")
    plural = head.endswith("s") and not head.endswith("ss")
    if third:
        if determiner in _ONE or _is_name(words[k - 1]) or head in _PEOPLE:
            return True
        if determiner in _MANY:
            return plural
        return True if object_comes else None
    if word.endswith(("ing", "ed")):
        return True
    if plural or head in ("men", "women", "children", "people"):
        return True  # "two dogs fight"
    return word in _UNCHANGED or head in _PEOPLE or object_comes


def _is_possessive(word: str) -> bool:
    return word.endswith(("'s", "’s"))


def _is_name(word: str) -> bool:
    return word[:1].isupper() and word[1:].islower() and not _lookup(word.casefold())


@cache
def _lookup(word: str) -> frozenset[str]:
    from lemminflect import getAllLemmas

    names = {"NOUN": "noun", "PROPN": "noun", "VERB": "verb", "ADJ": "adjective", "ADV": "adverb"}
    found = {names[tag]: lemmas for tag, lemmas in getAllLemmas(word).items() if tag in names}
    return frozenset(found)


def classes(word: str, *, first: bool = False) -> frozenset[str]:
    """Classes that a word can have: noun, verb, adjective, adverb. Unknown ones are nouns, unless
    they look like a participle. ``first``: the word begins a sentence."""
    lower = word.casefold().replace("’", "'")
    if "-" in lower:
        return classes(lower.rpartition("-")[2])
    if _is_possessive(lower):
        return frozenset({"adjective"})  # "the child's ball"
    if word[:1].isupper() and not first:
        return frozenset({"noun"})
    known = _lookup(lower)
    if not known and lower.endswith(("ing", "ed")) and lower.isascii():
        return frozenset({"verb", "adjective"})
    return known or frozenset({"noun"})
