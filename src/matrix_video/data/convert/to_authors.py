"""Our layout → the authors'."""

from __future__ import annotations

import colorsys
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.convert.clips import (
    ClipNames,
    Names,
    copy,
    copy_others,
    stem,
    video_field,
)
from matrix_video.data.convert.from_authors import frames_in, id_folders
from matrix_video.data.convert.kept import (
    Facts,
    Files,
    MatrixLine,
    digest,
    facts_paths,
    read_facts,
    read_files,
    walk,
)
from matrix_video.data.convert.png import colour_png, mask_png, read_mask
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
    TABLES,
    VIDEOS,
)
from matrix_video.data.convert.run import OWN, Made
from matrix_video.data.convert.table import COLUMNS, Table, read_table, render_table
from matrix_video.data.dataset import Dataset
from matrix_video.data.metadata import FILE_NAME
from matrix_video.data.paths import inside
from matrix_video.data.probe import probe_video
from matrix_video.data.sample import Sample
from matrix_video.data.trackfile import read_tracks
from matrix_video.data.tracks import MaskTrack, State
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_file, sha256_text, write_atomic

Tracks = Mapping[str, MaskTrack]
Colour = tuple[int, int, int]

_BOXES = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255))
"""Red, green, blue, yellow, magenta, cyan: the box colours of InterGenEval."""


