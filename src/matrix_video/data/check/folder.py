"""One data set: its metadata, videos, tracks and left-over files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from matrix_video.data.check.wording import check_words
from matrix_video.data.metadata import (
    FILE_NAME,
    JOURNAL,
    Line,
    in_line,
    metadata_file,
    scan_metadata,
)
from matrix_video.data.probe import VideoInfo
from matrix_video.data.sample import Draft
from matrix_video.data.trackfile import check_fits, no_track, scan_tracks, track_path
from matrix_video.data.tracks import MaskTrack, State
from matrix_video.data.video import check_video
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import TEMPORARY, is_temporary
from matrix_video.services.progress import progress

_OWN_WORDS = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")
"""What differs between repetitions of one mistake: names, texts, numbers."""


@dataclass
class Report:
    """``problems`` make a data set unfit; ``notes`` are legal; ``summary`` says what was proved."""

    problems: list[MatrixError] = field(default_factory=list[MatrixError])
    notes: list[MatrixError] = field(default_factory=list[MatrixError])
    summary: list[str] = field(default_factory=list[str])

    def problem(self, file: Path, place: str | None, problem: str, remedy: str) -> None:
        self.problems.append(MatrixError(problem, remedy=remedy, file=file, field=place))

    def note(self, file: Path, place: str | None, problem: str, remedy: str) -> None:
        self.notes.append(MatrixError(problem, remedy=remedy, file=file, field=place))

    @property
    def ok(self) -> bool:
        return not self.problems

    def lines(self, *, every: bool = False) -> list[str]:
        """For the console: a mistake that repeats is told once with its count, unless ``every``."""
        counts = f"problems: {len(self.problems)}, notes: {len(self.notes)}"
        return [
            *_told("problem", self.problems, every),
            *_told("note", self.notes, every),
            *self.summary,
            *([counts] if self.problems or self.notes else []),
        ]


def check_folder(path: Path, name: str, report: Report) -> list[Line]:
    """Put all that is found into the report; returns the lines that could be read."""
    try:
        lines, problems = scan_metadata(metadata_file(path))
    except MatrixError as error:
        report.problems.append(error)
        return []
    report.problems += problems
    if not lines and not problems:
        remedy = "Give a data set with at least one clip"
        report.problem(path / FILE_NAME, None, "the data set has 0 samples", remedy)
    with progress(f"check {name}", len(lines)) as advance:
        for line in lines:
            _check_clip(path, line, report)
            advance(1)
    _leftovers(path, lines, report)
    return lines


def _check_clip(path: Path, line: Line, report: Report) -> None:
    draft, info = line.draft, None
    metadata, video, place = path / FILE_NAME, path / draft.file_name, track_path(path, draft.id)
    if line.whole:
        problems, notes = check_words(draft)
        report.problems += [in_line(metadata, line.number, error) for error in problems]
        report.notes += [in_line(metadata, line.number, error) for error in notes]
    try:
        info = check_video(video)
        for note in info.notes:
            report.note(video, None, note, "Its frames are taken as they are stored")
    except MatrixError as error:
        report.problems.append(error)
    if not line.whole:
        return
    if not draft.interactions:
        report.note(
            metadata,
            f"line {line.number}: interactions",
            f"sample {draft.id!r} has no interaction",
            "matrix analyze refuses it, matrix train uses it for the model's own loss alone",
        )
    if draft.instances or place.is_file():
        _check_tracks(draft, place, video, info, report)


def _check_tracks(
    draft: Draft, place: Path, video: Path, info: VideoInfo | None, report: Report
) -> None:
    file, problems = scan_tracks(place)
    report.problems += problems
    if file is None:
        return
    if info is not None:
        try:
            check_fits(file, place, video, info.size, len(info.times))
        except MatrixError as error:
            report.problems.append(error)
    broken = {error.field for error in problems}
    for instance in draft.instances:
        field = f"instances.{instance.id}"
        if instance.id in file.tracks:
            _check_states(place, instance.id, file.tracks[instance.id], report)
        elif field not in broken:
            missing, needed = no_track(place, draft, instance)
            (report.problems if needed else report.notes).append(missing)
    for name in sorted(file.tracks.keys() - {instance.id for instance in draft.instances}):
        report.problem(
            place,
            f"instances.{name}",
            f"sample {draft.id!r} has no instance {name!r}",
            "Remove the track, or add the instance to the sample",
        )


def _check_states(place: Path, id: str, track: MaskTrack, report: Report) -> None:
    field, first = f"instances.{id}", track.states[0]
    if State.VISIBLE not in track.states and State.ABSENT not in track.states:
        remedy = "It is never supervised and never scored; track it to change that"
        report.note(place, field, f"instance {id!r} is annotated in no frame", remedy)
    elif State.VISIBLE not in track.states:
        remedy = "Track it again, or remove it from the sample"
        report.problem(place, field, f"instance {id!r} is visible in no frame", remedy)
    elif first is not State.VISIBLE:
        report.note(
            place,
            f"{field}.states[0]",
            f"instance {id!r} is {first.value} in the first frame",
            "SPA has no query for it, and the first-frame id map leaves it out",
        )


def _leftovers(path: Path, lines: list[Line], report: Report) -> None:
    """Files that no sample claims, and what interrupted writers left."""
    videos = {path / line.draft.file_name for line in lines}
    tracks = {track_path(path, line.draft.id) for line in lines}
    for folder, claimed, what in (("videos", videos, "video"), ("tracks", tracks, "track file")):
        for file in sorted((path / folder).rglob("*")):
            if file.is_file() and file not in claimed and not is_temporary(file.relative_to(path)):
                problem = f"no sample uses this {what}"
                report.note(file, None, problem, "Remove it, or add its line")
    for file in sorted(path.rglob(f"{TEMPORARY}*")):
        if not is_temporary(file.parent.relative_to(path)):  # a folder once, not each file in it
            remedy = "Remove it unless a run is at work"
            report.note(file, None, "a temporary file that an interrupted run left", remedy)
    if (path / JOURNAL).is_file():
        problem = "the journal of a writer that is at work or was interrupted"
        remedy = "Let the command that writes this data set finish"
        report.note(path / JOURNAL, None, problem, remedy)


def _told(kind: str, found: Iterable[MatrixError], every: bool) -> Iterator[str]:
    groups: dict[object, list[MatrixError]] = {}
    for index, error in enumerate(found):
        what = _OWN_WORDS.sub("", f"{error.field} {error.problem} {error.remedy}")
        groups.setdefault(index if every else what, []).append(error)
    for first, *more in groups.values():
        yield f"{kind}: {first}"
        if more:
            last = f"{more[-1].file}: {more[-1].field}" if more[-1].field else str(more[-1].file)
            yield f"    and {len(more)} more of this kind, the last at {last}"
