"""Our layout → the authors'."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from matrix_video.data.convert.clips import Row, derive_samples, stem, video_field
from matrix_video.data.convert.files import Kept, copy_file, others
from matrix_video.data.convert.merged import can_paint, default_plan, masks_key, render_merged
from matrix_video.data.convert.png import DEFAULT_FORM, decode_png, render
from matrix_video.data.convert.prompts import id_number, read_prompt, write_prompt
from matrix_video.data.convert.recognise import MASKS, VIDEOS
from matrix_video.data.convert.sidecar import (
    AUTHORS_FILE,
    AUTHORS_FOLDER,
    KEPT,
    MATRIX_FILE,
    MATRIX_FOLDER,
    MERGED,
    AuthorsSidecar,
    ClipEntry,
    ClipPlan,
    IdPlan,
    MatrixLine,
    kept_path,
    read_authors_sidecar,
    read_plan,
)
from matrix_video.data.convert.table import COLUMNS, Table, read_table, render_table
from matrix_video.data.dataset import Dataset
from matrix_video.data.metadata import FILE_NAME, JOURNAL
from matrix_video.data.sample import Sample
from matrix_video.data.trackfile import read_tracks, track_path
from matrix_video.data.tracks import MaskTrack, State
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_file, write_atomic
from matrix_video.services.progress import progress

Tracks = dict[str, MaskTrack]


@dataclass(frozen=True)
class _Place:
    """Where a clip goes: what its row says, its video below the root, its mask folder's name."""

    value: str
    path: str
    masks: str | None


def to_authors(source: Path, target: Path) -> Kept:
    """Write ``target`` in the authors' layout; errors as ``Dataset`` raises them."""
    if (source / JOURNAL).is_file():
        raise MatrixError(
            f"the data set is unfinished: it still has {JOURNAL}",
            remedy="Let the command that writes it finish first",
            file=source,
        )
    dataset = Dataset(source)
    sidecar = read_authors_sidecar(source)
    before = _read_before(source, sidecar)
    kept = Kept()
    places = _Places()
    rows: list[dict[str, Any]] = []
    facts: list[Row] = []
    claimed = {source / FILE_NAME, source / AUTHORS_FILE}
    with progress("convert", len(dataset)) as advance:
        for index, sample in enumerate(dataset.samples):
            entry = None if sidecar is None else sidecar.clips.get(sample.id)
            tracks = _tracks(dataset, index)
            digest = sha256_file(dataset.video_path(index))
            place = places.find(sample, entry, tracks, digest)
            _copy_video(dataset.video_path(index), target / place.path)
            if place.masks is not None and not (target / MASKS / place.masks).exists():
                folder = target / MASKS / place.masks
                kept.masks += _write_masks(source, folder, sample.id, tracks)
            row = {} if entry is None or before is None else dict(before.rows[entry.row])
            prompt = _prompt(sample, row.get("prompt"))
            rows.append(row | {"video": place.value, "prompt": prompt})
            facts.append(Row(PurePosixPath(place.path), prompt, tuple(tracks)))
            claimed |= {dataset.video_path(index), dataset.track_path(index)}
            kept.clips += 1
            advance(1)
    _write_table(source, target, sidecar, before, rows)
    _write_lines(target, dataset.samples, facts, rows)
    for file in others(source, claimed):
        relative = file.relative_to(source)
        if relative.parts[0] != AUTHORS_FOLDER:
            copy_file(file, target / MATRIX_FOLDER / relative, kept)
            kept.extra.append(str(relative))
        elif relative.parts[1] == "extra":
            copy_file(file, target / relative.relative_to(AUTHORS_FOLDER, "extra"), kept)
    return kept


def _read_before(source: Path, sidecar: AuthorsSidecar | None) -> Table | None:
    """The authors' metadata as it was when the data came from there."""
    if sidecar is None:
        return None
    table = read_table(source / AUTHORS_FOLDER / sidecar.metadata)
    for name, entry in sidecar.clips.items():
        if not 0 <= entry.row < len(table.rows):
            raise MatrixError(
                f"row {entry.row} is not among the {len(table.rows)} rows of {sidecar.metadata}",
                remedy="Restore both files, or remove the sidecar",
                file=source / AUTHORS_FILE,
                field=f"clips.{name}.row",
            )
    return table


def _tracks(dataset: Dataset, index: int) -> Tracks:
    """The clip's tracks in the order of their ids; instances may lack one."""
    sample = dataset.samples[index]
    path = track_path(dataset.path, sample.id)
    none = not path.is_file() and not sample.instances
    names = [] if none else list(read_tracks(path).tracks)
    known = [instance.id for instance in sample.instances]
    for name in names:
        if name not in known:
            raise MatrixError(
                f"the track names no instance; the clip has {known}",
                remedy="Add the instance to the sample, or remove the track",
                file=path,
                field=f"instances.{name}",
            )
    return dataset.tracks(index, sorted(names, key=id_number))


