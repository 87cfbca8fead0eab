"""What several data sets share: scenes, pixels, and (verb, subject, object) triples.

A triple's participants are their class and colour alone (our choice): size and wording make no new
combination. Disjoint scenes keep a held-out split from being seen; disjoint triples make it a test
of composition.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from matrix_video.data.check.report import Findings
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


def triples(checked: Checked) -> frozenset[Triple]:
    return frozenset(_triples(checked))


def _triples(checked: Checked) -> Iterator[Triple]:
    for line in checked.lines:
        by_id = {instance.id: instance for instance in line.draft.instances}
        for act in line.draft.interactions:
            if act.subject in by_id and act.object in by_id:
                yield triple(act, by_id[act.subject], by_id[act.object])


def compare(checked: Sequence[Checked], found: Findings) -> list[str]:
    """Summary lines, one or more a pair; shared scenes and shared videos become problems."""
    if len(checked) < 2:
        return []
    digests = [_digests(one) for one in checked]
    combined = [triples(one) for one in checked]
    summary: list[str] = []
    for i, j in combinations(range(len(checked)), 2):
        summary.append(_scenes(checked[i], checked[j], found))
        summary.append(_videos(checked[i], checked[j], digests[i], digests[j], found))
        summary.append(_overlap(checked[i], checked[j], combined[i], combined[j], found))
    return summary


def _digests(checked: Checked) -> dict[str, Line]:
    """The first sample of each video, by the hash of the video's bytes."""
    found: dict[str, Line] = {}
    for line in checked.lines:
        video = checked.path / line.draft.file_name
        if video.is_file():
            found.setdefault(sha256_file(video), line)
    return found


def _scenes(a: Checked, b: Checked, found: Findings) -> str:
    keys_a = {line.draft.scene: line for line in reversed(a.lines) if line.draft.scene is not None}
    keys_b = {line.draft.scene: line for line in reversed(b.lines) if line.draft.scene is not None}
    shared = [key for key in keys_b if key in keys_a]
    for key in sorted(shared):
        first, second = keys_a[key], keys_b[key]
        found.problem(
            b.path / FILE_NAME,
            f"line {second.number}: scene",
            f"sample {second.draft.id!r} of {b.name} and sample {first.draft.id!r} of {a.name} "
            f"share the scene {key!r}",
            "Make the splits from disjoint scenes",
        )
    silent = [
        f"{one.name} has {count} samples without a scene key"
        for one in (a, b)
        if (count := sum(line.draft.scene is None for line in one.lines))
    ]
    counts = f"{len(keys_a)} and {len(keys_b)} scene keys"
    if not (keys_a and keys_b):
        text = f"{a.name} and {b.name}: scenes cannot be compared by key"
    elif shared:
        text = f"{a.name} and {b.name} share {len(shared)} scenes ({counts})"
    else:
        text = f"{a.name} and {b.name} have disjoint scenes ({counts})"
    return text + "".join(f"; {part}" for part in silent)


def _videos(
    a: Checked,
    b: Checked,
    digests_a: dict[str, Line],
    digests_b: dict[str, Line],
    found: Findings,
) -> str:
    shared = [digest for digest in digests_b if digest in digests_a]
    for digest in shared:
        first, second = digests_a[digest].draft, digests_b[digest].draft
        found.problem(
            b.path / second.file_name,
            None,
            f"the video of sample {second.id!r} of {b.name} has the same bytes as that of sample "
            f"{first.id!r} of {a.name}",
            "Make the splits from disjoint videos",
        )
    counts = f"{len(digests_a)} and {len(digests_b)} compared byte for byte"
    share = f"share {len(shared)} videos" if shared else "share no video"
    return f"{a.name} and {b.name} {share} ({counts})"


def _overlap(
    a: Checked, b: Checked, in_a: frozenset[Triple], in_b: frozenset[Triple], found: Findings
) -> str:
    shared = in_a & in_b
    counts = f"{len(shared)} of the {len(in_b)} triples of {b.name} occur in {a.name}"
    if not in_a or not in_b:
        return f"{counts}: nothing to compare"
    if not shared:
        return f"{counts} ({len(in_a)} triples): {b.name}'s triples are disjoint from {a.name}'s"
    if shared in (in_a, in_b):
        whole = a.name if shared == in_a else b.name
        return f"{counts} ({len(in_a)} triples): shared, all of {whole}'s among them"
    examples = ", ".join(
        f"{first} {verb} {second}" for verb, first, second in sorted(shared)[:_SHOWN]
    )
    found.note(
        b.path / FILE_NAME,
        "interactions",
        f"{counts}, {len(shared)} of {len(in_a)} the other way round: the data sets share some "
        f"triples only ({examples}{', ...' if len(shared) > _SHOWN else ''})",
        "For a test of composition none may be shared; for a test on seen triples, all",
    )
    return f"{counts} ({len(in_a)} triples): partly shared"
