from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from matrix_video.data.dataset import Clip, Dataset, DatasetWriter, open_clips
from matrix_video.data.trackfile import TrackFile, write_tracks
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.transform import ClipTransform
from matrix_video.data.video import write_video
from matrix_video.services.errors import MatrixError


def test_clips_come_back_exactly(
    dataset_path: Path, frames_THWC: np.ndarray, tracks: dict[str, MaskTrack]
) -> None:
    dataset = Dataset(dataset_path)
    assert len(dataset) == 3
    assert [sample.id for sample in dataset.samples] == ["0001", "0002", "0003"]
    for index, clip in enumerate(dataset):
        assert clip.sample == dataset.samples[index]
        assert np.array_equal(clip.video.frames_THWC, frames_THWC)
        assert clip.video.times.tolist() == [0, 0.125, 0.25, 0.375, 0.5]
        assert clip.tracks == tracks == dataset.tracks(index)
        assert np.array_equal(dataset.video(index).frames_THWC, frames_THWC)
    assert dataset.track_path(-1) == dataset_path / "tracks" / "0003.json"
    with pytest.raises(IndexError):
        dataset[3]


def test_slices_and_subsets(dataset_path: Path) -> None:
    transform = ClipTransform(num_frames=2)
    dataset = Dataset(dataset_path, transform)
    assert [clip.sample.id for clip in dataset[1:]] == ["0002", "0003"]
    subset = dataset.subset(["0003", "0001"])
    assert [sample.id for sample in subset.samples] == ["0003", "0001"]
    assert len(subset[0].video) == 2
    assert len(dataset) == 3
    with pytest.raises(MatrixError, match=r"has no clip '0009' among its 3"):
        dataset.subset(["0001", "0009"])


def test_transform_acts_on_every_way_in(dataset_path: Path) -> None:
    transform = ClipTransform(fps=4, crop=(0, 2, 8, 8), size=(4, 4))
    plain, dataset = Dataset(dataset_path), Dataset(dataset_path, transform)
    clip = dataset[1]
    assert clip.video.frames_THWC.shape == (3, 4, 4, 3)
    assert clip.video.times.tolist() == [0.0, 0.25, 0.5]
    assert np.array_equal(dataset.video(1).frames_THWC, clip.video.frames_THWC)
    assert np.array_equal(dataset.first_frame(1), clip.video.frames_THWC[0])
    whole = plain[1]
    moved = {
        name: transform.track(track, whole.video.times) for name, track in whole.tracks.items()
    }
    assert clip.tracks == dataset.tracks(1) == moved
    assert [state.value for state in moved["id1"].states] == ["visible", "visible", "unknown"]


def test_a_clip_refuses_tracks_that_do_not_fit(dataset_path: Path) -> None:
    clip, short = Dataset(dataset_path)[0], Dataset(dataset_path, ClipTransform(num_frames=4))[0]
    with pytest.raises(ValueError, match=r"'id1' of 0001: 5 frames of .*but the video has 4"):
        Clip(clip.sample, short.video, clip.tracks)
    with pytest.raises(ValueError, match="track 'id7' of 0001 names no instance"):
        Clip(clip.sample, clip.video, {"id7": clip.tracks["id1"]})


def test_pixels_are_read_only_when_asked_for(
    dataset_path: Path, tracks: dict[str, MaskTrack]
) -> None:
    shutil.rmtree(dataset_path / "tracks")
    (dataset_path / "videos" / "0003.mp4").unlink()
    dataset = Dataset(dataset_path)
    assert len(dataset.video(0)) == 5
    with pytest.raises(MatrixError, match=r"tracks/0001\.json: there is no such track file"):
        dataset[0]
    with pytest.raises(MatrixError, match=r"videos/0003\.mp4: there is no such video file"):
        dataset.video(2)


def test_tracks_that_are_missing_or_of_another_video(
    dataset_path: Path, frames_THWC: np.ndarray, tracks: dict[str, MaskTrack]
) -> None:
    path = dataset_path / "tracks/0002.json"
    write_tracks(path, TrackFile((8, 10), 5, {"id2": tracks["id2"]}))
    write_video(dataset_path / "videos/0001.mp4", frames_THWC[:4], 8.0, lossless=True)
    for load in (Dataset.__getitem__, Dataset.tracks):
        message = r"0001\.json: the masks are 5 frames of 8x10, .*0001\.mp4 has 4 .*this very video"
        with pytest.raises(MatrixError, match=message):
            load(Dataset(dataset_path), 0)
        message = (
            r"0002\.json: instances\.id1: instance 'id1' of sample '0002' has no track, but th"
        )
        with pytest.raises(MatrixError, match=message):
            load(Dataset(dataset_path), 1)


def test_transform_errors_name_the_video(dataset_path: Path) -> None:
    dataset = Dataset(dataset_path, ClipTransform(num_frames=6))
    message = r"videos/0002\.mp4: num_frames: the clip gives 5 frames"
    for load in (Dataset.__getitem__, Dataset.tracks, Dataset.video):
        with pytest.raises(MatrixError, match=message):
            load(dataset, 1)


def test_content_key_is_of_all_that_a_clip_is_made_of(dataset_path: Path) -> None:
    dataset = Dataset(dataset_path)
    keys = [dataset.content_key(i) for i in range(3)]
    assert len(set(keys)) == 3
    assert [Dataset(dataset_path).subset(["0002"]).content_key(0)] == keys[1:2]
    assert Dataset(dataset_path, ClipTransform(num_frames=2)).content_key(0) != keys[0]
    for change in (dataset.video_path(0), dataset.track_path(1)):
        change.write_bytes(change.read_bytes() + b" ")
    metadata = dataset_path / "metadata.jsonl"
    metadata.write_text(metadata.read_text().replace('"0003"', '"0004"'))
    shutil.copy(dataset.track_path(2), dataset_path / "tracks" / "0004.json")
    again = Dataset(dataset_path)
    assert all(again.content_key(i) != keys[i] for i in range(3))
    dataset.track_path(0).unlink()
    with pytest.raises(MatrixError, match=r"0001\.json: a file of clip '0001' is missing"):
        dataset.content_key(0)
    dataset.video_path(1).unlink()
    with pytest.raises(MatrixError, match=r"0002\.mp4: a file of clip '0002' is missing"):
        dataset.content_key(1)


# Clips of a command


def test_the_first_clips_are_opened(dataset_path: Path, tmp_path: Path) -> None:
    assert len(open_clips(dataset_path, ClipTransform(), None)) == 3
    few = open_clips(dataset_path, ClipTransform(), 2)
    assert [sample.id for sample in few.samples] == ["0001", "0002"]
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
    message = (
        r"0001: squeezed 1\.60 times in aspect to 8x16; crop it before, or choose another --height "
        r"and --width \(3 of 3 clips are\)"
    )
    with pytest.warns(UserWarning, match=message):
        open_clips(dataset_path, ClipTransform(size=(8, 16)), None)
