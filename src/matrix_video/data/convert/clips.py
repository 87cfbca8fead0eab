"""Rows of the authors' metadata ↔ samples, as far as a row and its mask folders determine them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import PurePosixPath

from matrix_video.data.convert.prompts import derive_instances, read_prompt
from matrix_video.data.convert.recognise import VIDEOS
from matrix_video.data.sample import Instance, Interaction, Sample


@dataclass(frozen=True)
class Row:
    """``path``: the video below the data set's root; ``ids``: those that have a mask folder."""

    path: PurePosixPath
    prompt: str
    ids: tuple[str, ...]


def stem(path: PurePosixPath) -> str:
    """Name of the mask folder of a video: its path below ``videos`` without the suffix."""
    below = path.relative_to(VIDEOS) if path.parts[0] == VIDEOS and len(path.parts) > 1 else path
    return str(below.with_suffix(""))


def derive_samples(rows: Sequence[Row], known: Mapping[int, Sample]) -> list[Sample]:
    """A sample for every row: the ``known`` ones (by row), the others from the row alone.

    Ids are the video's name with other characters than letters, digits, ``.``, ``_`` and ``-``
    replaced; a second row of the same video gets an id and a file name of its own.
    """
    ids = {sample.id for sample in known.values()}
    files = {sample.file_name for sample in known.values()}
    made: list[Sample] = []
    for index, row in enumerate(rows):
        if index in known:
            made.append(known[index])
            continue
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", stem(row.path)).lstrip("._-") or "clip"
        name = _free(plain, "", ids)
        tail = row.path.suffix
        file_name = _free(str(row.path)[: len(str(row.path)) - len(tail)], tail, files)
        ids.add(name)
        files.add(file_name)
        tagged = read_prompt(row.prompt)
        made.append(
            Sample(
                id=name,
                file_name=file_name,
                caption=tagged.caption,
                instances=derive_instances(tagged, row.ids),
            )
        )
    return made


def adopt(old: Sample, old_prompt: str, row: Row) -> Sample:
    """The sample that we had, brought up to date with a row that was edited since.

    Ids with new mask folders are added. With another prompt the caption and the mentions are read
    anew and verbs lose their spans; classes, phrases and interactions stay.
    """
    tagged = read_prompt(row.prompt)
    derived = {instance.id: instance for instance in derive_instances(tagged, row.ids)}
    had = {instance.id for instance in old.instances}
    same = row.prompt == old_prompt  # then what it says that we have not is no id of ours
    new = tuple(
        instance
        for name, instance in derived.items()
        if name not in had and (name in row.ids or not same)
    )
    if same:
        return old.model_copy(update={"instances": old.instances + new}) if new else old
    instances = tuple(
        Instance(
            id=instance.id,
            noun=instance.noun,
            phrase=instance.phrase,
            mentions=derived[instance.id].mentions if instance.id in derived else (),
            noun_spans=derived[instance.id].noun_spans if instance.id in derived else (),
        )
        for instance in old.instances
    )
    interactions = tuple(
        Interaction.model_validate(interaction.model_dump() | {"verb_span": None})
        for interaction in old.interactions
    )
    return old.model_copy(
        update={
            "caption": tagged.caption,
            "instances": instances + new,
            "interactions": interactions,
        }
    )


def video_field(sample: Sample) -> str:
    """How a row names the sample's video: its path below ``videos``, else by the sample's id."""
    path = PurePosixPath(sample.file_name)
    if path.parts[0] == VIDEOS and len(path.parts) > 1:
        return str(path.relative_to(VIDEOS))
    return sample.id + path.suffix


def _free(name: str, tail: str, taken: set[str]) -> str:
    if name + tail not in taken:
        return name + tail
    return next(made for number in count(2) if (made := f"{name}-{number}{tail}") not in taken)
