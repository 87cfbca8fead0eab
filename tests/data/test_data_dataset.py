from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from matrix_video.data.dataset import Dataset
from matrix_video.data.survey import survey_clips
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
        assert clip.sample == dataset.sample(index) == dataset.samples[index]
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
    wanted = transform.clip(plain[1])
    assert wanted.video.frames_THWC.shape == (3, 4, 4, 3)
    assert np.array_equal(dataset[1].video.frames_THWC, wanted.video.frames_THWC)
    assert np.array_equal(dataset.video(1).frames_THWC, wanted.video.frames_THWC)
    assert dataset[1].tracks == dataset.tracks(1) == wanted.tracks


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


def edit_tracks(dataset_path: Path, id: str, **values: object) -> None:
    path = dataset_path / "tracks" / f"{id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_instance_without_a_track(dataset_path: Path, tracks: dict[str, MaskTrack]) -> None:
    edit_tracks(dataset_path, "0002", instances={"id2": tracks["id2"].to_json()})
    dataset = Dataset(dataset_path)
    assert dataset.tracks(1, ["id2"]) == {"id2": tracks["id2"]}
    assert dataset.tracks(1, []) == {}
    message = (
        r"tracks/0002\.json: instances\.id1: instance 'id1' of sample '0002' has no track, but the "
        r"caption mentions it\. Track this instance"
    )
    with pytest.raises(MatrixError, match=message):
        dataset.tracks(1)
    with pytest.raises(MatrixError, match=message):
        dataset[1]


def test_masks_of_another_size_or_length(
    dataset_path: Path, frames_THWC: np.ndarray, tracks: dict[str, MaskTrack]
) -> None:
    video = dataset_path / "videos" / "0001.mp4"
    write_video(video, frames_THWC[:, :, :9], 8.0, lossless=True)
    message = r"0001\.json: size: the masks have 8x10, .*0001\.mp4 has 8x9 .*this very video"
    with pytest.raises(MatrixError, match=message):
        Dataset(dataset_path)[0]
    write_video(video, frames_THWC[:4], 8.0, lossless=True)
    for load in (Dataset.__getitem__, Dataset.tracks):
        with pytest.raises(MatrixError, match=r"0001\.json: num_frames: the masks have 5, but"):
            load(Dataset(dataset_path), 0)


def test_transform_errors_name_the_video(dataset_path: Path) -> None:
    dataset = Dataset(dataset_path, ClipTransform(num_frames=6))
    message = r"videos/0002\.mp4: num_frames: the clip gives 5 frames"
    for load in (Dataset.__getitem__, Dataset.tracks, Dataset.video):
        with pytest.raises(MatrixError, match=message):
            load(dataset, 1)


def test_folders_that_are_no_data_set(tmp_path: Path, dataset_path: Path) -> None:
    with pytest.raises(MatrixError, match=r"gone: there is no such folder\. Give the folder"):
        Dataset(tmp_path / "gone")
    (dataset_path / "metadata.jsonl").rename(dataset_path / "metadata.partial.jsonl")
    with pytest.raises(MatrixError, match=r"the data set is unfinished.* Run the command"):
        Dataset(dataset_path)
    (dataset_path / "metadata.partial.jsonl").unlink()
    with pytest.raises(MatrixError, match=r"the folder has no metadata\.jsonl"):
        Dataset(dataset_path)


def test_broken_metadata_names_line_and_field(dataset_path: Path) -> None:
    file = dataset_path / "metadata.jsonl"
    lines = file.read_text().splitlines()
    lines[1] = lines[1].replace('"subject":"id1"', '"subject":"id5"')
    file.write_text("\n".join(lines))
    with pytest.raises(MatrixError, match=r"metadata\.jsonl: line 2: interactions\[0\]\.subject"):
        Dataset(dataset_path)


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


def test_a_survey_tells_every_clip_before_any_is_decoded(dataset_path: Path) -> None:
    (dataset_path / "videos/0002.mp4").write_bytes(b"no video")
    found = survey_clips(Dataset(dataset_path, ClipTransform(num_frames=4, size=(8, 16))))
    assert {i: (s.num_frames, s.height, s.width) for i, s in found.shapes.items()} == {
        0: (4, 8, 16),
        2: (4, 8, 16),
    }
    assert list(found.refused) == [1]
    assert "cannot be opened" in str(found.refused[1])
    assert found.notes == (
        "0001: squeezed 1.60 times in aspect to 8x16; crop it before, or choose another --height "
        "and --width (2 of 3 clips are)",
    )
    short = survey_clips(Dataset(dataset_path, ClipTransform(num_frames=9)))
    assert sorted(short.refused) == [0, 1, 2]
