"""The authors' layout → ours."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from matrix_video.data.convert.clips import (
    ClipNames,
    adopt,
    copy,
    copy_others,
    stem,
    video_field,
    write_ours,
)
from matrix_video.data.convert.kept import (
    Facts,
    Files,
    MatrixLine,
    digest,
    facts_paths,
    read_lines,
    walk,
    write_facts,
)
from matrix_video.data.convert.png import check_picture, read_mask
from matrix_video.data.convert.prompts import (
    derive_instances,
    id_number,
    read_prompt,
    write_prompt,
)
from matrix_video.data.convert.recognise import (
    AUTHORS,
    MASKS,
    MATRIX,
    MATRIX_LINES,
    MERGED,
    VIDEOS,
)
from matrix_video.data.convert.run import OWN, Made
from matrix_video.data.convert.table import COLUMNS, Table, find_table, read_table, render_table
from matrix_video.data.metadata import FILE_NAME, JOURNAL, dump_line
from matrix_video.data.paths import VideoPath, inside
from matrix_video.data.probe import VideoInfo, probe_video
from matrix_video.data.sample import Sample
from matrix_video.data.tracks import MaskTrack, State, encode_rle
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_file, sha256_text, write_atomic

_FOLDER = re.compile(r"<(id[1-9][0-9]{0,8})>|(id[1-9][0-9]{0,8})")
_FRAME = re.compile(r"([0-9]{1,9})\.png")
_PATH: TypeAdapter[str] = TypeAdapter(VideoPath)


@dataclass(frozen=True)
class _Clip:
    """A row, the names that its clip gets, and what ``matrix.jsonl`` says of it."""

    path: str | None
    id: str
    file_name: str
    line: MatrixLine | None


class FromAuthors:
    """A ``Direction``; ``MatrixError`` where the metadata cannot be read."""

    def __init__(self, source: Path, target: Path) -> None:
        self.source, self.target = source, target
        self.table_path = find_table(source)
        self.table = read_table(inside(source, self.table_path.name))
        lines = read_lines(source)
        self.contents = sha256_text(
            sha256_file(self.table_path),
            *(line.model_dump_json() for line in lines),
            str(source.resolve()),
        )
        self.names = [row["video"] for row in self.table.rows]
        self.notes: list[str] = []
        paths = [self._find(value) for value in self.names]
        known = self._match(lines)
        given = ClipNames()
        self.clips: list[_Clip] = []
        for index, path in enumerate(paths):
            line = known.get(index)
            names = given.derive(path or f"{VIDEOS}/row-{index}.mp4")
            if line is not None and given.fit(line.sample.id, line.sample.file_name):
                names = line.sample.id, line.sample.file_name
            given.take(*names)
            self.clips.append(_Clip(path, *names, line))
        self.stems = {stem(path) for path in paths if path is not None}

    def _find(self, value: str) -> str | None:
        """The video's path below the root; None where ``make`` is to say why there is none."""
        for path in (f"{VIDEOS}/{value}", value):
            try:
                if (self.source / _PATH.validate_python(path)).is_file():
                    return path
            except (ValidationError, OSError):
                continue
        return None

    def _match(self, lines: list[MatrixLine]) -> dict[int, MatrixLine]:
        left: dict[str, list[MatrixLine]] = defaultdict(list)
        for line in lines:
            left[line.video].append(line)
        known: dict[int, MatrixLine] = {}
        for exact in (True, False):  # rows whose prompt was edited take what the others leave
            for index, row in enumerate(self.table.rows):
                same = [x for x in left[row["video"]] if x.prompt == row["prompt"] or not exact]
                if index not in known and same:
                    known[index] = same[0]
                    left[row["video"]].remove(same[0])
        self.notes += [
            f"{line.video}: {line.sample.id!r} has no row any more"
            for rest in left.values()
            for line in rest
        ]
        return known

    def inputs(self, index: int) -> Iterable[Path]:
        path = self.clips[index].path
        if path is None:
            return
        yield self.source / path
        try:
            yield from (self.source / name for name in self._walk(path))
        except MatrixError:
            return  # told when the clip is made

    def _walk(self, path: str) -> Iterator[str]:
        """The files of the video's own mask folder; those of other videos may lie below it."""
        folder = f"{MASKS}/{stem(path)}"
        if not (self.source / folder).is_dir():
            return iter(())
        inside(self.source, folder)
        return walk(self.source, folder, lambda name: name[len(MASKS) + 1 :] in self.stems)

    def make(self, index: int) -> Made:
        clip, row = self.clips[index], self.table.rows[index]
        if clip.path is None:
            raise self._no_video(index)
        video = inside(self.source, clip.path)
        info = probe_video(video)
        folder = f"{MASKS}/{stem(clip.path)}"
        files: Files = {
            name[len(folder) + 1 :]: b""
            if name.endswith("/")
            else (self.source / name).read_bytes()
            for name in self._walk(clip.path)
        }
        tracks, masks = _read_masks(files, self.source / folder, info)
        notes: list[str] = []
        line = clip.line
        if line is None:
            tagged = read_prompt(row["prompt"])
            sample = Sample(
                id=clip.id,
                file_name=clip.file_name,
                caption=tagged.caption,
                instances=derive_instances(tagged, tracks),
            )
        else:
            edited = line.prompt != row["prompt"]
            sample = adopt(line.sample, edited, row["prompt"], tracks)
            sample = sample.model_copy(update={"id": clip.id, "file_name": clip.file_name})
            if edited:
                notes.append(
                    "the prompt was edited, so its mentions were read anew and its verbs have no "
                    "spans"
                )
        notes += [
            f"the prompt names {one.id}, which has no masks"
            for one in sample.instances
            if one.mentions and one.id not in tracks
        ]
        notes += [
            f"the noun of {one.id} is a guess: {one.noun!r} in {one.phrase!r}"
            for one in sample.instances
            if one.doubtful
        ]
        text = write_ours(self.target, sample, video, info, tracks)
        plain = (
            line is not None
            and line.masks == digest(files)
            and row == {"video": video_field(sample), "prompt": _prompt(sample)}
        )
        if plain:
            for file in facts_paths(self.target, sample.id):
                file.unlink(missing_ok=True)
        else:
            facts = Facts(
                row=index,
                video=row["video"],
                path=clip.path,
                file_name=sample.file_name,
                tracks=hashlib.sha256(text.encode()).hexdigest(),
            )
            write_facts(self.target, sample.id, facts, files)
        return Made(text=dump_line(sample), masks=masks, notes=tuple(notes), plain=plain)

    def _no_video(self, index: int) -> MatrixError:
        value = self.names[index]
        try:
            _PATH.validate_python(f"{VIDEOS}/{value}")
            problem = f"there is no video {value!r}: looked for {VIDEOS}/{value} and {value}"
            remedy = "Restore the video, or remove the row"
        except ValidationError as error:
            problem = error.errors()[0]["msg"].removeprefix("Value error, ")
            remedy = "Name a video of this data set, such as '000001.mp4'"
        return MatrixError(
            problem, remedy=remedy, file=self.table_path, field=f"row {index}: video"
        )

    def finish(self, made: Iterator[tuple[int, Made]]) -> tuple[list[str], list[str]]:
        lines: list[str] = []
        plain = True
        for _, one in made:
            lines.append(one.text)
            plain &= one.plain
        usual = Table("csv", COLUMNS, self.table.rows)
        table = self.table_path.name
        if (
            not plain
            or table != "metadata.csv"
            or self.table_path.read_bytes() != render_table(usual)
        ):
            copy(self.table_path, self.target, f"{AUTHORS}/{table}")
        claimed = {table, MATRIX_LINES, *OWN, *(f"{MASKS}/{name}" for name in self.stems)}
        claimed |= {clip.path for clip in self.clips if clip.path is not None}
        ours = {FILE_NAME, JOURNAL, f"{AUTHORS}/clips", *(clip.file_name for clip in self.clips)}
        ours |= {f"tracks/{clip.id}.json" for clip in self.clips}
        extra, notes = copy_others(
            self.source, self.target, claimed, ours, MATRIX, f"{AUTHORS}/extra"
        )
        write_atomic(self.target / FILE_NAME, "".join(lines))
        return extra, self.notes + notes


