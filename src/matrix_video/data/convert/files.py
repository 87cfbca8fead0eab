"""Files of data sets: their names, and copies of them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path, PurePosixPath

from matrix_video.data.convert.layout import mask_name
from matrix_video.data.paths import check_stored, inside
from matrix_video.data.probe import VideoInfo
from matrix_video.data.sample import Sample
from matrix_video.data.trackfile import TrackFile
from matrix_video.data.tracks import MaskTrack
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import LOCK, TEMPORARY


class Names:
    """Paths that are given out: none twice, and none below another."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._folders: set[str] = set()

    def fit(self, *names: str) -> bool:
        return all(
            name not in self._taken
            and name not in self._folders
            and self._taken.isdisjoint(map(str, PurePosixPath(name).parents))
            for name in names
        )

    def take(self, *names: str) -> None:
        for name in names:
            self._taken.add(name)
            self._folders.update(map(str, PurePosixPath(name).parents))

    def free(self, name: str) -> str:
        """The name, or the first with a number before its suffix, that fits."""
        tail = PurePosixPath(name).suffix
        options = (name.removesuffix(tail) + (f"-{n}" if n > 1 else "") + tail for n in count(1))
        return next(option for option in options if self.fit(option))

    def derive(self, path: str) -> tuple[str, str]:
        """The id and file name that our sample of a video gets: its name with other characters
        than letters, digits, ``.``, ``_`` and ``-`` replaced, and its path; numbered where they
        are taken."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", mask_name(path)).lstrip("._-")[:180] or "clip"
        track = PurePosixPath(self.free(tracks_of(name)))
        return track.name.removesuffix(".json"), self.free(path)


def tracks_of(id: str) -> str:
    """The track file of a sample, below the root of our layout."""
    return f"tracks/{id}.json"


def write_ours(
    target: Path, sample: Sample, video: Path, info: VideoInfo, tracks: Mapping[str, MaskTrack]
) -> str:
    """A clip of our layout, without its line in the metadata; returns its track file's text."""
    text = TrackFile(info.size, len(info.times), tracks).text()
    copy(video, target, sample.file_name)
    path = inside(target, tracks_of(sample.id))
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
        if not made.isdisjoint((goal, *map(str, PurePosixPath(goal).parents))):
            notes.append(f"{name} was not copied: a file made from the data itself has its name")
            continue
        copy(source / name, target, goal)
        if goal.startswith(f"{away}/"):
            extra.append(name)
    return extra, notes


def walk(
    root: Path, below: str, skip: Callable[[str], bool], refused: list[str] | None = None
) -> Iterator[str]:
    """Files below ``root / below`` and empty folders (with ``/``), sorted, as paths below ``root``.

    Folders and files of which ``skip`` says so are left out, and temporary ones. ``MatrixError``
    for a link that leads out of ``root`` or to a folder, and for names that cannot be stored; with
    ``refused`` those are left out, and told there.
    """
    for entry in sorted(os.scandir(root / below), key=lambda entry: entry.name):
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.name.startswith(TEMPORARY) or entry.name == LOCK or skip(name):
            continue
        try:
            _check_entry(root, name, entry)
        except MatrixError as error:
            if refused is None:
                raise
            refused.append(str(error))
            continue
        if entry.is_dir():
            yield from walk(root, name, skip, refused)
            if not any(os.scandir(entry.path)):
                yield name + "/"
        elif entry.is_file():
            yield name


def _check_entry(root: Path, name: str, entry: os.DirEntry[str]) -> None:
    if entry.is_symlink() and inside(root, name).is_dir():
        raise MatrixError(
            "links to folders are not followed",
            remedy="Put the folder itself in its place",
            file=root / name,
        )
    try:
        check_stored(name)
    except ValueError as error:
        raise MatrixError(str(error), remedy="Rename the file", file=root / name) from error
