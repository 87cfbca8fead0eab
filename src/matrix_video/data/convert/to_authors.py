"""Our layout → the authors'."""

from __future__ import annotations

import colorsys
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from matrix_video.data.convert.files import Names, copy, copy_others, tracks_of, walk
from matrix_video.data.convert.kept import (
    Facts,
    MatrixLine,
    digest,
    facts_paths,
    read_facts,
    read_files,
)
from matrix_video.data.convert.layout import (
    AUTHORS,
    MASKS,
    MATRIX,
    MATRIX_LINES,
    MERGED,
    TABLES,
    VIDEOS,
    Files,
    Pictures,
    find_table,
    id_number,
    mask_name,
    pictures,
    video_field,
)
from matrix_video.data.convert.png import draw_png, read_mask
from matrix_video.data.convert.prompts import derive_instances, read_prompt, write_prompt
from matrix_video.data.convert.run import OWN, Direction, Made
from matrix_video.data.convert.table import COLUMNS, Table, read_table, render_table
from matrix_video.data.dataset import Dataset
from matrix_video.data.metadata import FILE_NAME
from matrix_video.data.paths import inside
from matrix_video.data.probe import VideoInfo, probe_video
from matrix_video.data.sample import Sample
from matrix_video.data.trackfile import check_fits, read_tracks
from matrix_video.data.tracks import MaskTrack, State
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_file, sha256_text, write_atomic

_WHITE = np.array([[0], [255]], dtype=np.uint8)
_BOXES = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255))
"""Red, green, blue, yellow, magenta, cyan: the box colours of InterGenEval."""


