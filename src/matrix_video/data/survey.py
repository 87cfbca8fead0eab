"""All clips of a data set before the first is decoded: what each will be, or why it cannot be."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matrix_video.data.dataset import Dataset
from matrix_video.data.sample import Sample
from matrix_video.data.transform import ClipShape, ClipTransform
from matrix_video.services.errors import MatrixError
from matrix_video.services.progress import progress


@dataclass(frozen=True)
class Survey:
    """By index of the data set: the shape of each clip, or its refusal."""

    shapes: dict[int, ClipShape]
    refused: dict[int, MatrixError]
    notes: tuple[str, ...]
    """Of clips that are squeezed."""


def survey_clips(data: Dataset) -> Survey:
    """Read the header of every video; nothing is decoded but the frame that tells its size."""
    shapes: dict[int, ClipShape] = {}
    refused: dict[int, MatrixError] = {}
    with progress("look at clips", len(data)) as advance:
        for index in range(len(data)):
            try:
                shapes[index] = data.shape(index)
            except MatrixError as error:
                refused[index] = error
            advance(1)
    squeezed = {index: text for index, shape in shapes.items() if (text := shape.squeezed)}
    notes: tuple[str, ...] = ()
    if squeezed:
        index, text = next(iter(squeezed.items()))
        more = f" ({len(squeezed)} of {len(data)} clips are)" if len(data) > 1 else ""
        notes = (f"{data.samples[index].id}: {text}{more}",)
    return Survey(shapes, refused, notes)


def open_clips(
    path: Path, transform: ClipTransform, limit: int | None, *, leave_out: bool = False
) -> Dataset:
    """The first ``limit`` clips of a data set, each of which the transform can take.

    Clips that cannot be taken are left out with a warning, or else refused in one ``MatrixError``,
    which is also raised for a data set without clips. Squeezed clips are warned of.
    """
    data = Dataset(path, transform)
    if len(data) == 0:
        raise MatrixError(
            "the data set has no samples",
            remedy="Give a data set with at least one clip",
            file=path,
        )
    data = data if limit is None else data[:limit]
    found = survey_clips(data)
    for note in found.notes:
        warnings.warn(f"{path}: {note}", stacklevel=2)
    return _without(data, found.refused, "taken", leave_out)


def fitting(
    data: Dataset, check: Callable[[Sample, ClipShape], None], what: str, *, leave_out: bool
) -> Dataset:
    """The clips for which ``check`` raises no `MatrixError`; of each, the header alone is read.

    The others are left out with a warning, or else refused in one `MatrixError`, before anything
    is made of the first: "clips cannot be ``what``".
    """
    refused: dict[int, MatrixError] = {}
    for index, sample in enumerate(data.samples):
        try:
            check(sample, data.shape(index))
        except MatrixError as error:
            refused[index] = error
    return _without(data, refused, what, leave_out)


def _without(data: Dataset, refused: dict[int, MatrixError], what: str, leave_out: bool) -> Dataset:
    if not refused:
        return data
    error = _refusal(data, refused, what)
    if not leave_out or len(refused) == len(data):
        raise error
    warnings.warn(f"left out: {error.problem}", stacklevel=3)
    return data.subset(s.id for index, s in enumerate(data.samples) if index not in refused)


def _refusal(data: Dataset, refused: dict[int, MatrixError], what: str) -> MatrixError:
    """One error of all, each reason told once with the clips that it holds for."""
    first = next(iter(refused.values()))
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for index, error in refused.items():
        by_reason[error.problem].append(data.samples[index].id)
    reasons = "; ".join(
        f"{', '.join(ids[:8])}{f' and {len(ids) - 8} more' if len(ids) > 8 else ''}: {problem}"
        for problem, ids in list(by_reason.items())[:8]
    )
    if len(by_reason) > 8:
        reasons += f"; and {len(by_reason) - 8} other reasons"
    return MatrixError(
        f"{len(refused)} of {len(data)} clips cannot be {what}: {reasons}",
        remedy=first.remedy
        if len(refused) == len(data)
        else f"{first.remedy.rstrip('.')}; or add --leave-out to go on without them",
        file=data.path,
        field=first.field,
    )
