"""The authors' layout → ours."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from matrix_video.data.convert.files import Names, copy, copy_others, tracks_of, walk, write_ours
from matrix_video.data.convert.kept import (
    Facts,
    MatrixLine,
    digest,
    facts_paths,
    read_lines,
    write_facts,
)
from matrix_video.data.convert.layout import (
    AUTHORS,
    MASKS,
    MATRIX,
    MATRIX_LINES,
    TABLES,
    VIDEOS,
    Files,
    find_table,
    mask_name,
    pictures,
    video_field,
)
from matrix_video.data.convert.png import check_picture, read_mask
from matrix_video.data.convert.prompts import derive_instances, read_prompt, write_prompt
from matrix_video.data.convert.run import OWN, Direction, Made
from matrix_video.data.convert.table import COLUMNS, Table, read_table, render_table
from matrix_video.data.metadata import FILE_NAME, JOURNAL, dump_line
from matrix_video.data.paths import VideoPath, inside
from matrix_video.data.probe import VideoInfo, probe_video
from matrix_video.data.sample import Sample
from matrix_video.data.tracks import MaskTrack, State, encode_rle
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_file, sha256_text, write_atomic

_PATH: TypeAdapter[str] = TypeAdapter(VideoPath)


@dataclass(frozen=True)
class _Clip:
    """A row's video, or why it has none, the names that its clip gets, and what ``matrix.jsonl``
    says of it."""

    path: str | MatrixError
    id: str
    file_name: str
    line: MatrixLine | None


class FromAuthors(Direction):
    """``MatrixError`` where the metadata cannot be read."""

    def __init__(self, source: Path, target: Path) -> None:
        self.source, self.target = source, target
        table = find_table(source)
        if table is None:
            raise MatrixError(
                f"the folder has no metadata: looked for {', '.join(TABLES)}",
                remedy="Add one with the columns 'video' and 'prompt'",
                file=source,
            )
        self.table_path = inside(source, table)
        self.table = read_table(self.table_path)
        lines = read_lines(source)
        self.contents = sha256_text(
            sha256_file(self.table_path),
            *(line.model_dump_json() for line in lines),
            str(source.resolve()),
        )
        self.names = [row["video"] for row in self.table.rows]
        self.notes: list[str] = []
        known = self._match(lines)
        given = Names()
        self.clips: list[_Clip] = []
        for index in range(len(self.names)):
            path = self._find(index)
            derived = path if isinstance(path, str) else f"{VIDEOS}/row-{index}.mp4"
            names = given.derive(derived)
            line = known.get(index)
            if line is not None:
                before = line.sample.id, line.sample.file_name
                names = before if given.fit(tracks_of(before[0]), before[1]) else names
            given.take(tracks_of(names[0]), names[1])
            self.clips.append(_Clip(path, *names, line))
        self.paths = [clip.path for clip in self.clips if isinstance(clip.path, str)]
        self.folders = {f"{MASKS}/{mask_name(path)}" for path in self.paths}

    def _find(self, index: int) -> str | MatrixError:
        """The path below the root of a row's video; the error is raised when the clip is made."""
        value = self.names[index]
        problems: list[str] = []
        for path in (f"{VIDEOS}/{value}", value):
            try:
                if (self.source / _PATH.validate_python(path)).is_file():
                    return path
            except ValidationError as error:
                problems.append(error.errors()[0]["msg"].removeprefix("Value error, "))
            except OSError:
                continue
        problem = f"there is no video {value!r}: looked for {VIDEOS}/{value} and {value}"
        remedy = "Restore the video, or remove the row"
        if len(problems) == 2:
            problem, remedy = problems[0], "Name a video of this data set, such as '000001.mp4'"
        return MatrixError(
            problem, remedy=remedy, file=self.table_path, field=f"row {index}: video"
        )

    def _match(self, lines: list[MatrixLine]) -> dict[int, MatrixLine]:
        """What was written for each row."""
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
        if isinstance(path, str):
            yield self.source / path
            yield from (self.source / name for name in self._walk(path))

    def _walk(self, path: str) -> Iterator[str]:
        """The files of the video's own mask folder; those of other videos may lie below it."""
        folder = f"{MASKS}/{mask_name(path)}"
        if (self.source / folder).is_dir():
            inside(self.source, folder)
            yield from walk(self.source, folder, self.folders.__contains__)

    def make(self, index: int) -> Made:
        clip, row = self.clips[index], self.table.rows[index]
        if isinstance(clip.path, MatrixError):
            raise clip.path
        video = inside(self.source, clip.path)
        info = probe_video(video)
        folder = f"{MASKS}/{mask_name(clip.path)}"
        files = {
            name[len(folder) + 1 :]: b""
            if name.endswith("/")
            else (self.source / name).read_bytes()
            for name in self._walk(clip.path)
        }
        tracks, masks = _read_masks(files, self.source / folder, info)
        sample, notes = _sample(clip, row["prompt"], tracks)
        text = write_ours(self.target, sample, video, info, tracks)
        usual = {
            "video": video_field(sample),
            "prompt": write_prompt(sample.caption, sample.instances),
        }
        plain = clip.line is not None and clip.line.masks == digest(files) and row == usual
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
        return Made(text=dump_line(sample), masks=masks, notes=notes, plain=plain)

    def finish(self, made: list[tuple[int, Made]]) -> tuple[list[str], list[str]]:
        clips = [one for _, one in made]
        table = self.table_path.name
        usual = render_table(Table("csv", COLUMNS, self.table.rows))
        if (
            not all(one.plain for one in clips)
            or table != "metadata.csv"
            or self.table_path.read_bytes() != usual
        ):
            copy(self.table_path, self.target, f"{AUTHORS}/{table}")
        claimed = {table, MATRIX_LINES, *OWN, *self.folders, *self.paths}
        ours = {FILE_NAME, JOURNAL, f"{AUTHORS}/clips"}
        for clip in self.clips:
            ours |= {clip.file_name, tracks_of(clip.id)}
        extra, notes = copy_others(
            self.source, self.target, claimed, ours, MATRIX, f"{AUTHORS}/extra"
        )
        write_atomic(self.target / FILE_NAME, "".join(one.text for one in clips))
        return extra, self.notes + notes


