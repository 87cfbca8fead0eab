"""What is asked: the ten questions of an interaction in words, for any verb, and of its foils.

Questions 1-6 follow the interaction (before, four steps, after: KISA), 7-10 ask who does what to
whom (SGI). They come from ``questions.jsonl`` beside a prompt set's ``metadata.jsonl`` where it has
them, else from a template: one for each verb of tiny world, and one for any other.

Source: the scheme is the paper's (section on InterGenEval); the wording is our choice. Entities are
named as appearance plus box colour, as the authors' code does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError

from matrix_video.data.sample import Interaction, Record, Sample
from matrix_video.evaluation.verdict import NUM_QUESTIONS
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import write_atomic
from matrix_video.services.records import invalid_record, json_lines

QUESTIONS: Final = "questions.jsonl"
BOX_COLOURS: Final = ("red", "green", "blue", "yellow", "magenta", "cyan")
"""Box colours in the order of ``Sample.instances``."""
KISA_QUESTIONS: Final = (1, 2, 3, 4, 5, 6)
SGI_QUESTIONS: Final = (7, 8, 9, 10)
SAME_EFFECT: Final = (frozenset({"push", "chase"}), frozenset({"hit", "chase"}))
"""Verbs that leave the same effect. Measured with the oracle on 42 of tiny world's clips a verb:
98 % of pushes and 21 % of hits answer all ten questions about chasing with yes; no other verb's
clips answer those of another so in more than 5 % (docs/log.md). A slow test measures it again.
"""

FoilKind = Literal["roles exchanged", "another verb"]

_APART = "Are the {s} and the {o} both there at the start, apart from each other?"
_COMES = "Does the {s} come up to the {o} by its own motion?"
_MEETS = "Do the {s} and the {o} come into contact?"
_ACTS = "Does the {s} act, that is, move by itself before anything reaches it?"
_AGENT = "Of all that is there, is it the {s} that first reaches the {o}?"
_PATIENT = (
    "Of all others, is it the {o}, and nothing in its stead, that the {s} reaches and changes?"
)

_COMMON: Final = {
    1: _APART,
    2: _COMES,
    3: _MEETS,
    7: _ACTS,
    8: _AGENT,
    9: _PATIENT,
    10: "Does the {o} move once it has been touched?",
}
"""Questions of tiny world's verbs, where a verb has none of its own."""

_OWN: Final[dict[str, dict[int, str]]] = {
    "push": {
        4: "Does the {o} begin to move when the {s} touches it, and not before?",
        5: "Does the {o} move ahead of the {s}, in the direction of the push, the {s} keeping up?",
        6: "Has the {o} ended up farther along, the {s} right behind it?",
    },
    "pull": {
        4: "Does the {o} begin to move when the {s} has got hold of it, and not before?",
        5: "Does the {s} go back the way it came, the {o} following close behind?",
        6: "Has the {o} ended up nearer to where the {s} came from, the {s} ahead of it?",
    },
    "hit": {
        4: "Does the {o} begin to move when the {s} strikes it, and not before?",
        5: "Does the {o} fly off in the direction of the blow while the {s} stays?",
        6: "Do they end up apart, the {o} farther along in the direction of the blow?",
    },
    "bump": {
        2: "Do the {s} and the {o} each come up to the other by their own motion?",
        4: "Does the {o} recoil when they meet, and not before?",
        5: "Do both the {s} and the {o} recoil?",
        6: "Do they end up apart, each on its own side?",
        10: "Is the {o} thrown back once it has been touched?",
    },
    "carry": {
        1: "Are the {s} and the {o} both there at the start, the {o} not yet on the {s}?",
        2: "Does the {s} come in under the {o} by its own motion?",
        3: "Does the {o} come to sit on the upper side of the {s}?",
        4: "Does the {o} begin to travel when it sits on the {s}, and not before?",
        5: "Does the {o} ride on the upper side of the {s} while both travel?",
        6: "Has the {o} ended up elsewhere, still on the {s}?",
        10: "Is the {o} moved once it has been touched?",
    },
    "squash": {
        4: "Does the {o} begin to flatten when the {s} touches it, and not before?",
        5: "Does the {o} shrink in height and spread while the {s} presses down on it?",
        6: "Does the {o} end up flat, under the {s}?",
        10: "Is the {o} flattened once it has been touched?",
    },
    "chase": {
        2: "Does the {s} go after the {o} by its own motion?",
        3: "Does the {s} gain on the {o} from behind?",
        4: "Does the {o} take flight when the {s} sets out, and not before?",
        5: "Do both keep moving in the same direction, the {o} ahead and the {s} behind?",
        6: "Has the {o} ended up elsewhere, the {s} still behind it and not left behind?",
        8: "Of all that is there, is it the {s} that goes after the {o}?",
        9: "Of all others, is it the {o}, and nothing in its stead, that the {s} goes after?",
        10: "Does the {o} flee from what goes after it?",
    },
    "hug": {
        2: "Do the {s} and the {o} each come up to the other by their own motion?",
        4: "Does the embrace set in when they meet, and last?",
        5: "Do the {s} and the {o} stay together from then on?",
        6: "Are they still together at the end, each on its own side?",
        10: "Is the {o} held once it has been touched?",
    },
}

