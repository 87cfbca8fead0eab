"""Foils: interactions that nobody asked for, judged on the same video.

All ten questions of an asked interaction want a *yes*, so a video scores by any motion that looks
like some interaction. Foils want a *no*: subject and object exchanged, and every other verb. What a
video scores as asked, less what it scores for its foils, is what it owes to the prompt. Our choice;
the paper has no such measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matrix_video.data.sample import Interaction, Sample
from matrix_video.evaluation.questions import share_effect
from matrix_video.evaluation.scores import FoilKind


@dataclass(frozen=True)
class AskedFoil:
    """A foil of the asked interaction number ``of``."""

    of: int
    kind: FoilKind
    interaction: Interaction
    same_effect: bool = False


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
            if verb != one.verb:
                other = Interaction(subject=one.subject, verb=verb, object=one.object)
                alike = share_effect(verb, one.verb)
                found.append(AskedFoil(of, "another verb", other, alike))
    return tuple(foil for foil in found if _key(foil.interaction) not in asked)


def _key(one: Interaction) -> tuple[str, str, str]:
    return one.subject, one.verb, one.object


def with_foils(sample: Sample, asked: Sequence[AskedFoil]) -> Sample:
    """The sample as a judge sees it: the asked interactions, then the foils'."""
    added = tuple(foil.interaction for foil in asked)
    return sample.model_copy(update={"interactions": sample.interactions + added})
