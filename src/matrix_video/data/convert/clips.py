"""Names, samples and files of single clips, as far as the directions share them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path, PurePosixPath

from matrix_video.data.convert.kept import walk
from matrix_video.data.convert.prompts import derive_instances, read_prompt
from matrix_video.data.convert.recognise import VIDEOS
from matrix_video.data.paths import inside
from matrix_video.data.probe import VideoInfo
from matrix_video.data.sample import Instance, Interaction, Sample
from matrix_video.data.trackfile import TrackFile
from matrix_video.data.tracks import MaskTrack


class Names:
    """Paths that are given out: none twice, and none below another."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._folders: set[str] = set()

    def fits(self, name: str) -> bool:
        above = (str(parent) for parent in PurePosixPath(name).parents)
        free = name not in self._taken and name not in self._folders
        return free and self._taken.isdisjoint(above)

    def take(self, name: str) -> None:
        self._taken.add(name)
        self._folders.update(str(parent) for parent in PurePosixPath(name).parents)

    def free(self, name: str, tail: str = "") -> str:
        """The name, or the first with a number behind it, that fits."""
        options = (name + (f"-{n}" if n > 1 else "") + tail for n in count(1))
        return next(option for option in options if self.fits(option))


class ClipNames:
    """Ids and file names of samples, given in the order of the clips."""

    def __init__(self) -> None:
        self._ids, self._files = Names(), Names()

    def fit(self, name: str, file_name: str) -> bool:
        return self._ids.fits(name) and self._files.fits(file_name)

    def take(self, name: str, file_name: str) -> None:
        self._ids.take(name)
        self._files.take(file_name)

    def derive(self, path: str) -> tuple[str, str]:
        """Of a video below the root: its name with other characters than letters, digits, ``.``,
        ``_`` and ``-`` replaced, and its path; numbered where they are taken."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", stem(path)).lstrip("._-")[:180] or "clip"
        tail = PurePosixPath(path).suffix
        return self._ids.free(plain), self._files.free(path.removesuffix(tail), tail)


def stem(path: str) -> str:
    """Name of the mask folder of a video: its path below ``videos`` without the suffix."""
    whole = PurePosixPath(path)
    below = whole.relative_to(VIDEOS) if whole.parts[0] == VIDEOS and whole.name != path else whole
    return str(below.with_suffix(""))


def video_field(sample: Sample) -> str:
    """How a row names the sample's video: its path below ``videos``, else by the sample's id."""
    path = PurePosixPath(sample.file_name)
    if path.parts[0] == VIDEOS and len(path.parts) > 1:
        return str(path.relative_to(VIDEOS))
    return sample.id + path.suffix


def adopt(old: Sample, edited: bool, prompt: str, ids: Iterable[str]) -> Sample:
    """The sample that we had, with the ids that have new mask folders, and its prompt where that
    was edited since: caption and mentions are read anew then, verbs lose their spans; classes,
    phrases and interactions stay."""
    tagged = read_prompt(prompt)
    ids = tuple(ids)
    derived = {instance.id: instance for instance in derive_instances(tagged, ids)}
    had = {instance.id for instance in old.instances}
    new = tuple(one for one in derived.values() if one.id not in had and (one.id in ids or edited))
    if not edited:
        return old.model_copy(update={"instances": old.instances + new}) if new else old
    instances = tuple(
        Instance(
            id=one.id,
            noun=one.noun,
            phrase=one.phrase,
            mentions=derived[one.id].mentions if one.id in derived else (),
            noun_spans=derived[one.id].noun_spans if one.id in derived else (),
        )
        for one in old.instances
    )
    interactions = tuple(
        Interaction.model_validate(one.model_dump() | {"verb_span": None})
        for one in old.interactions
    )
    changed = {
        "caption": tagged.caption,
        "instances": instances + new,
        "interactions": interactions,
    }
    return old.model_copy(update=changed)


def write_ours(
    target: Path, sample: Sample, video: Path, info: VideoInfo, tracks: Mapping[str, MaskTrack]
) -> str:
    """A clip of our layout, without its line in the metadata; returns its track file's text."""
    text = TrackFile(info.size, len(info.times), tracks).text()
    copy(video, target, sample.file_name)
    path = inside(target, f"tracks/{sample.id}.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return text


def copy(source: Path, target: Path, name: str) -> None:
    """A file to its place in the target. It may stay torn when we are killed: nothing reads the
    target before it is finished."""
    goal = inside(target, name)
    goal.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, goal)


def copy_others(
    source: Path, target: Path, claimed: set[str], made: set[str], back: str, away: str
) -> tuple[list[str], list[str]]:
    """Copy the files of a data set that are no clip's.

    ``claimed``: files and folders that are left out. Files below the folder ``back`` came from the
    target's layout and return to their places, others go into the folder ``away``, which is made
    anew. Nothing takes a place that is in ``made``, or lies below one. Returns what went away, and
    notes.
    """
    shutil.rmtree(target / away, ignore_errors=True)  # of an earlier try
    extra: list[str] = []
    notes: list[str] = []
    for name in walk(source, "", claimed.__contains__, notes):
        goal = name.removeprefix(f"{back}/") if name.startswith(f"{back}/") else f"{away}/{name}"
        if name.endswith("/"):
            continue
        if not made.isdisjoint((goal, *(str(parent) for parent in PurePosixPath(goal).parents))):
            notes.append(f"{name} was not copied: a file made from the data itself has its name")
            continue
        copy(source / name, target, goal)
        if goal.startswith(f"{away}/"):
            extra.append(name)
    return extra, notes