class _Places:
    """Hands out places. Clips share a video or a mask folder only where it is the same for both."""

    def __init__(self) -> None:
        self.videos: dict[str, str] = {}
        self.masks: dict[str, Tracks] = {}

    def find(self, sample: Sample, entry: ClipEntry | None, tracks: Tracks, digest: str) -> _Place:
        """Where the clip came from or would go by default, else the first name that is free."""
        for place in self._options(sample, entry, bool(tracks)):
            same_video = self.videos.get(place.path, digest) == digest
            same_masks = place.masks is None or self.masks.get(place.masks, tracks) == tracks
            if same_video and same_masks:
                self.videos[place.path] = digest
                if place.masks is not None:
                    self.masks[place.masks] = tracks
                return place
        raise AssertionError("names do not run out")

    @staticmethod
    def _options(sample: Sample, entry: ClipEntry | None, masked: bool) -> Iterator[_Place]:
        if entry is not None and entry.file_name == sample.file_name:
            masks = stem(PurePosixPath(entry.path)) if masked else entry.masks
            yield _Place(entry.video, entry.path, masks)
        usual = video_field(sample)
        suffix = PurePosixPath(usual).suffix
        names = chain((usual, sample.id + suffix), (f"{sample.id}-{n}{suffix}" for n in count(2)))
        for name in names:
            path = f"{VIDEOS}/{name}"
            yield _Place(name, path, stem(PurePosixPath(path)) if masked else None)


def _copy_video(source: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _write_masks(source: Path, folder: Path, id: str, tracks: Tracks) -> int:
    """All PNGs of a clip, as its plan has them; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = read_plan(source, id)
    written = 0
    for name, track in tracks.items():
        usual = IdPlan(folder=f"<{name}>", width=3, forms=(), frames=())
        how = plan.ids.get(name, usual)
        (folder / how.folder).mkdir()
        for t, state in enumerate(track.states):
            if state is State.UNKNOWN:
                continue
            file = f"{t:0{how.width}d}.png"
            png = _mask_png(how, t, track, kept_path(source, id, name, file))
            (folder / how.folder / file).write_bytes(png)
            written += 1
    return written + _write_merged(source, folder / MERGED, id, plan, tracks)


def _mask_png(how: IdPlan, t: int, track: MaskTrack, kept: Path) -> bytes:
    mask_HW = track.mask(t)
    choice = how.frames[t] if t < len(how.frames) else None
    if choice == KEPT and kept.is_file():
        raw = kept.read_bytes()
        if np.array_equal(decode_png(raw, kept).mask(), mask_HW):  # else the mask was edited
            return raw
    if isinstance(choice, int):
        return render(how.forms[choice], mask_HW)
    return render(how.forms[0] if how.forms else DEFAULT_FORM, mask_HW)


def _write_merged(source: Path, folder: Path, id: str, plan: ClipPlan, tracks: Tracks) -> int:
    usual = default_plan(tracks)
    how = usual if plan.merged == "default" else plan.merged
    if how is None:
        return 0
    folder.mkdir()
    num_frames = max((len(track) for track in tracks.values()), default=len(how.frames))
    written = 0
    for t, choice in enumerate(how.frames):
        if choice is None or t >= num_frames:
            continue
        file = f"{t:0{how.width}d}.png"
        kept = kept_path(source, id, MERGED, file)
        if choice == KEPT and kept.is_file() and how.masks.get(str(t)) == masks_key(tracks, t):
            png = kept.read_bytes()
        elif can_paint(how, t, tracks):
            png = render_merged(how, t, tracks)
        elif usual is not None:  # an id has come since that the colours do not know
            png = render_merged(usual, t, tracks)
        else:
            continue
        (folder / file).write_bytes(png)
        written += 1
    return written


def _prompt(sample: Sample, before: str | None) -> str:
    """The original prompt as long as the caption is still what it reads."""
    if before is not None and read_prompt(before).caption == sample.caption:
        return before
    return write_prompt(sample.caption, sample.instances)


def _write_table(
    source: Path,
    target: Path,
    sidecar: AuthorsSidecar | None,
    before: Table | None,
    rows: list[dict[str, Any]],
) -> None:
    """Byte for byte as it was where the rows are the same, else in the same kind and columns."""
    if sidecar is None or before is None:
        write_atomic(target / "metadata.csv", render_table(Table("csv", COLUMNS, tuple(rows))))
    elif list(before.rows) == rows:
        shutil.copyfile(source / AUTHORS_FOLDER / sidecar.metadata, target / sidecar.metadata)
    else:
        table = Table(before.kind, before.columns, tuple(rows))
        write_atomic(target / sidecar.metadata, render_table(table))


def _write_lines(
    target: Path, samples: tuple[Sample, ...], facts: list[Row], rows: list[dict[str, Any]]
) -> None:
    """``matrix.jsonl``: the samples that their rows alone would not give back.

    Leaving one to its row changes which names are free for the others, hence the repetition; it
    ends because the known ones only grow.
    """
    known: dict[int, Sample] = {}
    while True:
        derived = derive_samples(facts, known)
        lost = {i: s for i, s in enumerate(samples) if derived[i] != s}
        if not lost:
            break
        known |= lost
    lines = [
        MatrixLine(
            video=rows[index]["video"], prompt=rows[index]["prompt"], sample=known[index]
        ).model_dump_json()
        for index in sorted(known)
    ]
    if lines:
        write_atomic(target / MATRIX_FILE, "\n".join(lines) + "\n")
