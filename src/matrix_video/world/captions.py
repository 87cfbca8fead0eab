"""Scene → caption with the character spans of its phrases.

Two registers: *full* captions name every participant so that it cannot be mistaken (colour always,
size when a twin makes it necessary); *vague* ones, as web captions are, give class nouns or less.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from matrix_video.data.sample import Instance, Interaction, Span
from matrix_video.world.palette import CLASSES, COLOURS, RADII
from matrix_video.world.scene import VERBS, Event, Scene

_ASIDES = {"stays": "stays still", "drifts": "drifts by", "leaves": "leaves"}
"""What a caption says of a bystander, by its motion."""
_NAMED_SHARE = 0.9
"""Share of vague captions that name their instances in full, without a verb between two."""


@dataclass(frozen=True)
class Caption:
    """Text and what it names, ids numbered as the actors are listed (id1 is actor 0)."""

    text: str
    instances: tuple[Instance, ...]
    interactions: tuple[Interaction, ...]


class _Text:
    """A caption under construction: text plus the spans of what was appended."""

    def __init__(self) -> None:
        self.text = ""
        self.mentions: dict[int, list[Span]] = {}
        self.nouns: dict[int, list[Span]] = {}
        self.verb: Span | None = None

    def say(self, words: str) -> Span:
        if self.text and words[0] not in ",.":
            self.text += " "
        start = len(self.text)
        self.text += words
        return Span(start=start, end=len(self.text))

    def name(self, actor: int, article: str, phrase: str, noun: str, *, full: bool) -> None:
        self.say(article)
        span = self.say(phrase)
        noun_span = Span(start=span.end - len(noun), end=span.end)
        self.nouns.setdefault(actor, []).append(noun_span)
        if full:
            self.mentions.setdefault(actor, []).append(span)


def _phrases(scene: Scene, rng: np.random.Generator) -> list[str]:
    """The shortest appearance phrase that singles each actor out, sometimes one word longer."""
    kinds = [(actor.look.noun, actor.look.colour) for actor in scene.actors]
    phrases: list[str] = []
    for actor, (noun, colour) in zip(scene.actors, kinds, strict=True):
        with_size = kinds.count((noun, colour)) > 1 or rng.random() < 0.25
        phrases.append(f"{actor.look.size} {colour} {noun}" if with_size else f"{colour} {noun}")
    return phrases


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options))]


def _clause(
    text: _Text,
    scene: Scene,
    event: Event,
    names: list[str],
    rng: np.random.Generator,
    *,
    full: bool,
) -> None:
    """Subject, verb, object in one of several wordings; the verb's span is its verb phrase."""
    verb = VERBS[event.verb]
    article = _pick(rng, ("a", "the"))

    def mention(actor: int) -> None:
        noun = scene.actors[actor].look.noun
        text.name(actor, article, names[actor] if full else noun, noun, full=full)

    first, second = event.subject, event.object
    if verb.bidirectional:
        if rng.random() < 0.5:
            first, second = second, first
        mention(first)
        text.say("and")
        mention(second)
        text.verb = text.say(_pick(rng, verb.present))
        text.say("each other")
        return
    wording = rng.random()
    if wording < 0.1 and verb.passive:
        mention(second)
        text.say("is")
        text.verb = text.say(_pick(rng, verb.passive))
        text.say("by")
        mention(first)
        return
    mention(first)
    if wording < 0.35:
        text.say("is")
        text.verb = text.say(_pick(rng, verb.progressive))
    else:
        text.verb = text.say(_pick(rng, verb.present))
    mention(second)


def _aside(text: _Text, scene: Scene, names: list[str], rng: np.random.Generator) -> None:
    """Sometimes a bystander is mentioned as well."""
    bystanders = [i for i, motion in enumerate(scene.motions) if motion in _ASIDES]
    if not bystanders or rng.random() > 0.35:
        return
    actor = bystanders[rng.integers(len(bystanders))]
    text.say(_pick(rng, (", while", ", and")))
    text.name(actor, "a", names[actor], scene.actors[actor].look.noun, full=True)
    text.say(_ASIDES[scene.motions[actor]])


def _finish(text: _Text, scene: Scene, names: list[str]) -> Caption:
    instances = tuple(
        Instance(
            id=f"id{index + 1}",
            noun=actor.look.noun,
            phrase=names[index],
            mentions=tuple(text.mentions.get(index, ())),
            noun_spans=tuple(text.nouns.get(index, ())),
        )
        for index, actor in enumerate(scene.actors)
    )
    interactions = tuple(
        Interaction(
            subject=f"id{event.subject + 1}",
            verb=event.verb,
            object=f"id{event.object + 1}",
            verb_span=text.verb,
            bidirectional=VERBS[event.verb].bidirectional,
            category=VERBS[event.verb].category,
            contact=VERBS[event.verb].contact,
            dynamism=VERBS[event.verb].dynamism,
        )
        for event in scene.events
    )
    return Caption(text.text, instances, interactions)


def full_caption(scene: Scene, rng: np.random.Generator) -> Caption:
    """Names both participants unmistakably; every span is set."""
    names, text = _phrases(scene, rng), _Text()
    _clause(text, scene, scene.events[0], names, rng, full=True)
    _aside(text, scene, names, rng)
    return _finish(text, scene, names)


def vague_caption(scene: Scene, rng: np.random.Generator) -> Caption:
    """What web captions say: who is there, often in full; who does what to whom, seldom."""
    names, text = _phrases(scene, rng), _Text()
    nouns = [actor.look.noun for actor in scene.actors]
    if not scene.events:
        mover = next((i for i, m in enumerate(scene.motions) if m.startswith("moves")), 0)
        full = bool(rng.random() < _NAMED_SHARE)
        text.name(mover, "a", names[mover] if full else nouns[mover], nouns[mover], full=full)
        if scene.motions[mover].startswith("moves"):
            text.say(scene.motions[mover])
        return _finish(text, scene, names)
    named = bool(rng.random() < _NAMED_SHARE)
    if not named and rng.random() < 0.5:
        _clause(text, scene, scene.events[0], nouns, rng, full=False)
        return _finish(text, scene, names)
    shown = [scene.events[0].subject, scene.events[0].object]
    for position, actor in enumerate(int(i) for i in rng.permutation(shown)):
        if position:
            text.say("and")
        text.name(actor, "a", names[actor] if named else nouns[actor], nouns[actor], full=named)
    if named:
        _aside(text, scene, names, rng)
    return _finish(text, scene, names)


def vocabulary() -> tuple[str, ...]:
    """Every word a caption of this world can contain, sorted."""
    words = {"a", "the", "and", "is", "by", "each", "other", "while", ",", "still", "stays"}
    words |= {"drifts", "leaves", "moves", "left", "right", "up", "down"}
    words |= {*CLASSES, *COLOURS, *RADII}
    for verb in VERBS.values():
        for form in (*verb.present, *verb.progressive, *verb.passive):
            words.update(re.findall(r"\w+", form))
    return tuple(sorted(words))
