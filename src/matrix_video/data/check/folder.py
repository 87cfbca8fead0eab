"""One data set after the other, then all of them against each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matrix_video.data.check.across import Checked, compare
from matrix_video.data.check.lines import Line, read_lines
from matrix_video.data.check.report import Findings, Report
from matrix_video.data.metadata import FILE_NAME, JOURNAL
from matrix_video.data.trackfile import TrackFile, scan_tracks, track_path
from matrix_video.data.tracks import MaskTrack, State
from matrix_video.data.video import check_video
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import TEMPORARY
from matrix_video.services.progress import progress


def check_datasets(paths: Sequence[Path]) -> Report:
    """Every problem of every data set; with several, also what they share (our choice of rules).

    Nothing is raised for what is found, however broken. Videos are decoded whole, frame by frame.
    With several data sets, a scene key or the bytes of a video that stand in two of them are a
    problem; how their (verb, subject, object) triples overlap stands in the summary.
    """
    found = Findings()
    names = _names(paths)
    checked = [_check(path, name, found) for path, name in zip(paths, names, strict=True)]
    summary = [
        f"{one.name}: {len(one.lines)} samples, "
        f"{sum(len(line.interactions) for line in one.lines)} interactions, "
        f"{sum(len(line.instances) for line in one.lines)} instances"
        for one in checked
    ]
    summary += compare(checked, found)
    return Report(tuple(found.problems), tuple(found.notes), tuple(summary))


def _names(paths: Sequence[Path]) -> list[str]:
    """Folder names where they tell the data sets apart, else the paths as given."""
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def _check(path: Path, name: str, found: Findings) -> Checked:
    file = path / FILE_NAME
    if not file.is_file():
        if not path.is_dir():
            problem, remedy = "there is no such folder", "Give the folder of a data set"
        elif (path / JOURNAL).is_file():
            problem = f"the data set is unfinished: it has {JOURNAL} but no {FILE_NAME}"
            remedy = "Run the command that writes it again; it goes on where it stopped"
        else:
            problem = f"the folder has no {FILE_NAME}"
            remedy = (
                "Give the folder of a data set, or make one with 'matrix world' or 'matrix convert'"
            )
        found.problem(path, None, problem, remedy)
        return Checked(name, path, ())
    try:
        raw = file.read_bytes()
    except OSError as error:
        found.problem(file, None, f"cannot be read ({error.strerror})", "Make it readable")
        return Checked(name, path, ())
    lines = read_lines(file, raw, found)
    if not raw.strip():
        found.problem(
            file, None, "the data set has 0 samples", "Give a data set with at least one clip"
        )
    with progress(f"check {name}", len(lines)) as advance:
        for line in lines:
            _check_clip(path, line, found)
            advance(1)
    _leftovers(path, lines, found)
    return Checked(name, path, tuple(lines))


def _check_clip(path: Path, line: Line, found: Findings) -> None:
    video: tuple[tuple[int, int], int] | None = None
    if line.file_name is not None:
        try:
            info = check_video(path / line.file_name)
            video = info.size, len(info.times)
            for text in info.notes:
                found.note(
                    path / line.file_name, None, text, "Its frames are taken as they are stored"
                )
        except MatrixError as error:
            found.error(error, path / line.file_name)
    if not line.interactions:
        found.note(
            path / FILE_NAME,
            line.at("interactions"),
            f"sample {line.id!r} has no interaction",
            "matrix analyze refuses it, matrix train uses it for the model's own loss alone",
        )
    if line.id is not None:
        _check_tracks(line, track_path(path, line.id), video, found)


def _check_tracks(
    line: Line,
    place: Path,
    video: tuple[tuple[int, int], int] | None,
    found: Findings,
) -> None:
    if not place.is_file() and not line.instances:
        return
    file, problems = scan_tracks(place)
    for error in problems:
        found.error(error, place)
    if file is None:
        return
    if video is not None:
        _check_fit(place, line, file, video, found)
    broken = {error.field for error in problems}
    for instance in line.instances:
        field = f"instances.{instance.id}"
        if instance.id in file.tracks:
            _check_states(place, instance.id, file.tracks[instance.id], found)
        elif field not in broken:
            _no_track(place, line, instance.id, found)
    known = {instance.id for instance in line.instances}
    for name in sorted(file.tracks.keys() - known):
        found.problem(
            place,
            f"instances.{name}",
            f"sample {line.id!r} has no instance {name!r}; it has {sorted(known)}",
            "Remove the track, or add the instance to the sample",
        )


def _check_fit(
    place: Path, line: Line, file: TrackFile, video: tuple[tuple[int, int], int], found: Findings
) -> None:
    (height, width), num_frames = video
    if file.size != (height, width):
        found.problem(
            place,
            "size",
            f"the masks are {file.size[0]}x{file.size[1]}, but the video {line.file_name} is "
            f"{height}x{width} (height x width)",
            "Make the masks from this very video",
        )
    if file.num_frames != num_frames:
        found.problem(
            place,
            "num_frames",
            f"the masks have {file.num_frames} frames, but the video {line.file_name} has "
            f"{num_frames}",
            "Make the masks from this very video",
        )


def _no_track(place: Path, line: Line, id: str, found: Findings) -> None:
    instance = line.instance(id)
    acting = any(id in (i.subject, i.object) for i in line.interactions)
    if instance is not None and (instance.mentions or instance.noun_spans):
        why = "the caption mentions it"
    elif acting:
        why = "an interaction names it"
    else:
        found.note(
            place,
            f"instances.{id}",
            f"instance {id!r} of sample {line.id!r} has no track",
            "It is neither mentioned nor acting, so only its mask is missed",
        )
        return
    found.problem(
        place,
        f"instances.{id}",
        f"instance {id!r} of sample {line.id!r} has no track, but {why}",
        "Track this instance, or remove it from the sample",
    )


def _check_states(place: Path, id: str, track: MaskTrack, found: Findings) -> None:
    field = f"instances.{id}"
    if State.VISIBLE not in track.states:
        if State.ABSENT not in track.states:
            found.note(
                place,
                field,
                f"instance {id!r} is annotated in no frame",
                "It is never supervised and never scored; track it to change that",
            )
            return
        found.problem(
            place,
            field,
            f"instance {id!r} is visible in no frame",
            "Track it again, or remove it from the sample",
        )
    elif track.states[0] is not State.VISIBLE:
        found.note(
            place,
            f"{field}.states[0]",
            f"instance {id!r} is {track.states[0].value} in the first frame",
            "SPA has no query for it, and the first-frame id map leaves it out",
        )


def _leftovers(path: Path, lines: Sequence[Line], found: Findings) -> None:
    """Files that no sample claims, and what interrupted writers left."""
    videos = {path / line.file_name for line in lines if line.file_name is not None}
    tracks = {track_path(path, line.id) for line in lines if line.id is not None}
    for folder, claimed, what in (("videos", videos, "video"), ("tracks", tracks, "track file")):
        for file in sorted((path / folder).rglob("*")):
            if file.is_file() and file not in claimed and not _temporary(path, file):
                found.note(file, None, f"no sample uses this {what}", "Remove it, or add its line")
    for file in sorted(path.rglob(f"{TEMPORARY}*")):
        if not _temporary(path, file.parent):  # a folder once, not each file in it
            found.note(
                file,
                None,
                "a temporary file that an interrupted run left",
                "Remove it unless a run is at work",
            )
    if (path / JOURNAL).is_file():
        found.note(
            path / JOURNAL,
            None,
            "the journal of a writer that is at work or was interrupted",
            "Let the command that writes this data set finish",
        )


def _temporary(path: Path, file: Path) -> bool:
    """Whether a part of the path below the data set is a temporary name."""
    return any(part.startswith(TEMPORARY) for part in file.relative_to(path).parts)
