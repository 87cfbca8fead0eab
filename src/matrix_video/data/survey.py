"""All clips of a data set before the first is decoded: what each will be, or why it cannot be."""

from __future__ import annotations

from dataclasses import dataclass

from matrix_video.data.dataset import Dataset
from matrix_video.data.transform import ClipShape
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
