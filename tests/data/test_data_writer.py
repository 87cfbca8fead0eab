from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.data.sample import Sample
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.video import read_video
from matrix_video.services.errors import MatrixError

Maker = Callable[[str], Sample]
Tracks = dict[str, MaskTrack]
IDS = ["0001", "0002", "0003", "0004"]


def files(path: Path) -> dict[str, bytes]:
    found = sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in found}


def write(
    path: Path, make: Maker, frames: np.ndarray, tracks: Tracks, stop: str | None = None
) -> list[str]:
    written = []
    with DatasetWriter(path) as writer:
        for name in IDS:
            if name == stop:
                raise KeyboardInterrupt
            if not writer.has(name):
                writer.add(make(name), frames, 8.0, tracks, lossless=True)
                written.append(name)
    return written


def test_layout(
    tmp_path: Path, make_sample: Maker, frames_THWC: np.ndarray, tracks: Tracks
) -> None:
    assert write(tmp_path / "a", make_sample, frames_THWC, tracks) == IDS
    names = ["metadata.jsonl"]
    names += [f"tracks/{name}.json" for name in IDS]
    names += [f"videos/{name}.mp4" for name in IDS]
    assert list(files(tmp_path / "a")) == names


def test_interrupted_writer_goes_on_to_the_same_bytes(
    tmp_path: Path, make_sample: Maker, frames_THWC: np.ndarray, tracks: Tracks
) -> None:
    write(tmp_path / "whole", make_sample, frames_THWC, tracks)
    path = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        write(path, make_sample, frames_THWC, tracks, stop="0003")
    assert not (path / "metadata.jsonl").exists()
    with pytest.raises(MatrixError, match="the data set is unfinished"):
        Dataset(path)
    assert write(path, make_sample, frames_THWC, tracks) == IDS[2:]
    assert files(path) == files(tmp_path / "whole")


def test_torn_journal_and_lost_files_are_written_again(
    tmp_path: Path, make_sample: Maker, frames_THWC: np.ndarray, tracks: Tracks
) -> None:
    path = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        write(path, make_sample, frames_THWC, tracks, stop="0004")
    with (path / "metadata.partial.jsonl").open("ab") as journal:
        journal.write(b'{"id":"0004","file_na')
    (path / "tracks" / "0003.json").unlink()
    assert write(path, make_sample, frames_THWC, tracks) == ["0003", "0004"]
    assert [sample.id for sample in Dataset(path).samples] == IDS
    assert not (path / "metadata.partial.jsonl").exists()


KILLED = """
import sys
from pathlib import Path
import numpy as np
from matrix_video.data.dataset import DatasetWriter
from matrix_video.data.sample import Sample
frames = np.random.default_rng(0).integers(0, 256, (16, 128, 128, 3), dtype=np.uint8)
with DatasetWriter(Path(sys.argv[1])) as writer:
    for index in range(10_000):
        id = f"c{index}"
        writer.add(Sample(id=id, file_name=f"videos/{id}.mp4", caption=""), frames, 8.0, {})
        print(id, flush=True)
"""


def test_killed_writer_leaves_no_partial_file_under_a_final_name(tmp_path: Path) -> None:
    path = tmp_path / "dataset"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(3):
            last = process.stdout.readline().strip()
        os.kill(process.pid, signal.SIGKILL)
    assert last == "c2"
    for video in (path / "videos").glob("c*.mp4"):
        assert len(read_video(video)) == 16
    with DatasetWriter(path) as writer:
        assert all(writer.has(f"c{index}") for index in range(3))
        count = len(writer)
    dataset = Dataset(path)
    assert len(dataset) == count
    assert len(dataset[count - 1].video) == 16


