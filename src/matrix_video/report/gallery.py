"""The gallery: the same prompts in every generation run, side by side with ground truth."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from matrix_video.data.dataset import Dataset
from matrix_video.data.tracks import MaskTrack
from matrix_video.report.charts import KIND_NAMES
from matrix_video.report.content import GalleryClip, GalleryItem, Overlay
from matrix_video.report.runs import DATASET, Run
from matrix_video.report.scores import Evaluation, judges
from matrix_video.services.errors import MatrixError

TRUTH = "ground truth"
_OVERLAY = re.compile(r"(?P<sample>.+)_(?P<kind>v2t|v2v)_layer(?P<layer>[0-9]+)")


@dataclass(frozen=True)
class OverlayFile:
    """One overlay clip of a run, by the sample that it shows."""

    sample: str
    run: str
    overlay: Overlay


def overlay_files(runs: Sequence[Run]) -> tuple[OverlayFile, ...]:
    """Overlays of all runs (``overlays/<sample>_<kind>_layer<NN>.mp4``), V2T before V2V."""
    found: list[OverlayFile] = []
    for run in runs:
        for file in sorted((run.path / "overlays").glob("*.mp4")):
            match = _OVERLAY.fullmatch(file.stem)
            if match is not None:
                kind = KIND_NAMES["v2t" if match["kind"] == "v2t" else "v2v"]
                label = f"{run.label}, {kind}, layer {int(match['layer'])}"
                found.append(OverlayFile(match["sample"], run.label, Overlay(label, file)))
    return tuple(found)


@dataclass(frozen=True)
class Gallery:
    """Cards, how their prompts were picked, and lines on what is missing."""

    items: tuple[GalleryItem, ...]
    note: str
    missing: tuple[str, ...]


def collect_gallery(
    runs: Sequence[Run],
    evaluations: Sequence[Evaluation],
    overlays: Sequence[OverlayFile],
    count: int,
) -> Gallery:
    """The first ``count`` prompts that every finished generation run has; never picked by result.

    Raises `MatrixError` for a data set with broken metadata, and for runs on different prompt sets.
    """
    generated = [run for run in runs if run.kind == "generate"]
    done = [run for run in generated if run.finished]
    lines = [
        f"clips of {run.label}: the run is not finished" for run in generated if run not in done
    ]
    if not done:
        return Gallery((), "", tuple(lines or ["clips: no generation run was given"]))
    sets = {run.label: Dataset(run.path / DATASET) for run in done}
    shared = set.intersection(*({s.id for s in data.samples} for data in sets.values()))
    common = [s.id for s in next(iter(sets.values())).samples if s.id in shared]
    shown = common[:count]
    truth = _truth(done, shown)
    if isinstance(truth, str):
        lines.append(truth)
    scored = {run.label: next((e for e in evaluations if judges(e.run, run)), None) for run in done}
    lines += [
        f"answers for {label}: no evaluation of its videos was given"
        for label, evaluation in scored.items()
        if evaluation is None
    ]
    if not shown:
        why = "none were asked for" if common else "the generation runs share no prompt"
        return Gallery((), "", (*lines, f"clips: {why}"))
    clips = {label: data.subset(shown) for label, data in sets.items()}
    known = None if isinstance(truth, str) else truth
    tracked = {label: e.tracked() for label, e in scored.items() if e is not None}
    items = [_item(i, clips, known, scored, tracked, overlays) for i in range(len(shown))]
    if not any(item.overlays for item in items):
        lines.append("maps over the clips: no run has overlays of these prompts")
    note = (
        f"The first {len(items)} of {len(common)} prompts; none was picked."
        if len(items) < len(common)
        else f"All {len(common)} prompts."
    )
    return Gallery(tuple(items), note, tuple(lines))


def _item(
    index: int,
    sets: Mapping[str, Dataset],
    truth: Dataset | None,
    scored: Mapping[str, Evaluation | None],
    tracked: Mapping[str, Dataset | None],
    overlays: Sequence[OverlayFile],
) -> GalleryItem:
    sample = next(iter(sets.values())).samples[index]
    clips: list[GalleryClip] = []
    own = {} if truth is None else _tracks(truth, sample.id)
    # All start from one picture, so its boxes hold where nobody followed the instances.
    first = {name: track.take([0]) for name, track in own.items()}
    if truth is not None:
        clips.append(GalleryClip(TRUTH, truth.video_path(index), own, reference=True))
    for label, data in sets.items():
        evaluation, followed = scored[label], tracked.get(label)
        clips.append(
            GalleryClip(
                label,
                data.video_path(index),
                (None if followed is None else _tracks(followed, sample.id)) or first,
                None if evaluation is None else evaluation.video(sample.id),
            )
        )
    mine = tuple(o.overlay for o in overlays if o.sample == sample.id)
    return GalleryItem(sample, tuple(clips), mine)


def _tracks(data: Dataset, id: str) -> dict[str, MaskTrack]:
    """Tracks of a sample; none where the data set has no such sample, or they cannot be read."""
    index = next((i for i, sample in enumerate(data.samples) if sample.id == id), None)
    try:
        return {} if index is None else data.tracks(index)
    except MatrixError:
        return {}


def _truth(runs: Sequence[Run], shown: Sequence[str]) -> Dataset | str:
    """The prompts' own clips, those shown alone; or why there are none.

    A set that lost one of them is no longer the one that was used, so none of it is shown.
    """
    paths = sorted({run.data.resolve() for run in runs if run.data is not None})
    if not paths:
        return "ground truth: the generation runs have no settings, which name the prompt set"
    if len(paths) > 1:
        raise MatrixError(
            f"the generation runs have different prompt sets ({', '.join(map(str, paths))})",
            remedy="Report runs on the same prompts together; where their settings name one set by "
            "relative paths, do so in the folder in which they were started",
            field="runs",
        )
    path = paths[0]
    if not path.is_dir():
        return f"ground truth: the prompt set {path} is not there"
    prompts = Dataset(path)
    known = {sample.id for sample in prompts.samples}
    lost = [name for name in shown if name not in known]
    if lost:
        return f"ground truth: the prompt set {path} no longer has {', '.join(lost)}"
    return prompts.subset(shown)


def apart(overlays: Sequence[OverlayFile], run: str, shown: Sequence[GalleryItem]) -> list[Overlay]:
    """Overlays of a run whose prompts have no card, with the sample's name."""
    cards = {item.sample.id for item in shown}
    return [
        replace(o.overlay, label=f"{o.overlay.label}: {o.sample}")
        for o in overlays
        if o.run == run and o.sample not in cards
    ]