def _sample(clip: _Clip, prompt: str, ids: Collection[str]) -> tuple[Sample, tuple[str, ...]]:
    """What the prompt says, or the sample that we had, with the ids that have new mask folders.

    Where the prompt of such a sample was edited, caption and mentions are read anew, and verbs lose
    their spans; classes, phrases and interactions stay.
    """
    tagged = read_prompt(prompt)
    derived = {one.id: one for one in derive_instances(tagged, ids)}
    notes: list[str] = []
    if clip.line is None:
        sample = Sample(
            id=clip.id,
            file_name=clip.file_name,
            caption=tagged.caption,
            instances=tuple(derived.values()),
        )
    else:
        edited = clip.line.prompt != prompt
        sample = clip.line.sample.model_copy(update={"id": clip.id, "file_name": clip.file_name})
        instances, interactions = sample.instances, sample.interactions
        had = {one.id for one in instances}
        if edited:
            notes.append(
                "the prompt was edited, so its mentions were read anew and its verbs have no spans"
            )
            read = {one.id: (one.mentions, one.noun_spans) for one in derived.values()}
            instances = tuple(
                one.model_copy(
                    update={"mentions": mentions, "noun_spans": nouns, "doubtful": False}
                )
                for one in instances
                for mentions, nouns in [read.get(one.id, ((), ()))]
            )
            interactions = tuple(a.model_copy(update={"verb_span": None}) for a in interactions)
        new = [one for one in derived.values() if one.id not in had and (edited or one.id in ids)]
        update = {
            "caption": tagged.caption if edited else sample.caption,
            "instances": (*instances, *new),
            "interactions": interactions,
        }
        sample = sample.model_copy(update=update)
    notes += [
        f"the prompt names {one.id}, which has no masks"
        for one in sample.instances
        if one.mentions and one.id not in ids
    ]
    notes += [
        f"the noun of {one.id} is a guess: {one.noun!r} in {one.phrase!r}"
        for one in sample.instances
        if one.doubtful
    ]
    return sample, tuple(notes)


def _read_masks(files: Files, folder: Path, info: VideoInfo) -> tuple[dict[str, MaskTrack], int]:
    """Tracks by id in the order of ids, and how many pictures there are."""
    num_frames = len(info.times)
    by_id, merged = pictures(files, folder, num_frames)
    tracks: dict[str, MaskTrack] = {}
    mask_HW = np.empty(info.size, dtype=bool)
    for name, one in by_id.items():
        states, rles = [State.UNKNOWN] * num_frames, list[str | None]([None]) * num_frames
        for t, file in one.frames.items():
            read_mask(files[file], info.size, folder / file, mask_HW)
            states[t] = State.VISIBLE if mask_HW.any() else State.ABSENT
            rles[t] = encode_rle(mask_HW) if states[t] is State.VISIBLE else None
        tracks[name] = MaskTrack(*info.size, tuple(states), tuple(rles))
    for file in merged.frames.values():
        check_picture(files[file], info.size, folder / file)
    return tracks, sum(len(one.frames) for one in (*by_id.values(), merged))
