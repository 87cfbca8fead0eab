"""The gallery: the same prompts in every generation run, side by side with ground truth."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matrix_video.data.dataset import Dataset
from matrix_video.data.sample import Sample
from matrix_video.data.tracks import MaskTrack
from matrix_video.report.charts import KIND_NAMES
from matrix_video.report.content import GalleryClip, GalleryItem, Overlay
from matrix_video.report.runs import DATASET, Run
from matrix_video.report.scores import Evaluation, judges
from matrix_video.services.errors import MatrixError

TRUTH = "ground truth"
_OVERLAY = re.compile(r"(?P<sample>.+)_(?P<kind>v2t|v2v)_layer(?P<layer>[0-9]+)")


def overlay_files(runs: Iterable[Run]) -> tuple[Overlay, ...]:
    """Overlays of all runs (``overlays/<sample>_<kind>_layer<NN>.mp4``), V2T before V2V."""
    found: list[Overlay] = []
    for run in runs:
        for file in sorted((run.path / "overlays").glob("*.mp4")):
            match = _OVERLAY.fullmatch(file.stem)
            if match is not None:
                kind = KIND_NAMES["v2t" if match["kind"] == "v2t" else "v2v"]
                label = f"{run.label}, {kind}, layer {int(match['layer'])}"
                found.append(Overlay(label, file, run.label, match["sample"]))
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
    overlays: Sequence[Overlay],
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
    common = [sample for sample in next(iter(sets.values())).samples if sample.id in shared]
    shown = common[:count]
    truth = _truth(done, [sample.id for sample in shown])
    if isinstance(truth, str):
        lines.append(truth)
    scored: dict[str, Evaluation] = {}
    for run in done:
        evaluation = next((e for e in evaluations if judges(e.run, run)), None)
        if evaluation is None:
            lines.append(f"answers for {run.label}: no evaluation of its videos was given")
        else:
            scored[run.label] = evaluation
    if not shown:
        why = "none were asked for" if common else "the generation runs share no prompt"
        return Gallery((), "", (*lines, f"clips: {why}"))
    known = None if isinstance(truth, str) else truth
    tracked = {label: one.tracked() for label, one in scored.items()}
    items = [
        GalleryItem(
            sample,
            tuple(_clips(sample, sets, known, scored, tracked)),
            tuple(overlay for overlay in overlays if overlay.sample == sample.id),
        )
        for sample in shown
    ]
    if not any(item.overlays for item in items):
        lines.append("maps over the clips: no run has overlays of these prompts")
    note = (
        f"The first {len(items)} of {len(common)} prompts; none was picked."
        if len(items) < len(common)
        else f"All {len(common)} prompts."
    )
    return Gallery(tuple(items), note, tuple(lines))


def _clips(
    sample: Sample,
    sets: Mapping[str, Dataset],
    truth: Dataset | None,
    scored: Mapping[str, Evaluation],
    tracked: Mapping[str, Dataset | None],
) -> Iterable[GalleryClip]:
    """Ground truth, and one clip of each generation run with its tracks and score."""
    own = _tracks(truth, sample.id)
    if truth is not None:
        video = truth.subset([sample.id]).video_path(0)
        yield GalleryClip(TRUTH, video, own, reference=True)
    # All start from one picture, so its boxes hold where nobody followed the instances.
    first = {name: track.take([0]) for name, track in own.items()}
    for label, data in sets.items():
        video = data.subset([sample.id]).video_path(0)
        followed = _tracks(tracked.get(label), sample.id) or first
        score = scored[label].video(sample.id) if label in scored else None
        yield GalleryClip(label, video, followed, score)


def _tracks(data: Dataset | None, id: str) -> dict[str, MaskTrack]:
    """Tracks of a sample; none where the data set has no such sample, or they cannot be read."""
    try:
        return {} if data is None else data.subset([id]).tracks(0)
    except MatrixError:
        return {}


def _truth(runs: Sequence[Run], shown: Sequence[str]) -> Dataset | str:
    """The prompts' own clips; or why there are none.

    A set that lost one of those shown is no longer the one that was used, so none of it is shown.
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
    return prompts
