"""The clip options that every command shares."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from matrix_video.data.dataset import open_clips
from matrix_video.data.options import ClipOptions
from matrix_video.data.transform import ClipTransform
from matrix_video.data.writer import DatasetWriter
from matrix_video.services.errors import MatrixError


def test_options_become_a_transform() -> None:
    assert ClipOptions().transform() == ClipTransform()
    chosen = ClipOptions(fps=4, num_frames=3, height=8, width=6)
    assert chosen.transform() == ClipTransform(fps=4, num_frames=3, size=(8, 6))
    assert ClipOptions().size is None


@pytest.mark.parametrize(("given", "missing"), [("height", "width"), ("width", "height")])
def test_half_a_size_is_refused(given: str, missing: str) -> None:
    with pytest.raises(MatrixError, match=f"{missing}: only one of height and width.*Give both"):
        ClipOptions.model_validate({given: 8})


@pytest.mark.parametrize("name", ["fps", "num_frames", "height", "limit"])
def test_numbers_below_their_least_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        ClipOptions.model_validate({"width": 8, "height": 8, name: 0})


def test_the_first_clips_are_opened(dataset_path: Path, tmp_path: Path) -> None:
    assert len(open_clips(dataset_path, ClipTransform(), None)) == 3
    few = open_clips(dataset_path, ClipTransform(num_frames=2), 2)
    assert [sample.id for sample in few.samples] == ["0001", "0002"]
    assert len(few.video(0)) == 2
    with DatasetWriter(tmp_path / "empty"):
        pass
    with pytest.raises(MatrixError, match=r"empty: the data set has no samples.*at least one"):
        open_clips(tmp_path / "empty", ClipTransform(), None)