def test_finished_data_set_is_left_alone_or_appended_to(
    dataset_path: Path, make_sample: Maker, frames_THWC: np.ndarray, tracks: Tracks
) -> None:
    before = files(dataset_path)
    stamp = (dataset_path / "metadata.jsonl").stat().st_mtime_ns
    with DatasetWriter(dataset_path) as writer:
        assert len(writer) == 3
        assert not writer.has("0004")
    assert files(dataset_path) == before
    assert (dataset_path / "metadata.jsonl").stat().st_mtime_ns == stamp
    with DatasetWriter(dataset_path) as writer:
        writer.add(make_sample("0004"), frames_THWC, 8.0, tracks, lossless=True)
    assert [sample.id for sample in Dataset(dataset_path).samples] == IDS


@pytest.mark.parametrize("finished", [True, False])
def test_a_writer_that_added_nothing_leaves_the_folder_as_it_was(
    tmp_path: Path, dataset_path: Path, finished: bool
) -> None:
    path = dataset_path if finished else tmp_path / "new"
    before = files(path) if finished else {}
    with pytest.raises(KeyError), DatasetWriter(path):
        raise KeyError
    assert files(path) == before


def test_threads_add_at_once_and_the_order_is_the_same(
    tmp_path: Path, make_sample: Maker, frames_THWC: np.ndarray, tracks: Tracks
) -> None:
    ids = [f"c{i}" for i in range(24)]
    for name, added, threads in (("a", ids, 1), ("b", ids[::-1], 8), ("c", ids[12:] + ids, 8)):
        with DatasetWriter(tmp_path / name) as writer, ThreadPoolExecutor(threads) as pool:

            def add(id: str, writer: DatasetWriter = writer) -> bool:
                try:
                    writer.add(make_sample(id), frames_THWC, 8.0, tracks, lossless=True)
                except MatrixError as error:
                    return error.problem != f"the data set has a clip {id!r} already"
                return True

            assert sum(pool.map(add, added)) == 24
    assert [sample.id for sample in Dataset(tmp_path / "a").samples] == ids  # c2 before c10
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(tmp_path / "c")


def test_a_given_order_comes_first_and_finished_samples_stay(
    tmp_path: Path, make_sample: Maker, frames_THWC: np.ndarray, tracks: Tracks
) -> None:
    for new in (["0004", "0001"], ["0003", "0002", "0005"]):
        with DatasetWriter(tmp_path / "a", order=["0005", "0003"]) as writer:
            for name in new:
                writer.add(make_sample(name), frames_THWC, 8.0, tracks, lossless=True)
    samples = Dataset(tmp_path / "a").samples
    assert [sample.id for sample in samples] == ["0001", "0004", "0005", "0003", "0002"]


def test_a_second_writer_is_refused(
    tmp_path: Path, sample: Sample, frames_THWC: np.ndarray, tracks: Tracks
) -> None:
    path = tmp_path / "a"
    with DatasetWriter(path) as writer:
        with (
            pytest.raises(MatrixError, match=r"process \d+ is using this folder"),
            DatasetWriter(path),
        ):
            raise AssertionError
        writer.add(sample, frames_THWC, 8.0, tracks, lossless=True)
    assert len(Dataset(path)) == 1
    assert not (path / ".lock").exists()


def test_finished_data_set_with_missing_files_is_refused(dataset_path: Path) -> None:
    (dataset_path / "videos" / "0002.mp4").unlink()
    with (
        pytest.raises(MatrixError, match=r"metadata\.jsonl: the video or track file of '0002'"),
        DatasetWriter(dataset_path),
    ):
        pass


def test_broken_metadata_is_refused(dataset_path: Path) -> None:
    (dataset_path / "metadata.jsonl").write_text("{}\n")
    with (
        pytest.raises(MatrixError, match=r"metadata\.jsonl: line 1: id: Field required"),
        DatasetWriter(dataset_path),
    ):
        pass
    assert (dataset_path / "metadata.jsonl").read_text() == "{}\n"


