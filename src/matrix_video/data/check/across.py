"""What several data sets share: scenes, pixels, and (verb, subject, object) triples.

A triple's participants are their class and colour alone (our choice): size and wording make no new
combination. Disjoint scenes keep a held-out split from being seen; disjoint triples make it a test
of composition.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Literal

from matrix_video.data.check.folder import Report
from matrix_video.data.metadata import FILE_NAME, Line
from matrix_video.data.sample import Instance, Interaction
from matrix_video.services.files import sha256_file

_BASIC = "red green blue yellow purple orange cyan white black grey brown pink magenta"
COLOURS = frozenset(_BASIC.split())
_SPELLING = {"gray": "grey"}
_SHOWN = 5

Triple = tuple[str, str, str]
"""Verb, subject key, object key."""


@dataclass(frozen=True)
class Checked:
    """A data set as far as it could be read."""

    name: str
    path: Path
    lines: tuple[Line, ...]

    @cached_property
    def digests(self) -> dict[str, Line]:
        """The first sample of each video, by the hash of the video's bytes."""
        found: dict[str, Line] = {}
        for line in self.lines:
            video = self.path / line.draft.file_name
            if video.is_file():
                found.setdefault(sha256_file(video), line)
        return found

    @property
    def scenes(self) -> dict[str, Line]:
        """The first sample of each scene key."""
        found: dict[str, Line] = {}
        for line in self.lines:
            if line.draft.scene is not None:
                found.setdefault(line.draft.scene, line)
        return found

    @cached_property
    def triples(self) -> frozenset[Triple]:
        """Of all interactions whose participants are there."""
        found: set[Triple] = set()
        for line in self.lines:
            by_id = {instance.id: instance for instance in line.draft.instances}
            for act in line.draft.interactions:
                if act.subject in by_id and act.object in by_id:
                    found.add(triple(act, by_id[act.subject], by_id[act.object]))
        return frozenset(found)


def participant_key(instance: Instance) -> str:
    """Colour words of the phrase, sorted, then the noun: 'small Red ball' gives 'red ball'."""
    words = (_SPELLING.get(w, w) for w in re.findall(r"\w+", instance.phrase.casefold()))
    return " ".join([*sorted(COLOURS.intersection(words)), instance.noun.casefold()])


def triple(interaction: Interaction, subject: Instance, object: Instance) -> Triple:
    """The interaction's triple; a bidirectional one has its participants in sorted order."""
    first, second = participant_key(subject), participant_key(object)
    if interaction.bidirectional and second < first:
        first, second = second, first
    return interaction.verb.casefold(), first, second


def compare(checked: Sequence[Checked], report: Report) -> None:
    """Three lines of summary a pair; shared scenes and shared videos become problems."""
    for a, b in combinations(checked, 2):
        scenes = _share(a, b, a.scenes, b.scenes, "scene", report)
        for one in (a, b):
            if silent := sum(line.draft.scene is None for line in one.lines):
                scenes += f"; {one.name} has {silent} samples without a scene key"
        videos = _share(a, b, a.digests, b.digests, "video", report)
        report.summary += [scenes, videos, _overlap(a, b, report)]


def _share(
    a: Checked,
    b: Checked,
    in_a: Mapping[str, Line],
    in_b: Mapping[str, Line],
    what: Literal["scene", "video"],
    report: Report,
) -> str:
    shared = [key for key in in_b if key in in_a]
    for key in shared:
        line = in_b[key]
        report.problem(
            b.path / FILE_NAME,
            f"line {line.number}: {'scene' if what == 'scene' else 'file_name'}",
            f"sample {line.draft.id!r} of {b.name} has the {what} of sample "
            f"{in_a[key].draft.id!r} of {a.name}"
            + (f", {key!r}" if what == "scene" else ", byte for byte"),
            f"Make the splits from disjoint {what}s",
        )
    count = len(shared) or "no"
    of = f"(of {len(in_a)} and {len(in_b)})"
    return f"{a.name} and {b.name} share {count} {what}{'' if len(shared) == 1 else 's'} {of}"


def _overlap(a: Checked, b: Checked, report: Report) -> str:
    ours, theirs = a.triples, b.triples
    shared = ours & theirs
    counts = f"{len(shared)} of the {len(theirs)} triples of {b.name} occur in {a.name}"
    if not ours or not theirs:
        return f"{counts}: nothing to compare"
    said, counts = counts, f"{counts} ({len(ours)} triples)"
    if not shared:
        return f"{counts}: {b.name}'s triples are disjoint from {a.name}'s"
    if shared in (ours, theirs):
        return f"{counts}: shared, all of {a.name if shared == ours else b.name}'s among them"
    examples = ", ".join(
        f"{first} {verb} {second}" for verb, first, second in sorted(shared)[:_SHOWN]
    )
    report.note(
        b.path / FILE_NAME,
        "interactions",
        f"{said}, {len(shared)} of {len(ours)} the other way round: the data sets share some "
        f"triples only ({examples}{', ...' if len(shared) > _SHOWN else ''})",
        "For a test of composition none may be shared; for a test on seen triples, all",
    )
    return f"{counts}: partly shared"