_ANY: Final = (
    'Are the {s} and the {o} both there at the start, before "{v}" begins?',
    'Does the {s} set out to "{v}" the {o}, by its own motion?',
    'Does the {s} begin to "{v}" the {o}?',
    'Does the {o} begin to change when the {s} begins to "{v}" it, and not before?',
    'Does it go on as "{v}" demands, for both the {s} and the {o}?',
    'Are the {s} and the {o} at the end as "{v}" leaves them?',
    _ACTS,
    'Of all that is there, is it the {s} that does "{v}" to the {o}?',
    'Of all others, is it the {o}, and nothing in its stead, that the {s} does "{v}" to?',
    'Is the {o} changed by "{v}"?',
)
"""Any other verb or verb phrase, as it stands in the sample."""


def entity(sample: Sample, id: str) -> str:
    """Appearance and box colour of an instance, e.g. "small red ball (green bbox)"."""
    index = [instance.id for instance in sample.instances].index(id)
    phrase = sample.instances[index].phrase
    if index >= len(BOX_COLOURS):  # the protocol has six colours: the rest go without a box
        return phrase
    return f"{phrase} ({BOX_COLOURS[index]} bbox)"


def key_interaction(sample: Sample, interaction: Interaction) -> str:
    """The interaction in a few words, e.g. "the small red ball (red bbox) push the box (…)"."""
    subject, object_ = entity(sample, interaction.subject), entity(sample, interaction.object)
    return f"{subject} {interaction.verb} {object_}"


def template(sample: Sample, interaction: Interaction) -> tuple[str, ...]:
    """Ten questions of an interaction of any verb, made by rule."""
    s, o = entity(sample, interaction.subject), entity(sample, interaction.object)
    own = _OWN.get(interaction.verb)
    texts = _ANY if own is None else [{**_COMMON, **own}[q] for q in range(1, NUM_QUESTIONS + 1)]
    return tuple(text.format(s=s, o=o, v=interaction.verb) for text in texts)


@dataclass(frozen=True)
class AskedFoil:
    """An interaction that nobody asked for, in the place of the asked one number ``of``.

    All ten questions of an asked interaction want a *yes*: a video scores by any motion that
    looks like some interaction. Foils want a *no*. What a video scores as asked, less what it
    scores for its foils, is what it owes to the prompt. Our choice; the paper has no such measure.
    """

    of: int
    kind: FoilKind
    interaction: Interaction
    same_effect: bool = False
    """The verb leaves the same effect as the asked one."""


