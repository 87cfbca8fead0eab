"""The gallery: the same prompts in every generation run, side by side with ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matrix_video.data.dataset import Dataset
from matrix_video.report.collect.layers import OverlayFile
from matrix_video.report.collect.runs import DATASET, Run
from matrix_video.report.collect.scores import Evaluation, judges
from matrix_video.report.content import GalleryClip, GalleryItem, Overlay
from matrix_video.services.errors import MatrixError

TRUTH = "ground truth"


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
        truth = None
    scored = {run.label: next((e for e in evaluations if judges(e.run, run)), None) for run in done}
    lines += [
        f"answers for {label}: no evaluation of its videos was given"
        for label, evaluation in scored.items()
        if evaluation is None
    ]
    if not common:
        return Gallery((), "", (*lines, "clips: the generation runs share no prompt"))
    if not shown:
        return Gallery((), "", (*lines, "clips: none were asked for"))
    clips = {label: data.subset(shown) for label, data in sets.items()}
    items = [_item(index, clips, truth, scored, overlays) for index in range(len(shown))]
    if not any(item.overlays for item in items):
        lines.append("maps over the clips: no run has overlays of these prompts")
    few = len(items) < len(common)
    note = (
        f"The first {len(items)} of {len(common)} prompts; none was picked."
        if few
        else f"All {len(common)} prompts."
    )
    return Gallery(tuple(items), note, tuple(lines))


def _item(
    index: int,
    sets: Mapping[str, Dataset],
    truth: Dataset | None,
    scored: Mapping[str, Evaluation | None],
    overlays: Sequence[OverlayFile],
) -> GalleryItem:
    sample = next(iter(sets.values())).samples[index]
    clips: list[GalleryClip] = []
    if truth is not None:
        clips.append(GalleryClip(TRUTH, truth.video_path(index), reference=True))
    for label, data in sets.items():
        video, evaluation = data.video_path(index), scored[label]
        found = None if evaluation is None else evaluation.videos.get(sample.id)
        clips.append(
            GalleryClip(label, video)
            if found is None
            else GalleryClip(label, video, found.scores, found.answers)
        )
    return GalleryItem(
        sample=sample,
        clips=tuple(clips),
        overlays=tuple(Overlay(o.label, o.video) for o in overlays if o.sample == sample.id),
    )


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