class ToAuthors:
    """A ``Direction``; errors as ``Dataset`` raises them."""

    def __init__(self, source: Path, target: Path) -> None:
        self.source, self.target = source, target
        self.samples = Dataset(source).samples
        self.names = [sample.id for sample in self.samples]
        tables = [name for name in TABLES if (source / AUTHORS / name).is_file()]
        self.table_path = inside(source, f"{AUTHORS}/{tables[0]}") if tables else None
        self.before = None if self.table_path is None else read_table(self.table_path)
        self.notes: list[str] = []
        if (source / "authors.json").is_file():
            self.notes.append(
                "authors.json is of an earlier version: masks are drawn anew from the tracks"
            )
        facts = [self._facts(sample) for sample in self.samples]
        self.places = self._place(facts)
        self.folders = {f"{MASKS}/{stem(path)}" for _, path in self.places}
        table = "" if self.table_path is None else sha256_file(self.table_path)
        self.contents = sha256_text(
            sha256_file(source / FILE_NAME), table, str(source.resolve()), repr(self.places)
        )

    def _facts(self, sample: Sample) -> Facts | None:
        try:
            return read_facts(self.source, sample.id)
        except MatrixError:
            return None  # told when the clip is made

    def _place(self, facts: list[Facts | None]) -> list[tuple[str, str]]:
        """Of each clip what its row says and its video's path: where it came from, else by its
        name. Clips share a path only where the video is the same for both, and a mask folder only
        where the tracks are."""
        wanted: list[tuple[str, str]] = []
        for sample, known in zip(self.samples, facts, strict=True):
            usual = video_field(sample)
            place = usual, f"{VIDEOS}/{usual}"
            if known is not None and known.file_name == sample.file_name:
                below = PurePosixPath(known.path).parts[0].casefold()
                place = place if below in (MASKS, MATRIX) else (known.video, known.path)
            wanted.append(place)
        often = Counter(stem(path) for _, path in wanted)
        names, videos, masks = Names(), dict[str, str](), dict[str, str]()
        places: list[tuple[str, str]] = []
        for sample, first in zip(self.samples, wanted, strict=True):
            tail = PurePosixPath(first[1]).suffix
            numbered = (sample.id + (f"-{n}" if n > 1 else "") + tail for n in count(1))
            for value, path in chain((first,), ((name, f"{VIDEOS}/{name}") for name in numbered)):
                key = stem(path)
                video, tracks = self._contents(sample) if often[key] > 1 else (None, None)
                fits = names.fits(path) or (video is not None and videos.get(path) == video)
                if fits and (key not in masks or masks[key] == tracks):
                    names.take(path)
                    videos[path], masks[key] = video or "", tracks or ""
                    places.append((value, path))
                    break
        return places

    def _contents(self, sample: Sample) -> tuple[str, str] | tuple[None, None]:
        """Of video and tracks."""
        try:
            files = inside(self.source, sample.file_name), self._track_path(sample)
            return _sha256(files[0]), _sha256(files[1])
        except MatrixError:
            return None, None  # told when the clip is made

    def _track_path(self, sample: Sample) -> Path:
        return inside(self.source, f"tracks/{sample.id}.json")

    def inputs(self, index: int) -> Iterable[Path]:
        sample = self.samples[index]
        try:
            files = facts_paths(self.source, sample.id)
            return inside(self.source, sample.file_name), self._track_path(sample), *files
        except MatrixError:
            return ()  # told when the clip is made

    def make(self, index: int) -> Made:
        sample, (value, path) = self.samples[index], self.places[index]
        video = inside(self.source, sample.file_name)
        info = probe_video(video)
        facts = read_facts(self.source, sample.id)
        row = self._row(facts, sample)
        kept = {} if facts is None else read_files(self.source, sample.id)
        track_path = self._track_path(sample)
        notes: list[str] = []
        if facts is not None and _sha256(track_path) == facts.tracks:
            files = kept
            ids = set(id_folders(files, track_path))
        else:
            tracks = self._tracks(sample, (info.height, info.width), len(info.times))
            files, redrawn = draw(tracks, kept, facts is not None, track_path)
            ids = set(tracks)
            if facts is not None and redrawn:
                notes.append(f"{redrawn} of {len(files)} mask pictures were drawn anew")
        prompt = row.get("prompt")
        if prompt is None or read_prompt(prompt).caption != sample.caption:
            prompt = write_prompt(sample.caption, sample.instances)
        copy(video, self.target, path)
        self._write(stem(path), files)
        tagged = read_prompt(prompt)
        derived = Sample(
            id=sample.id,
            file_name=sample.file_name,
            caption=tagged.caption,
            instances=derive_instances(tagged, ids),
        )
        masks = digest(files) if facts is None else None
        line = MatrixLine(video=value, prompt=prompt, sample=sample, masks=masks)
        return Made(
            text=line.model_dump_json(),
            masks=sum(name.endswith(".png") for name in files),
            notes=tuple(notes),
            plain=derived == sample and masks is None,
        )

    def _row(self, facts: Facts | None, sample: Sample) -> dict[str, Any]:
        """The row of the authors that the clip came from."""
        if facts is None or self.before is None:
            return {}
        if facts.row >= len(self.before.rows):
            raise MatrixError(
                f"row {facts.row} is not among the {len(self.before.rows)} rows of "
                f"{self.table_path}",
                remedy="Restore both files, or remove this one",
                file=facts_paths(self.source, sample.id)[0],
                field="row",
            )
        return dict(self.before.rows[facts.row])

    def _tracks(self, sample: Sample, size: tuple[int, int], num_frames: int) -> Tracks:
        """In the order of ids; instances may lack one."""
        path = self._track_path(sample)
        if not path.is_file() and not sample.instances:
            return {}
        stored = read_tracks(path)
        if (stored.size, stored.num_frames) != (size, num_frames):
            raise MatrixError(
                f"the masks are {stored.num_frames} frames of {stored.size[0]}x{stored.size[1]}, "
                f"but the video has {num_frames} of {size[0]}x{size[1]} (height x width)",
                remedy="Make the masks from this very video",
                file=path,
            )
        known = [instance.id for instance in sample.instances]
        for name in stored.tracks:
            if name not in known:
                raise MatrixError(
                    f"the track names no instance; the clip has {known}",
                    remedy="Add the instance to the sample, or remove the track",
                    file=path,
                    field=f"instances.{name}",
                )
        return {name: stored.tracks[name] for name in sorted(stored.tracks, key=id_number)}

    def _write(self, name: str, files: Files) -> None:
        """The mask folder of a clip, without what an earlier try left in it."""
        folder = f"{MASKS}/{name}"
        root = inside(self.target, folder)
        if root.is_dir():
            for old in list(walk(self.target, folder, self.folders.__contains__)):
                place = self.target / old
                shutil.rmtree(place) if place.is_dir() else place.unlink()
        made: set[Path] = set()
        for below, raw in files.items():
            place = inside(root, below.removesuffix("/"))
            parent = place if below.endswith("/") else place.parent
            if parent not in made:
                parent.mkdir(parents=True, exist_ok=True)
                made.add(parent)
            if not below.endswith("/"):
                place.write_bytes(raw)

    def finish(self, made: Iterator[tuple[int, Made]]) -> tuple[list[str], list[str]]:
        rows: list[dict[str, Any]] = []
        lines: list[str] = []
        given = ClipNames()
        for index, one in made:
            sample, (value, path) = self.samples[index], self.places[index]
            line = MatrixLine.model_validate_json(one.text)
            row = self._row(self._facts(sample), sample)
            rows.append(row | {"video": value, "prompt": line.prompt})
            names = sample.id, sample.file_name
            if not one.plain or given.derive(path) != names:
                lines.append(one.text + "\n")
            given.take(*names)
        if lines:
            write_atomic(self.target / MATRIX_LINES, "".join(lines))
        claimed = {FILE_NAME, *OWN, f"{AUTHORS}/clips", *(f"{AUTHORS}/{name}" for name in TABLES)}
        for sample in self.samples:
            claimed |= {sample.file_name, f"tracks/{sample.id}.json"}
        places = {*TABLES, MATRIX_LINES, *(path for _, path in self.places), *self.folders}
        extra, notes = copy_others(
            self.source, self.target, claimed, places, f"{AUTHORS}/extra", MATRIX
        )
        table = self.before
        if table is None or self.table_path is None:
            usual = Table("csv", COLUMNS, tuple(rows))
            write_atomic(self.target / TABLES[0], render_table(usual))
        elif list(table.rows) == rows:  # byte for byte as it was
            copy(self.table_path, self.target, self.table_path.name)
        else:
            edited = Table(table.kind, table.columns, tuple(rows))
            write_atomic(self.target / self.table_path.name, render_table(edited))
        return extra, self.notes + notes