def foils(sample: Sample, verbs: Iterable[str]) -> tuple[AskedFoil, ...]:
    """Foils of a sample: roles exchanged where the verb has a direction, then the other ``verbs``.

    An interaction that the prompt asks for as well is no foil.
    """
    asked = {(one.subject, one.verb, one.object) for one in sample.interactions}
    found: list[AskedFoil] = []
    for of, one in enumerate(sample.interactions):
        if one.subject != one.object and not one.bidirectional:
            exchanged = Interaction(subject=one.object, verb=one.verb, object=one.subject)
            found.append(AskedFoil(of, "roles exchanged", exchanged))
        for verb in verbs:
            other = Interaction(subject=one.subject, verb=verb, object=one.object)
            found.append(AskedFoil(of, "another verb", other, share_effect(verb, one.verb)))
    return tuple(
        foil
        for foil in found
        if (foil.interaction.subject, foil.interaction.verb, foil.interaction.object) not in asked
    )


def with_foils(sample: Sample, added: Sequence[AskedFoil]) -> Sample:
    """The sample as a judge sees it: the asked interactions, then the foils'."""
    interactions = sample.interactions + tuple(foil.interaction for foil in added)
    return sample.model_copy(update={"interactions": interactions})


def share_effect(one: str, other: str) -> bool:
    """Whether two verbs leave the same effect, so that a video of one may show the other."""
    return one == other or any({one, other} <= alike for alike in SAME_EFFECT)


class QuestionSet(Record):
    """One line of ``questions.jsonl``."""

    sample: str
    subject: str
    verb: str
    object: str
    texts: tuple[str, ...] = Field(min_length=NUM_QUESTIONS, max_length=NUM_QUESTIONS)
    source: str
    """Who worded them: "template", the name of a model or of a person."""


Wording = Mapping[tuple[str, str, str, str], tuple[str, ...]]
"""Ten questions by sample, subject, verb and object: of interactions that do not ask the
template's."""
NO_WORDING: Final[Wording] = {}


def texts(sample: Sample, one: Interaction, wording: Wording) -> tuple[str, ...]:
    """The ten questions of an interaction of a sample, asked or foil."""
    own = wording.get((sample.id, one.subject, one.verb, one.object))
    return template(sample, one) if own is None else own


def read_questions(folder: Path, samples: Iterable[Sample]) -> Wording:
    """The wording of a prompt set with these ``samples``; empty where it has no file of questions.

    `MatrixError` names the line that is wrong, such as one about an interaction that nobody asks
    for.
    """
    file = folder / QUESTIONS
    if not file.is_file():
        return {}
    asked = {
        (sample.id, one.subject, one.verb, one.object): template(sample, one)
        for sample in samples
        for one in sample.interactions
    }
    remedy = "Correct the line, or delete the file to ask the template's questions"
    found: dict[tuple[str, str, str, str], tuple[str, ...]] = {}
    for number, line in json_lines(file):
        if isinstance(line, MatrixError):
            raise line
        try:
            own = QuestionSet.model_validate(line)
        except ValidationError as error:
            what = f"ten questions in line {number}"
            raise invalid_record(file, error, what=what, remedy=remedy) from error
        key = (own.sample, own.subject, own.verb, own.object)
        if key not in asked or key in found:
            told = "already has questions" if key in found else "is not asked for"
            raise MatrixError(
                f"the interaction {' '.join(key[1:])!r} of sample {own.sample!r} {told}",
                remedy=remedy,
                file=file,
                field=f"line {number}",
            )
        found[key] = own.texts
    return {key: words for key, words in found.items() if words != asked[key]}


def write_questions(folder: Path, samples: Sequence[Sample]) -> Path:
    """Write the template's questions of all interactions, to be edited; returns the file."""
    lines = [
        QuestionSet(
            sample=sample.id,
            subject=one.subject,
            verb=one.verb,
            object=one.object,
            texts=template(sample, one),
            source="template",
        ).model_dump_json()
        for sample in samples
        for one in sample.interactions
    ]
    write_atomic(folder / QUESTIONS, "".join(f"{line}\n" for line in lines))
    return folder / QUESTIONS
