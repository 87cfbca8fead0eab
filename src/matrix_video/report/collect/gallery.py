"""The gallery: the same prompts in every generation run, side by side with ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from matrix_video.data.dataset import Dataset
from matrix_video.report.collect.layers import OverlayFile
from matrix_video.report.collect.runs import DATASET, GENERATION, Run
from matrix_video.report.collect.scores import Evaluation, judges
from matrix_video.report.content import GalleryClip, GalleryItem, Overlay
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import read_json

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

    Raises `MatrixError` for a data set with broken metadata.
    """
    generated = [run for run in runs if run.kind == "generate"]
    done = [run for run in generated if run.finished]
    lines = [
        f"clips of {run.label}: the run is not finished" for run in generated if run not in done
    ]
    if not done:
        return Gallery((), "", tuple(lines or ["clips: no generation run was given"]))
    sets = {run.label: Dataset(run.path / DATASET) for run in done}
    truth = _prompt_set(done)
    if isinstance(truth, str):
        lines.append(truth)
        truth = None
    scored = {run.label: next((e for e in evaluations if judges(e.run, run)), None) for run in done}
    lines += [
        f"answers for {label}: no evaluation of its videos was given"
        for label, evaluation in scored.items()
        if evaluation is None
    ]
    shared = set.intersection(*({s.id for s in data.samples} for data in sets.values()))
    common = [s.id for s in next(iter(sets.values())).samples if s.id in shared]
    if not common:
        return Gallery((), "", (*lines, "clips: the generation runs share no prompt"))
    items = [_item(name, sets, truth, scored, overlays) for name in common[:count]]
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
    name: str,
    sets: Mapping[str, Dataset],
    truth: Dataset | None,
    scored: Mapping[str, Evaluation | None],
    overlays: Sequence[OverlayFile],
) -> GalleryItem:
    clips: list[GalleryClip] = []
    if truth is not None:
        video = _video(truth, name)
        if video is not None:
            clips.append(GalleryClip(TRUTH, video, reference=True))
    sample = None
    for label, data in sets.items():
        video = _video(data, name)
        assert video is not None  # the id stands in every set
        evaluation = scored[label]
        found = None if evaluation is None else evaluation.videos.get(name)
        sample = sample or next(s for s in data.samples if s.id == name)
        clips.append(
            GalleryClip(label, video)
            if found is None
            else GalleryClip(label, video, found.scores, found.answers)
        )
    assert sample is not None
    return GalleryItem(
        sample=sample,
        clips=tuple(clips),
        overlays=tuple(Overlay(o.label, o.video) for o in overlays if o.sample == name),
    )


def _video(data: Dataset, name: str) -> Path | None:
    for index, sample in enumerate(data.samples):
        if sample.id == name:
            return data.video_path(index)
    return None


def _prompt_set(runs: Sequence[Run]) -> Dataset | str:
    """The prompts' own data set, or why there is none to show."""
    named: list[str] = []
    for run in runs:
        file = run.path / GENERATION
        facts: Any = read_json(file) if file.is_file() else {}
        path = cast("dict[str, Any]", facts).get("prompts") if isinstance(facts, dict) else None
        if isinstance(path, str):
            named.append(path)
    if not named:
        return f"ground truth: no {GENERATION} names the prompt set"
    if len(set(named)) > 1:
        raise MatrixError(
            f"the generation runs have different prompt sets ({', '.join(sorted(set(named)))})",
            remedy="Report runs on the same prompts together",
            field="runs",
        )
    path = Path(named[0])
    if not path.is_dir():
        return f"ground truth: the prompt set {path} is not there"
    return Dataset(path)
