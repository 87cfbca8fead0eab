"""``tracks/<id>.json``: the mask tracks of one clip.

``{"format": 2, "size": [H, W], "num_frames": T, "instances": {"id1": {"states": [...], "rles":
[...]}}}``: states are "visible", "absent" or "unknown", one a frame; rles are COCO counts strings,
null where the state is not visible. Run lengths of others are read as well: dicts with size and
counts, and uncompressed lists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from matrix_video.data.metadata import place, wrong_format
from matrix_video.data.sample import Draft, Instance
from matrix_video.data.tracks import MaskTrack, State, rle_counts
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import read_json, write_atomic

FORMAT: Final = 2
"""Of the files that we write; those of format 1 have the same fields and no number."""
_REMEDY: Final = "Correct the entry, or track the clip again"
_Length = Annotated[int, Field(gt=0, le=1 << 20)]


def track_path(dataset: Path, id: str) -> Path:
    """Where the tracks of a clip lie in a data set."""
    return dataset / "tracks" / f"{id}.json"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    states: tuple[State, ...]
    rles: tuple[Any, ...]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    size: tuple[_Length, _Length]
    num_frames: _Length
    instances: dict[str, _Entry]


@dataclass(frozen=True)
class TrackFile:
    """Contents of one file. ``size`` is (height, width).

    Raises ``ValueError`` where a track has another size or length.
    """

    size: tuple[int, int]
    num_frames: int
    tracks: Mapping[str, MaskTrack]

    def __post_init__(self) -> None:
        for name, track in self.tracks.items():
            if (track.size, len(track)) != (self.size, self.num_frames):
                raise ValueError(
                    f"the masks of {name} are {len(track)} frames of {_by(track.size)}, but the "
                    f"video has {self.num_frames} of {_by(self.size)} (height x width)"
                )

    def text(self) -> str:
        """What stands in the file."""
        value = {
            "format": FORMAT,
            "size": list(self.size),
            "num_frames": self.num_frames,
            "instances": {
                name: {"states": track.states, "rles": track.rles}
                for name, track in self.tracks.items()
            },
        }
        return json.dumps(value, separators=(",", ":")) + "\n"


def write_tracks(path: Path, file: TrackFile) -> None:
    """Write atomically."""
    write_atomic(path, file.text())


def read_tracks(path: Path) -> TrackFile:
    """Read and validate. ``MatrixError`` names the file and the first field that is wrong."""
    file, problems = scan_tracks(path)
    if file is None or problems:
        raise problems[0]
    return file


def scan_tracks(path: Path) -> tuple[TrackFile | None, list[MatrixError]]:
    """The good tracks and every problem; no file at all where its outer shape is wrong."""

    def problem(text: str, field: str | None = None, remedy: str = _REMEDY) -> MatrixError:
        return MatrixError(text, remedy=remedy, file=path, field=field)

    if not path.is_file():
        return None, [
            problem("there is no such track file", remedy="Track the clip, or restore the file")
        ]
    try:
        value = read_json(path, strict=True)
        if isinstance(value, dict) and (wrong := wrong_format(value, FORMAT)):
            remedy = "Install a newer matrix-video, or correct it"
            return None, [problem(f"the file is {wrong}", "format", remedy)]
        stored = _File.model_validate(value)
    except MatrixError as error:
        return None, [problem(error.problem)]
    except ValidationError as error:
        return None, [problem(e["msg"], place(e["loc"]) or None) for e in error.errors()]
    tracks: dict[str, MaskTrack] = {}
    problems: list[MatrixError] = []
    for name, entry in stored.instances.items():
        try:
            rles = tuple(_counts(rle, t, stored.size) for t, rle in enumerate(entry.rles))
            track = MaskTrack(*stored.size, entry.states, rles)
            if len(track) != stored.num_frames:
                raise ValueError(f"{len(track)} frames, not {stored.num_frames}")
        except ValueError as error:
            problems.append(problem(str(error), place(("instances", name))))
        else:
            tracks[name] = track
    return TrackFile(stored.size, stored.num_frames, tracks), problems


def _counts(rle: object, t: int, size: tuple[int, int]) -> str | None:
    if rle is None or isinstance(rle, str):
        return rle  # `MaskTrack` looks into it
    try:
        return rle_counts(rle, size)[1]
    except ValueError as error:
        raise ValueError(f"frame {t}: {error}") from error


def check_fits(
    file: TrackFile, path: Path, video: Path, size: tuple[int, int], num_frames: int
) -> None:
    """``MatrixError`` where the masks at ``path`` are not of this video."""
    if (file.size, file.num_frames) != (size, num_frames):
        raise MatrixError(
            f"the masks are {file.num_frames} frames of {_by(file.size)}, but the video {video} "
            f"has {num_frames} of {_by(size)} (height x width)",
            remedy="Make the masks from this very video",
            file=path,
        )


def no_track(path: Path, draft: Draft, instance: Instance) -> tuple[MatrixError, bool]:
    """The error for an instance without a track, and whether anybody misses it."""
    acting = any(instance.id in (act.subject, act.object) for act in draft.interactions)
    mentioned = bool(instance.mentions or instance.noun_spans)
    why = "an interaction names it" if acting else "only its mask is missed"
    error = MatrixError(
        f"instance {instance.id!r} of sample {draft.id!r} has no track, but "
        + ("the caption mentions it" if mentioned else why),
        remedy="Track this instance, or remove it from the sample",
        file=path,
        field=f"instances.{instance.id}",
    )
    return error, mentioned or acting


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
