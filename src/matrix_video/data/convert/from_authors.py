"""The authors' layout → ours."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from matrix_video.data.convert.clips import Row, adopt, derive_samples, stem, video_field
from matrix_video.data.convert.files import Kept, copy_file, others
from matrix_video.data.convert.merged import default_plan, fit_plan
from matrix_video.data.convert.png import DEFAULT_FORM, Look, Png, fit_forms, look, read_png
from matrix_video.data.convert.prompts import id_number, write_prompt
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
    MergedPlan,
    kept_path,
    plan_path,
    read_matrix_lines,
    write_record,
)
from matrix_video.data.convert.table import COLUMNS, Table, find_table, read_table, render_table
from matrix_video.data.dataset import DatasetWriter
from matrix_video.data.sample import Sample
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.video import VideoInfo, probe_video
from matrix_video.services.errors import MatrixError
from matrix_video.services.progress import progress

_FOLDER = re.compile(r"<(id[1-9][0-9]*)>|(id[1-9][0-9]*)")
_FRAME = re.compile(r"([0-9]+)\.png")


@dataclass
class _Clip:
    """One row with what lies on disk for it."""

    index: int
    value: str
    row: Row
    masks: Path | None
    folders: dict[str, Path]
    merged: Path | None


@dataclass
class _Masks:
    tracks: dict[str, MaskTrack] = field(default_factory=dict[str, MaskTrack])
    plan: ClipPlan = field(default_factory=ClipPlan)
    kept: list[tuple[Path, str]] = field(default_factory=list[tuple[Path, str]])
    """PNGs to keep whole: the file, and the folder that it goes to."""
    files: list[Path] = field(default_factory=list[Path])
    """Every PNG that was read."""


def from_authors(source: Path, target: Path) -> Kept:
    """Write ``target`` in our layout. ``MatrixError`` names the file, line or frame at fault."""
    path = find_table(source)
    table = read_table(path)
    clips = [_locate(source, path, index, row) for index, row in enumerate(table.rows)]
    kept = Kept()
    samples = _samples(source, clips, kept)
    entries: dict[str, ClipEntry] = {}
    deviates = path.name != "metadata.csv" or path.read_bytes() != render_table(_plain(table))
    claimed = {path, source / MATRIX_FILE}
    order = [sample.id for sample in samples]
    with progress("convert", len(clips)) as advance, DatasetWriter(target, order) as writer:
        for clip, sample in zip(clips, samples, strict=True):
            video = source / clip.row.path
            info = probe_video(video)
            masks = _read_masks(clip, info)
            writer.add_file(sample, video, masks.tracks)
            _store_plan(target, sample, masks)
            claimed |= {video, *masks.files}
            entry, usual = _entry(clip, sample, masks.tracks)
            entries[sample.id] = entry
            deviates |= not usual or masks.plan != ClipPlan()
            kept.notes += [
                f"{clip.value}: the prompt names {instance.id}, which has no masks"
                for instance in sample.instances
                if instance.mentions and instance.id not in masks.tracks
            ]
            kept.clips += 1
            kept.masks += len(masks.files)
            advance(1)
    for file in others(source, claimed):
        relative = file.relative_to(source)
        if relative.parts[0] == MATRIX_FOLDER:
            copy_file(file, target / relative.relative_to(MATRIX_FOLDER), kept)
        else:
            copy_file(file, target / AUTHORS_FOLDER / "extra" / relative, kept)
            kept.extra.append(str(relative))
            deviates = True
    if deviates:
        copy_file(path, target / AUTHORS_FOLDER / path.name, kept)
        write_record(target / AUTHORS_FILE, AuthorsSidecar(metadata=path.name, clips=entries))
    return kept


def _plain(table: Table) -> Table:
    """The table as it would be written for data of our own."""
    rows = tuple({column: row[column] for column in COLUMNS} for row in table.rows)
    return Table("csv", COLUMNS, rows)


def _locate(source: Path, path: Path, index: int, row: Mapping[str, Any]) -> _Clip:
    value = row["video"]
    stated = PurePosixPath(value)
    if not stated.parts or stated.is_absolute() or ".." in stated.parts:
        raise MatrixError(
            f"{value!r} is no path below {VIDEOS}/",
            remedy="Name a video of this data set, such as '000001.mp4'",
            file=path,
            field=f"row {index}: video",
        )
    video = next((p for p in (VIDEOS / stated, stated) if (source / p).is_file()), None)
    if video is None:
        raise MatrixError(
            f"there is no video {value!r}: looked for {VIDEOS / stated} and {stated}",
            remedy="Restore the video, or remove the row",
            file=path,
            field=f"row {index}: video",
        )
    folder = source / MASKS / stem(video)
    folders: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = _FOLDER.fullmatch(entry.name)
        if match is None or not entry.is_dir():
            continue
        name = match.group(1) or match.group(2)
        if name in folders:
            raise MatrixError(
                f"{name} has two mask folders, {folders[name].name!r} and {entry.name!r}",
                remedy="Keep one of them",
                file=folder,
            )
        folders[name] = entry
    merged = folder / MERGED
    return _Clip(
        index,
        value,
        Row(video, row["prompt"], tuple(sorted(folders, key=id_number))),
        folder if folder.is_dir() else None,
        folders,
        merged if merged.is_dir() else None,
    )


def _samples(source: Path, clips: list[_Clip], kept: Kept) -> list[Sample]:
    """From the rows, or from what we had ourselves put into ``matrix.jsonl``."""
    lines: dict[str, list[tuple[str, Sample]]] = defaultdict(list)
    for line in read_matrix_lines(source):
        lines[line.video].append((line.prompt, line.sample))
    known: dict[int, Sample] = {}
    for exact in (True, False):  # rows whose prompt was edited take what the others leave
        for clip in clips:
            left = lines[clip.value]
            same = [pair for pair in left if pair[0] == clip.row.prompt or not exact]
            if clip.index in known or not same:
                continue
            left.remove(same[0])
            prompt, old = same[0]
            known[clip.index] = adopt(old, prompt, clip.row)
            if not exact:
                kept.notes.append(
                    f"{clip.value}: the prompt was edited, so its mentions were read anew and "
                    "its verbs have no spans"
                )
    for value, left in lines.items():
        kept.notes += [f"{value}: {sample.id!r} has no row any more" for _, sample in left]
    return derive_samples([clip.row for clip in clips], known)


def _entry(clip: _Clip, sample: Sample, tracks: Mapping[str, MaskTrack]) -> tuple[ClipEntry, bool]:
    """The clip's entry in the sidecar, and whether it says nothing that is not the default."""
    masks = None if clip.masks is None else stem(clip.row.path)
    entry = ClipEntry(
        row=clip.index,
        video=clip.value,
        path=str(clip.row.path),
        file_name=sample.file_name,
        masks=masks,
    )
    usual = video_field(sample)
    prompt = write_prompt(sample.caption, sample.instances)
    folder = stem(PurePosixPath(VIDEOS) / usual) if tracks else None
    return entry, (clip.value, clip.row.prompt, masks) == (usual, prompt, folder)