class ToAuthors(Direction):
    """Errors as ``Dataset`` raises them."""

    def __init__(self, source: Path, target: Path) -> None:
        self.source, self.target = source, target
        self.samples = Dataset(source).samples
        self.names = [sample.id for sample in self.samples]
        table = find_table(source / AUTHORS)
        self.table_path = inside(source, f"{AUTHORS}/{table}") if table else None
        self.table = read_table(self.table_path) if self.table_path else None
        self.notes: list[str] = []
        if (source / "authors.json").is_file():
            self.notes.append(
                "authors.json is of an earlier version: masks are drawn anew from the tracks"
            )
        self.facts = [self._facts(sample) for sample in self.samples]
        self.places = self._place()
        self.folders = {f"{MASKS}/{mask_name(path)}" for _, path in self.places}
        self.contents = sha256_text(
            sha256_file(source / FILE_NAME),
            sha256_file(self.table_path) if self.table_path else "",
            str(source.resolve()),
            repr(self.places),
        )

    def _facts(self, sample: Sample) -> Facts | MatrixError | None:
        """Where the clip came from; the error is raised when it is made."""
        try:
            facts = read_facts(self.source, sample.id)
        except MatrixError as error:
            return error
        if facts is None or self.table is None or facts.row < len(self.table.rows):
            return facts
        return MatrixError(
            f"row {facts.row} is not among the {len(self.table.rows)} rows of {self.table_path}",
            remedy="Restore both files, or remove this one",
            file=facts_paths(self.source, sample.id)[0],
            field="row",
        )

    def _place(self) -> list[tuple[str, str]]:
        """Of each clip what its row says and its video's path: where it came from, else by its
        name. Clips share a path only where the video is the same for both, and a mask folder only
        where the tracks are."""
        wanted: list[tuple[str, str]] = []
        for sample, known in zip(self.samples, self.facts, strict=True):
            usual = video_field(sample)
            place = usual, f"{VIDEOS}/{usual}"
            if isinstance(known, Facts) and known.file_name == sample.file_name:
                below = PurePosixPath(known.path).parts[0].casefold()
                place = place if below in (MASKS, MATRIX) else (known.video, known.path)
            wanted.append(place)
        often = Counter(mask_name(path) for _, path in wanted)
        names, videos, masks = Names(), dict[str, str](), dict[str, str]()
        places: list[tuple[str, str]] = []
        for sample, first in zip(self.samples, wanted, strict=True):
            tail = PurePosixPath(first[1]).suffix
            numbered = (sample.id + (f"-{n}" if n > 1 else "") + tail for n in count(1))
            for value, path in chain((first,), ((name, f"{VIDEOS}/{name}") for name in numbered)):
                key = mask_name(path)
                same = self._hashes(sample) if often[key] > 1 else None
                fits = names.fit(path) or (same and videos.get(path) == same[0])
                if fits and (key not in masks or (same and masks[key] == same[1])):
                    names.take(path)
                    videos[path], masks[key] = same or ("", "")
                    places.append((value, path))
                    break
        return places

    def _hashes(self, sample: Sample) -> tuple[str, str]:
        """Of the contents of video and tracks, empty where they are missing."""
        try:
            video, tracks = self._files(sample)
            return _sha256(video), _sha256(tracks)
        except MatrixError:
            return "", ""  # told when the clip is made

    def _files(self, sample: Sample) -> tuple[Path, Path]:
        """Video and tracks."""
        return inside(self.source, sample.file_name), inside(self.source, tracks_of(sample.id))

    def inputs(self, index: int) -> Iterable[Path]:
        sample = self.samples[index]
        return *self._files(sample), *facts_paths(self.source, sample.id)

    def make(self, index: int) -> Made:
        sample, facts, (value, path) = self.samples[index], self.facts[index], self.places[index]
        if isinstance(facts, MatrixError):
            raise facts
        video, track_path = self._files(sample)
        info = probe_video(video)
        files = {} if facts is None else read_files(self.source, sample.id)
        archive = facts_paths(self.source, sample.id)[1]
        by_id, merged = pictures(files, archive, len(info.times))
        ids: Iterable[str] = by_id
        notes: list[str] = []
        if facts is None or _sha256(track_path) != facts.tracks:
            ids = tracks = self._tracks(sample, info)
            files, drawn = draw(
                tracks, info, files, by_id, None if facts is None else merged, archive
            )
            if facts is not None and drawn:
                notes.append(f"{drawn} of {len(files)} mask pictures were drawn anew")
        prompt = self._row(index).get("prompt")
        if prompt is None or read_prompt(prompt).caption != sample.caption:
            prompt = write_prompt(sample.caption, sample.instances)
        copy(video, self.target, path)
        self._write(mask_name(path), files)
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

    def _row(self, index: int) -> dict[str, Any]:
        """The row of the authors that the clip came from."""
        facts = self.facts[index]
        if self.table is None or not isinstance(facts, Facts):
            return {}
        return dict(self.table.rows[facts.row])

    def _tracks(self, sample: Sample, info: VideoInfo) -> dict[str, MaskTrack]:
        """In the order of ids; instances may lack one."""
        video, path = self._files(sample)
        if not path.is_file() and not sample.instances:
            return {}
        stored = read_tracks(path)
        check_fits(stored, path, video, info.size, len(info.times))
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
        made: dict[str, Path] = {}  # folders: a check of each file would take as long as writing
        for below, raw in files.items():
            parent, _, file = below.rpartition("/")
            if parent not in made:
                made[parent] = inside(root, parent) if parent else root
                made[parent].mkdir(parents=True, exist_ok=True)
            if file:
                (made[parent] / file).write_bytes(raw)

    def finish(self, made: list[tuple[int, Made]]) -> tuple[list[str], list[str]]:
        rows: list[dict[str, Any]] = []
        lines: list[str] = []
        given = Names()
        for index, one in made:
            sample, (value, path) = self.samples[index], self.places[index]
            line = MatrixLine.model_validate_json(one.text)
            rows.append(self._row(index) | {"video": value, "prompt": line.prompt})
            names = sample.id, sample.file_name
            if not one.plain or given.derive(path) != names:
                lines.append(one.text + "\n")
            given.take(tracks_of(names[0]), names[1])
        if lines:
            write_atomic(self.target / MATRIX_LINES, "".join(lines))
        claimed = {FILE_NAME, *OWN, f"{AUTHORS}/clips", *(f"{AUTHORS}/{name}" for name in TABLES)}
        for sample in self.samples:
            claimed |= {sample.file_name, tracks_of(sample.id)}
        places = {*TABLES, MATRIX_LINES, *(path for _, path in self.places), *self.folders}
        extra, notes = copy_others(
            self.source, self.target, claimed, places, f"{AUTHORS}/extra", MATRIX
        )
        table = self.table or Table("csv", COLUMNS, ())
        name = f"metadata.{table.kind}"
        if self.table_path is not None and list(table.rows) == rows:  # byte for byte as it was
            copy(self.table_path, self.target, name)
        else:
            edited = Table(table.kind, table.columns, tuple(rows))
            write_atomic(self.target / name, render_table(edited))
        return extra, self.notes + notes


