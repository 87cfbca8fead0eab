"""The clip options that every command shares."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from matrix_video.data.options import ClipOptions
from matrix_video.data.survey import open_clips
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


def test_clips_that_cannot_be_taken_are_refused_at_once_or_left_out(dataset_path: Path) -> None:
    for name in ("0001", "0003"):
        (dataset_path / f"videos/{name}.mp4").write_bytes(b"no video")
    with pytest.raises(
        MatrixError,
        match=r"2 of 3 clips cannot be taken: 0001, 0003: the video is damaged.*--leave-out to go",
    ):
        open_clips(dataset_path, ClipTransform(), None)
    with pytest.warns(UserWarning, match="left out: 2 of 3 clips cannot be taken: 0001, 0003: the"):
        data = open_clips(dataset_path, ClipTransform(), None, leave_out=True)
    assert [sample.id for sample in data.samples] == ["0002"]
    with pytest.raises(MatrixError, match=r"3 of 3 clips.*0002: the clip gives 5 frames"):
        open_clips(dataset_path, ClipTransform(num_frames=9), None, leave_out=True)


def test_squeezed_clips_are_told(dataset_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"0001: squeezed 1\.60 times.*3 of 3 clips are"):
        open_clips(dataset_path, ClipTransform(size=(8, 16)), None)