def _read_masks(clip: _Clip, info: VideoInfo) -> _Masks:
    size, num_frames = (info.height, info.width), len(info.times)
    found = _Masks()
    plans: dict[str, IdPlan] = {}
    for name in clip.row.ids:
        folder = clip.folders[name]
        frames, width = _frames(folder, num_frames)
        masks_THW = np.zeros((num_frames, *size), dtype=bool)
        looks: list[Look | None] = [None] * num_frames
        for t, file in frames.items():
            png = read_png(file, size)
            masks_THW[t] = png.mask()
            looks[t] = look(png, masks_THW[t])
        unknown = [t for t in range(num_frames) if t not in frames]
        found.tracks[name] = MaskTrack.from_masks(masks_THW, unknown)
        forms, chosen = fit_forms(looks)
        choices: tuple[int | Literal["kept"] | None, ...] = tuple(
            None if t not in frames else KEPT if form is None else form
            for t, form in enumerate(chosen)
        )
        found.kept += [(frames[t], name) for t, choice in enumerate(choices) if choice == KEPT]
        found.files += frames.values()
        plan = IdPlan(folder=folder.name, width=width, forms=forms, frames=choices)
        if not _is_default(name, plan):
            plans[name] = plan
    merged = _read_merged(clip, size, num_frames, found)
    found.plan = ClipPlan(ids=plans, merged=merged)
    return found


def _is_default(id: str, plan: IdPlan) -> bool:
    return (
        plan.folder == f"<{id}>"
        and plan.width == 3
        and plan.forms in ((), (DEFAULT_FORM,))
        and KEPT not in plan.frames
    )


def _read_merged(
    clip: _Clip, size: tuple[int, int], num_frames: int, found: _Masks
) -> MergedPlan | Literal["default"] | None:
    usual = default_plan(found.tracks)
    if clip.merged is None:
        return "default" if usual is None else None
    frames, width = _frames(clip.merged, num_frames)
    pngs: dict[int, Png] = {t: read_png(file, size) for t, file in frames.items()}
    plan = fit_plan(pngs, found.tracks, num_frames, width)
    found.kept += [(file, MERGED) for t, file in frames.items() if plan.frames[t] == KEPT]
    found.files += frames.values()
    return "default" if plan == usual else plan


def _frames(folder: Path, num_frames: int) -> tuple[dict[int, Path], int]:
    """PNGs by frame number, and how many digits their names have at least."""
    found: dict[int, Path] = {}
    names: list[str] = []
    for file in sorted(folder.iterdir()):
        match = _FRAME.fullmatch(file.name)
        if match is None or not file.is_file():
            continue
        t = int(match.group(1))
        if t >= num_frames:
            raise MatrixError(
                f"there is a mask for frame {t}, but the video has {num_frames} frames "
                f"(0 to {num_frames - 1})",
                remedy="Make the masks from this very video, numbered from 0",
                file=file,
            )
        found[t] = file
        names.append(match.group(1))
    width = min(map(len, names), default=3)
    if sorted(names) != sorted(f"{t:0{width}d}" for t in found):
        raise MatrixError(
            "the frame numbers mix different numbers of digits",
            remedy="Name all frames of an id alike, such as 000.png, 001.png",
            file=folder,
        )
    return found, width


def _store_plan(target: Path, sample: Sample, masks: _Masks) -> None:
    if masks.plan != ClipPlan():
        write_record(plan_path(target, sample.id), masks.plan)
    for file, folder in masks.kept:
        goal = kept_path(target, sample.id, folder, file.name)
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, goal)
