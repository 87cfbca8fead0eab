"""``tracks/<id>.json``: the mask tracks of one clip.

``{"size": [H, W], "num_frames": T, "instances": {"id1": {"states": [...], "rles": [...]}}}``:
states are "visible", "absent" or "unknown", one a frame; rles are COCO counts strings, null where
the state is not visible. Run lengths of others are read as well: dicts with size and counts, and
uncompressed lists.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from matrix_video.data.sample import Draft, Instance
from matrix_video.data.tracks import MaskTrack, State, rle_counts
from matrix_video.data.validate import place
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import read_json, write_atomic


def track_path(dataset: Path, id: str) -> Path:
    """Where the tracks of a clip lie in a data set."""
    return dataset / "tracks" / f"{id}.json"


_REMEDY = "Correct the entry, or track the clip again"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    states: tuple[Literal["visible", "absent", "unknown"], ...]
    rles: tuple[str | dict[str, Any] | list[int] | None, ...]


_Length = Annotated[int, Field(gt=0, le=1 << 20)]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    size: tuple[_Length, _Length]
    num_frames: _Length
    instances: dict[str, _Entry]


@dataclass(frozen=True)
class TrackFile:
    """Contents of one file. ``size`` is (height, width); every track has it and this length."""

    size: tuple[int, int]
    num_frames: int
    tracks: dict[str, MaskTrack]

    def __post_init__(self) -> None:
        for name, track in self.tracks.items():
            if track.size != self.size or len(track) != self.num_frames:
                raise ValueError(
                    f"{name}: masks are {len(track)} frames of {_by(track.size)}, not "
                    f"{self.num_frames} of {_by(self.size)}"
                )


def write_tracks(
    path: Path, tracks: Mapping[str, MaskTrack], size: tuple[int, int], num_frames: int
) -> None:
    """Write atomically; ``ValueError`` where a track has another size or length."""
    write_atomic(path, render_tracks(tracks, size, num_frames))


def render_tracks(tracks: Mapping[str, MaskTrack], size: tuple[int, int], num_frames: int) -> str:
    """The file's text; errors as ``write_tracks``."""
    file = TrackFile(size, num_frames, dict(tracks))
    value = {
        "size": list(size),
        "num_frames": num_frames,
        "instances": {name: track.to_json() for name, track in file.tracks.items()},
    }
    return json.dumps(value, separators=(",", ":")) + "\n"


def read_tracks(path: Path) -> TrackFile:
    """Read and validate. ``MatrixError`` names the file and the first field that is wrong."""
    file, problems = scan_tracks(path)
    if file is None or problems:
        raise problems[0]
    return file


def scan_tracks(path: Path) -> tuple[TrackFile | None, list[MatrixError]]:
    """The good tracks and every problem; no file at all where its outer shape is wrong."""
    if not path.is_file():
        remedy = "Track the clip, or restore the file"
        return None, [MatrixError("there is no such track file", remedy=remedy, file=path)]
    try:
        stored = _File.model_validate(read_json(path, strict=True))
    except MatrixError as error:
        return None, [MatrixError(error.problem, remedy=_REMEDY, file=path)]
    except ValidationError as error:
        return None, _once(path, error)
    tracks: dict[str, MaskTrack] = {}
    problems: list[MatrixError] = []
    for name, entry in stored.instances.items():
        try:
            rles = tuple(_counts(rle, t, stored.size) for t, rle in enumerate(entry.rles))
            track = MaskTrack(*stored.size, tuple(map(State, entry.states)), rles)
            if len(track) != stored.num_frames:
                raise ValueError(f"{len(track)} frames, not {stored.num_frames}")
        except ValueError as error:
            problems.append(
                MatrixError(str(error), remedy=_REMEDY, file=path, field=place(("instances", name)))
            )
        else:
            tracks[name] = track
    return TrackFile(stored.size, stored.num_frames, tracks), problems


def _counts(
    rle: str | dict[str, Any] | list[int] | None, t: int, size: tuple[int, int]
) -> str | None:
    if rle is None or isinstance(rle, str):
        return rle
    try:
        return rle_counts(rle, size)[1]
    except ValueError as error:
        raise ValueError(f"frame {t}: {error}") from error


def _once(path: Path, error: ValidationError) -> list[MatrixError]:
    """One problem for each mistake of each instance, with its first place and its number."""
    places: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for item in error.errors(include_url=False, include_input=False):
        loc = tuple(map(str, item["loc"]))
        field = place(item["loc"][:4])  # below, pydantic names the forms an entry might have had
        known = places[(*loc[:3], item["msg"]) if len(loc) > 3 else (*loc, item["msg"])]
        if field not in known:
            known.append(field)
    return [
        MatrixError(
            kind[-1] + (f" ({len(fields)} entries like this)" if len(fields) > 1 else ""),
            remedy=_REMEDY,
            file=path,
            field=fields[0] or None,
        )
        for kind, fields in places.items()
    ]


def misfits(
    path: Path, file: TrackFile, video: Path, size: tuple[int, int], num_frames: int
) -> list[MatrixError]:
    """Where the masks at ``path`` are not of this video."""
    return [
        MatrixError(
            f"the masks have {found}, but the video {video} has {right} {unit}",
            remedy="Make the masks from this very video",
            file=path,
            field=field,
        )
        for field, found, right, unit in (
            ("size", _by(file.size), _by(size), "(height x width)"),
            ("num_frames", str(file.num_frames), str(num_frames), "frames"),
        )
        if found != right
    ]


def needs_track(draft: Draft, instance: Instance) -> str | None:
    """Why the instance must have a track; None where its mask is missed by nobody."""
    if instance.mentions or instance.noun_spans:
        return "the caption mentions it"
    acting = any(instance.id in (act.subject, act.object) for act in draft.interactions)
    return "an interaction names it" if acting else None


def no_track(path: Path, draft: Draft, id: str, why: str) -> MatrixError:
    return MatrixError(
        f"instance {id!r} of sample {draft.id!r} has no track, but {why}",
        remedy="Track this instance, or remove it from the sample",
        file=path,
        field=f"instances.{id}",
    )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