def draw(tracks: Tracks, kept: Files, had: bool, place: Path) -> tuple[Files, int]:
    """A clip's mask folder: kept pictures where they show the same masks, others drawn.

    ``had``: the clip came from the authors, whose choice of ``merged`` pictures stays; those of
    frames that changed are painted in our colours, later ids on top. Returns how many pictures
    were drawn, too.
    """
    num_frames = max((len(track) for track in tracks.values()), default=0)
    folders = id_folders(kept, place)
    frames = {name: frames_in(kept, folder, place, num_frames) for name, folder in folders.items()}
    merged = frames_in(kept, MERGED, place, num_frames)
    pictures = {*merged.values(), *(file for by_t in frames.values() for file in by_t.values())}
    files = {name: raw for name, raw in kept.items() if name not in pictures}
    changed = set(range(num_frames if frames.keys() - tracks.keys() else 0))
    painted: dict[int, NDArray[np.uint16]] = {}
    drawn = 0
    for number, (name, track) in enumerate(tracks.items(), start=1):
        folder, before = folders.get(name, f"<{name}>"), frames.get(name, {})
        files[f"{folder}/"] = b""
        for t, state in enumerate(track.states):
            file = before.get(t) or f"{folder}/{t:0{_digits(before)}d}.png"
            mask_HW = track.mask(t)
            if t not in painted:
                painted[t] = np.zeros(track.size, np.uint16, "F")  # as masks are decoded
            painted[t][mask_HW] = number
            same = t in before and state is not State.UNKNOWN
            if same and np.array_equal(read_mask(kept[file], None, place / file), mask_HW):
                files[file] = kept[file]
                continue
            if t in before or state is State.VISIBLE:
                changed.add(t)
            if state is not State.UNKNOWN:
                files[file] = mask_png(mask_HW)
                drawn += 1
    if not had:
        known = zip(*(track.states for track in tracks.values()), strict=True)
        shown = [t for t, s in enumerate(known) if any(one is not State.UNKNOWN for one in s)]
        merged = {t: f"{MERGED}/{t:03d}.png" for t in shown}
        changed = set(shown)
    palette = np.array([(0, 0, 0), *map(_colour, tracks)], dtype=np.uint8)
    for t, file in merged.items():
        files[file] = colour_png(palette, painted[t]) if t in changed else kept[file]
        drawn += t in changed
    filled = {f"{parent}/" for file in files for parent in PurePosixPath(file).parents}
    return {file: raw for file, raw in files.items() if file not in filled}, drawn


def _colour(name: str) -> Colour:
    """Of id1, id2, ...: the box colours, then hues a golden angle apart (our choice)."""
    number = id_number(name) - 1
    if number < len(_BOXES):
        return _BOXES[number]
    hue = (0.04 + number * 0.381966) % 1.0
    made = colorsys.hsv_to_rgb(hue, (1.0, 0.6, 0.8)[number % 3], (0.9, 0.7)[number % 2])
    return round(255 * made[0]), round(255 * made[1]), round(255 * made[2])


def _digits(frames: Mapping[int, str]) -> int:
    """Of the frame numbers in the names of pictures."""
    return min((len(PurePosixPath(file).stem) for file in frames.values()), default=3)


def _sha256(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ""