def test_files_are_copied_byte_by_byte(
    tmp_path: Path, dataset_path: Path, make_sample: Maker, tracks: Tracks
) -> None:
    source = dataset_path / "videos" / "0001.mp4"
    with DatasetWriter(tmp_path / "copy") as writer:
        writer.add_file(make_sample("0007"), source, tracks)
    dataset = Dataset(tmp_path / "copy")
    assert dataset.video_path(0).read_bytes() == source.read_bytes()
    assert dataset[0].tracks == tracks


def test_some_instances_may_have_no_track(
    tmp_path: Path, sample: Sample, frames_THWC: np.ndarray, tracks: Tracks
) -> None:
    with DatasetWriter(tmp_path / "a") as writer:
        writer.add(sample, frames_THWC, 8.0, {"id2": tracks["id2"]}, lossless=True)
    assert Dataset(tmp_path / "a").tracks(0, ["id2"]) == {"id2": tracks["id2"]}


def test_refused_clips_leave_nothing(
    tmp_path: Path,
    make_sample: Maker,
    frames_THWC: np.ndarray,
    tracks: Tracks,
    dataset_path: Path,
) -> None:
    sample = make_sample("0002")
    with DatasetWriter(tmp_path / "a") as writer:
        writer.add(make_sample("0001"), frames_THWC, 8.0, tracks, lossless=True)
        before = files(tmp_path / "a")
        with pytest.raises(MatrixError, match="id: the data set has a clip '0001' already"):
            writer.add(make_sample("0001"), frames_THWC, 8.0, tracks, lossless=True)
        shared = sample.model_copy(update={"file_name": "videos/0001.mp4"})
        with pytest.raises(MatrixError, match="'0001' and '0002' share the video file"):
            writer.add(shared, frames_THWC, 8.0, tracks, lossless=True)
        with pytest.raises(MatrixError, match="0002: id1: the masks are 5 frames of 8x10, but the"):
            writer.add(sample, frames_THWC[:, :6], 8.0, tracks, lossless=True)
        with pytest.raises(MatrixError, match="but the video has 4 of 8x10"):
            writer.add(sample, frames_THWC[:4], 8.0, tracks, lossless=True)
        with pytest.raises(MatrixError, match="0002: id9: the track names no instance; the clip"):
            writer.add(sample, frames_THWC, 8.0, {"id9": tracks["id1"]}, lossless=True)
        with pytest.raises(MatrixError, match="needs even sizes, got 7x10"):
            writer.add(sample, frames_THWC[:, :7], 8.0, {})
        broken = tmp_path / "broken.mp4"
        broken.write_bytes(b"nothing")
        with pytest.raises(MatrixError, match=r"broken\.mp4: the video is damaged"):
            writer.add_file(sample, broken, tracks)
        assert files(tmp_path / "a") == before
        writer.add(sample, frames_THWC, 8.0, tracks, lossless=True)
    assert len(Dataset(tmp_path / "a")) == 2


def test_journal_that_cannot_be_written(
    tmp_path: Path, make_sample: Maker, frames_THWC: np.ndarray, tracks: Tracks
) -> None:
    path = tmp_path / "a"
    journal = path / "metadata.partial.jsonl"
    writer = DatasetWriter(path).__enter__()
    writer.add(make_sample("0001"), frames_THWC, 8.0, tracks, lossless=True)
    journal.rename(path / "kept")
    journal.mkdir()
    with pytest.raises(MatrixError, match=r"partial\.jsonl: cannot be written \(Is a dir.*Free"):
        writer.add(make_sample("0002"), frames_THWC, 8.0, tracks, lossless=True)
    journal.rmdir()
    (path / "kept").rename(journal)
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert write(path, make_sample, frames_THWC, tracks) == IDS[1:]


def test_writer_must_be_entered(
    tmp_path: Path, sample: Sample, frames_THWC: np.ndarray, tracks: Tracks
) -> None:
    with pytest.raises(ValueError, match="must be entered with 'with'"):
        DatasetWriter(tmp_path / "a").add(sample, frames_THWC, 8.0, tracks, lossless=True)
