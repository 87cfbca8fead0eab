"""Tiny world on disk: lossless, exact, resumable."""

from pathlib import Path

import numpy as np
import pytest

from matrix_video.data.dataset import Dataset
from matrix_video.services.errors import MatrixError
from matrix_video.world import write
from matrix_video.world.clips import make_clip
from matrix_video.world.write import write_split


def test_what_is_written_is_what_was_rendered(tmp_path: Path) -> None:
    seen: list[int] = []
    write_split(tmp_path / "w", 4, 5, "val", seen.append)
    assert sum(seen) == 4
    dataset = Dataset(tmp_path / "w")
    for index in range(4):
        clip = make_clip(5, "val", index)
        assert dataset.samples[index] == clip.sample
        assert np.array_equal(dataset.video(index).frames_THWC, clip.frames_THWC)
        tracks = dataset.tracks(index)
        for instance, masks_THW in zip(clip.sample.instances, clip.masks_RTHW, strict=True):
            assert np.array_equal(tracks[instance.id].masks(), masks_THW)


def test_an_interrupted_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_split(tmp_path / "whole", 4, 0, "val")
    rendered: list[int] = []

    def dying(seed: int, split: str, index: int):
        if len(rendered) == 2:
            raise KeyboardInterrupt
        rendered.append(index)
        return make_clip(seed, split, index)  # type: ignore[arg-type]

    monkeypatch.setattr(write, "make_clip", dying)
    with pytest.raises(KeyboardInterrupt):
        write_split(tmp_path / "cut", 4, 0, "val")
    assert not (tmp_path / "cut/metadata.jsonl").exists()
    monkeypatch.setattr(write, "make_clip", make_clip)
    write_split(tmp_path / "cut", 4, 0, "val")
    for path in sorted((tmp_path / "whole").rglob("*.*")):
        twin = tmp_path / "cut" / path.relative_to(tmp_path / "whole")
        assert path.read_bytes() == twin.read_bytes()


def test_a_folder_of_another_seed_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path, 1, 0, "val")
    with pytest.raises(MatrixError, match=r"another data set than split 'val' of seed 1"):
        write_split(tmp_path, 1, 1, "val")