def _prompt(sample: Sample) -> str:
    return write_prompt(sample.caption, sample.instances)


def _read_masks(
    files: Mapping[str, bytes], folder: Path, info: VideoInfo
) -> tuple[dict[str, MaskTrack], int]:
    """Tracks by id in the order of ids, and how many pictures there are."""
    size, num_frames = (info.height, info.width), len(info.times)
    masks = 0
    tracks: dict[str, MaskTrack] = {}
    folders = id_folders(files, folder)
    for one in sorted(folders, key=id_number):
        frames = frames_in(files, folders[one], folder, num_frames)
        states, rles = [State.UNKNOWN] * num_frames, list[str | None]([None]) * num_frames
        for t, name in frames.items():
            mask_HW = read_mask(files[name], size, folder / name)
            states[t] = State.VISIBLE if mask_HW.any() else State.ABSENT
            rles[t] = encode_rle(mask_HW) if states[t] is State.VISIBLE else None
        tracks[one] = MaskTrack(*size, tuple(states), tuple(rles))
        masks += len(frames)
    merged = frames_in(files, MERGED, folder, num_frames)
    for name in merged.values():
        check_picture(files[name], size, folder / name)
    return tracks, masks + len(merged)


def id_folders(files: Mapping[str, bytes], folder: Path) -> dict[str, str]:
    """The folder of each id, ``<id1>`` or ``id1``; ``MatrixError`` where one has both."""
    found: dict[str, str] = {}
    for name in sorted({name.partition("/")[0] for name in files if "/" in name}):
        match = _FOLDER.fullmatch(name)
        if match is not None:
            one = match.group(1) or match.group(2)
            if one in found:
                raise MatrixError(
                    f"{one} has two mask folders, {found[one]!r} and {name!r}",
                    remedy="Keep one of them",
                    file=folder,
                )
            found[one] = name
    return found


def frames_in(
    files: Mapping[str, bytes], below: str, folder: Path, num_frames: int
) -> dict[int, str]:
    """The pictures of a folder by frame."""
    found: dict[int, str] = {}
    for name in sorted(files):
        match = _FRAME.fullmatch(name[len(below) + 1 :]) if name.startswith(f"{below}/") else None
        if match is None:
            continue
        t = int(match.group(1))
        if t >= num_frames:
            raise MatrixError(
                f"there is a mask for frame {t}, but the video has {num_frames} frames "
                f"(0 to {num_frames - 1})",
                remedy="Make the masks from this very video, numbered from 0",
                file=folder / name,
            )
        if t in found:
            raise MatrixError(
                f"frame {t} has two masks, {found[t]!r} and {name!r}",
                remedy="Name all frames of an id alike, such as 000.png, 001.png",
                file=folder,
            )
        found[t] = name
    return found