def draw(
    tracks: Mapping[str, MaskTrack],
    info: VideoInfo,
    kept: Files,
    by_id: Mapping[str, Pictures],
    merged: Pictures | None,
    place: Path,
) -> tuple[Files, int]:
    """A clip's mask folder: kept pictures where they show the same masks, others drawn.

    ``by_id`` and ``merged`` are the kept pictures, ``merged`` None where the clip is our own. The
    authors' choice of ``merged`` pictures stays; those of frames that changed are painted in our
    colours, later ids on top. Returns how many pictures were drawn, too.
    """
    old = {*(merged.frames.values() if merged else ())}
    old |= {file for one in by_id.values() for file in one.frames.values()}
    files = {name: raw for name, raw in kept.items() if name not in old}
    homes = {name: by_id.get(name, Pictures(f"<{name}>", {})) for name in tracks}
    files |= {f"{home.folder}/": b"" for home in homes.values()}
    palette = np.array([(0, 0, 0), *map(_colour, tracks)], dtype=np.uint8)
    drawn = 0
    for t in range(len(info.times)):
        # By columns, as masks are decoded.
        painted_HW = np.zeros(info.size, np.min_scalar_type(len(tracks)), "F")
        shown, changed = False, merged is None or not by_id.keys() <= tracks.keys()
        for number, (name, track) in enumerate(tracks.items(), start=1):
            before = homes[name].frames.get(t)
            mask_HW = track.mask(t)
            np.copyto(painted_HW, number, where=mask_HW)
            if track.states[t] is State.UNKNOWN:
                changed |= before is not None
                continue
            shown = True
            if before and np.array_equal(read_mask(kept[before], info.size, place), mask_HW):
                files[before] = kept[before]
                continue
            changed |= before is not None or track.states[t] is State.VISIBLE
            files[before or homes[name].new(t)] = draw_png(mask_HW.view(np.uint8), _WHITE)
            drawn += 1
        usual = f"{MERGED}/{t:03d}.png" if shown else None
        file = usual if merged is None else merged.frames.get(t)
        if file is not None:
            files[file] = draw_png(painted_HW, palette) if changed else kept[file]
            drawn += changed
    filled = {f"{parent}/" for file in files for parent in PurePosixPath(file).parents}
    return {file: raw for file, raw in files.items() if file not in filled}, drawn


def _colour(name: str) -> tuple[int, int, int]:
    """Of id1, id2, ...: the box colours, then hues a golden angle apart (our choice)."""
    number = id_number(name) - 1
    if number < len(_BOXES):
        return _BOXES[number]
    hue = (0.04 + number * 0.381966) % 1.0
    made = colorsys.hsv_to_rgb(hue, (1.0, 0.6, 0.8)[number % 3], (0.9, 0.7)[number % 2])
    return round(255 * made[0]), round(255 * made[1]), round(255 * made[2])


def _sha256(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ""
