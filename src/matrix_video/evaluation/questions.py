"""The ten questions of a key interaction, in words.

Questions 1-6 follow the interaction (before, four steps, after: KISA), 7-10 ask who does what to
whom (SGI). Each is one geometric statement about the *named* subject and object.

Source: the scheme is the paper's (section on InterGenEval); the wording for these verbs is our
choice. Entities are named as appearance plus box colour, as the authors' code does.
"""

from __future__ import annotations

from typing import Final

from matrix_video.data.sample import Interaction, Sample

BOX_COLOURS: Final = ("red", "green", "blue", "yellow", "magenta", "cyan")
"""Box colours in the order of ``Sample.instances``."""
NUM_QUESTIONS: Final = 10
KISA_QUESTIONS: Final = (1, 2, 3, 4, 5, 6)
SGI_QUESTIONS: Final = (7, 8, 9, 10)

_APART = "Are the {s} and the {o} both there at the start, apart from each other?"
_COMES = "Does the {s} come up to the {o} by its own motion?"
_MEETS = "Do the {s} and the {o} come into contact?"
_ACTS = "Does the {s} act, that is, move by itself before anything reaches it?"
_AGENT = "Of all that is there, is it the {s} that first reaches the {o}?"
_PATIENT = (
    "Of all others, is it the {o}, and nothing in its stead, that the {s} reaches and changes?"
)

_TEXTS: Final[dict[str, tuple[str, ...]]] = {
    "push": (
        _APART,
        _COMES,
        _MEETS,
        "Does the {o} begin to move when the {s} touches it, and not before?",
        "Does the {o} move ahead of the {s}, in the direction of the push, the {s} keeping up?",
        "Has the {o} ended up farther along, the {s} right behind it?",
        _ACTS,
        _AGENT,
        _PATIENT,
        "Does the {o} move once it has been touched?",
    ),
    "pull": (
        _APART,
        _COMES,
        _MEETS,
        "Does the {o} begin to move when the {s} has got hold of it, and not before?",
        "Does the {s} go back the way it came, the {o} following close behind?",
        "Has the {o} ended up nearer to where the {s} came from, the {s} ahead of it?",
        _ACTS,
        _AGENT,
        _PATIENT,
        "Does the {o} move once it has been touched?",
    ),
    "hit": (
        _APART,
        _COMES,
        _MEETS,
        "Does the {o} begin to move when the {s} strikes it, and not before?",
        "Does the {o} fly off in the direction of the blow while the {s} stays?",
        "Do they end up apart, the {o} farther along in the direction of the blow?",
        _ACTS,
        _AGENT,
        _PATIENT,
        "Does the {o} move once it has been touched?",
    ),
    "bump": (
        _APART,
        "Do the {s} and the {o} each come up to the other by their own motion?",
        _MEETS,
        "Does the {o} recoil when they meet, and not before?",
        "Do both the {s} and the {o} recoil?",
        "Do they end up apart, each on its own side?",
        _ACTS,
        _AGENT,
        _PATIENT,
        "Is the {o} thrown back once it has been touched?",
    ),
    "carry": (
        "Are the {s} and the {o} both there at the start, the {o} not yet on the {s}?",
        "Does the {s} come in under the {o} by its own motion?",
        "Does the {o} come to sit on the upper side of the {s}?",
        "Does the {o} begin to travel when it sits on the {s}, and not before?",
        "Does the {o} ride on the upper side of the {s} while both travel?",
        "Has the {o} ended up elsewhere, still on the {s}?",
        _ACTS,
        _AGENT,
        _PATIENT,
        "Is the {o} moved once it has been touched?",
    ),
    "squash": (
        _APART,
        _COMES,
        _MEETS,
        "Does the {o} begin to flatten when the {s} touches it, and not before?",
        "Does the {o} shrink in height and spread while the {s} presses down on it?",
        "Does the {o} end up flat, under the {s}?",
        _ACTS,
        _AGENT,
        _PATIENT,
        "Is the {o} flattened once it has been touched?",
    ),
    "chase": (
        _APART,
        "Does the {s} go after the {o} by its own motion?",
        "Does the {s} gain on the {o} from behind?",
        "Does the {o} take flight when the {s} sets out, and not before?",
        "Do both keep moving in the same direction, the {o} ahead and the {s} behind?",
        "Has the {o} ended up elsewhere, the {s} still behind it and not left behind?",
        _ACTS,
        "Of all that is there, is it the {s} that goes after the {o}?",
        "Of all others, is it the {o}, and nothing in its stead, that the {s} goes after?",
        "Does the {o} flee from what goes after it?",
    ),
    "hug": (
        _APART,
        "Do the {s} and the {o} each come up to the other by their own motion?",
        _MEETS,
        "Does the embrace set in when they meet, and last?",
        "Do the {s} and the {o} stay together from then on?",
        "Are they still together at the end, each on its own side?",
        _ACTS,
        _AGENT,
        _PATIENT,
        "Is the {o} held once it has been touched?",
    ),
}

VERBS: Final = tuple(_TEXTS)
"""Base verbs that have questions."""


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


def questions(sample: Sample, interaction: Interaction) -> tuple[str, ...]:
    """The ten questions of an interaction; ``KeyError`` for a verb that has none."""
    s, o = entity(sample, interaction.subject), entity(sample, interaction.object)
    return tuple(text.format(s=s, o=o) for text in _TEXTS[interaction.verb])
