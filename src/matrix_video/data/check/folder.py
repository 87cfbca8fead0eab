"""One data set after the other, then all of them against each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matrix_video.data.check.across import Checked, compare
from matrix_video.data.check.report import Findings, Report
from matrix_video.data.metadata import FILE_NAME, JOURNAL, Line, Scan, metadata_file, scan_metadata
from matrix_video.data.probe import VideoInfo
from matrix_video.data.sample import Draft
from matrix_video.data.trackfile import misfits, needs_track, no_track, scan_tracks, track_path
from matrix_video.data.tracks import MaskTrack, State
from matrix_video.data.validate import wording
from matrix_video.data.video import check_video
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import TEMPORARY
from matrix_video.services.progress import progress


def check_datasets(paths: Sequence[Path]) -> Report:
    """Every problem of every data set; with several, also what they share (our choice of rules).

    Nothing is raised for what is found, however broken. Videos are decoded whole, one frame at a
    time. What passes without a problem can be loaded. With several data sets, a scene key or the
    bytes of a video that stand in two of them are a problem; how their (verb, subject, object)
    triples overlap stands in the summary.
    """
    short = [path.resolve().name for path in paths]
    names = short if len(set(short)) == len(short) else [str(path) for path in paths]
    found = Findings()
    checked = [_check(path, name, found) for path, name in zip(paths, names, strict=True)]
    summary = [
        f"{one.name}: {len(one.lines)} samples, "
        f"{sum(len(line.draft.interactions) for line in one.lines)} interactions, "
        f"{sum(len(line.draft.instances) for line in one.lines)} instances"
        for one in checked
    ]
    summary += compare(checked, found)
    return Report(tuple(found.problems), tuple(found.notes), tuple(summary))


def _check(path: Path, name: str, found: Findings) -> Checked:
    try:
        scan = scan_metadata(metadata_file(path))
    except MatrixError as error:
        found.problems.append(error)
        return Checked(name, path, ())
    found.problems += scan.problems
    if not scan.lines and not scan.problems:
        found.problem(
            path / FILE_NAME,
            None,
            "the data set has 0 samples",
            "Give a data set with at least one clip",
        )
    with progress(f"check {name}", len(scan.lines)) as advance:
        for line in scan.lines:
            _check_clip(path, line, found)
            advance(1)
    _leftovers(path, scan, found)
    return Checked(name, path, tuple(scan.lines))


def _check_clip(path: Path, line: Line, found: Findings) -> None:
    draft, info = line.draft, None
    for fault in [] if line.moved else wording(draft):
        (found.notes if fault.note else found.problems).append(line.error(path / FILE_NAME, fault))
    video = path / draft.file_name
    try:
        info = check_video(video)
        for note in info.notes:
            found.note(video, None, note, "Its frames are taken as they are stored")
    except MatrixError as error:
        found.problems.append(error)
    if not draft.interactions:
        found.note(
            path / FILE_NAME,
            f"line {line.number}: interactions",
            f"sample {draft.id!r} has no interaction",
            "matrix analyze refuses it, matrix train uses it for the model's own loss alone",
        )
    place = track_path(path, draft.id)
    if draft.instances or place.is_file():
        _check_tracks(draft, place, video, info, found)


def _check_tracks(
    draft: Draft, place: Path, video: Path, info: VideoInfo | None, found: Findings
) -> None:
    file, problems = scan_tracks(place)
    found.problems += problems
    if file is None:
        return
    if info is not None:
        found.problems += misfits(place, file, video, info.size, len(info.times))
    broken = {error.field for error in problems}
    for instance in draft.instances:
        field = f"instances.{instance.id}"
        if instance.id in file.tracks:
            _check_states(place, instance.id, file.tracks[instance.id], found)
        elif field not in broken:
            why = needs_track(draft, instance)
            missing = no_track(place, draft, instance.id, why or "only its mask is missed")
            (found.problems if why else found.notes).append(missing)
    for name in sorted(file.tracks.keys() - {instance.id for instance in draft.instances}):
        found.problem(
            place,
            f"instances.{name}",
            f"sample {draft.id!r} has no instance {name!r}",
            "Remove the track, or add the instance to the sample",
        )


def _check_states(place: Path, id: str, track: MaskTrack, found: Findings) -> None:
    field, first = f"instances.{id}", track.states[0]
    if State.VISIBLE not in track.states and State.ABSENT not in track.states:
        remedy = "It is never supervised and never scored; track it to change that"
        found.note(place, field, f"instance {id!r} is annotated in no frame", remedy)
    elif State.VISIBLE not in track.states:
        remedy = "Track it again, or remove it from the sample"
        found.problem(place, field, f"instance {id!r} is visible in no frame", remedy)
    elif first is not State.VISIBLE:
        found.note(
            place,
            f"{field}.states[0]",
            f"instance {id!r} is {first.value} in the first frame",
            "SPA has no query for it, and the first-frame id map leaves it out",
        )


def _leftovers(path: Path, scan: Scan, found: Findings) -> None:
    """Files that no sample claims, and what interrupted writers left."""
    videos = {path / line.draft.file_name for line in scan.lines}
    tracks = {track_path(path, line.draft.id) for line in scan.lines}
    for folder, claimed, what in (("videos", videos, "video"), ("tracks", tracks, "track file")):
        for file in sorted((path / folder).rglob("*")):
            if file.is_file() and file not in claimed and not _temporary(path, file):
                problem = f"no sample uses this {what}"
                found.note(file, None, problem, "Remove it, or add its line")
    for file in sorted(path.rglob(f"{TEMPORARY}*")):
        if not _temporary(path, file.parent):  # a folder once, not each file in it
            remedy = "Remove it unless a run is at work"
            found.note(file, None, "a temporary file that an interrupted run left", remedy)
    if (path / JOURNAL).is_file():
        problem = "the journal of a writer that is at work or was interrupted"
        remedy = "Let the command that writes this data set finish"
        found.note(path / JOURNAL, None, problem, remedy)


def _temporary(path: Path, file: Path) -> bool:
    """Whether a part of the path below the data set is a temporary name."""
    return any(part.startswith(TEMPORARY) for part in file.relative_to(path).parts)
