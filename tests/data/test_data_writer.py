from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.data.sample import Sample
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.video import read_video
from matrix_video.services.errors import MatrixError

Add = Callable[..., None]
IDS = ["0001", "0002", "0003", "0004"]


@pytest.fixture
def add(
    make_sample: Callable[[str], Sample], frames_THWC: np.ndarray, tracks: dict[str, MaskTrack]
) -> Add:
    """Add a clip of this id; what is given replaces the parts of the usual one."""

    def add(writer: DatasetWriter, id: str, **parts: Any) -> None:
        values = {"frames_THWC": frames_THWC, "fps": 8.0, "tracks": tracks, "lossless": True}
        writer.add(**({"sample": make_sample(id)} | values | parts))

    return add


def files(path: Path) -> dict[str, bytes]:
    found = sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in found}


def ids(path: Path) -> list[str]:
    return [sample.id for sample in Dataset(path).samples]


def write(path: Path, add: Add, stop: str | None = None) -> list[str]:
    written = []
    with DatasetWriter(path) as writer:
        for name in IDS:
            if name == stop:
                raise KeyboardInterrupt
            if not writer.has(name):
                add(writer, name)
                written.append(name)
    return written


def test_an_interrupted_writer_goes_on_to_the_same_bytes(tmp_path: Path, add: Add) -> None:
    assert write(tmp_path / "whole", add) == IDS
    names = ["metadata.jsonl"]
    names += [f"tracks/{name}.json" for name in IDS]
    names += [f"videos/{name}.mp4" for name in IDS]
    assert list(files(tmp_path / "whole")) == names
    path = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        write(path, add, stop="0003")
    with pytest.raises(MatrixError, match=r"the data set is unfinished.* Run the command"):
        Dataset(path)
    assert write(path, add) == IDS[2:]
    assert files(path) == files(tmp_path / "whole")


def test_torn_journal_and_lost_files_are_written_again(tmp_path: Path, add: Add) -> None:
    path = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        write(path, add, stop="0004")
    with (path / "metadata.partial.jsonl").open("ab") as journal:
        journal.write(b'{"id":"0004","file_na')
    (path / "tracks" / "0003.json").unlink()
    assert write(path, add) == ["0003", "0004"]
    assert ids(path) == IDS
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


def test_finished_data_set_is_left_alone_or_appended_to(dataset_path: Path, add: Add) -> None:
    before = files(dataset_path)
    stamp = (dataset_path / "metadata.jsonl").stat().st_mtime_ns
    with DatasetWriter(dataset_path) as writer:
        assert len(writer) == 3
        assert not writer.has("0004")
    with pytest.raises(KeyError), DatasetWriter(dataset_path):
        raise KeyError
    assert files(dataset_path) == before
    assert (dataset_path / "metadata.jsonl").stat().st_mtime_ns == stamp
    assert write(dataset_path, add) == IDS[3:]
    assert ids(dataset_path) == IDS


def test_a_failed_writer_that_added_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError), DatasetWriter(tmp_path / "new"):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_threads_add_at_once_and_the_order_is_the_same(tmp_path: Path, add: Add) -> None:
    wanted = [f"c{i}" for i in range(24)]
    orders = ("a", wanted, 1), ("b", wanted[::-1], 8), ("c", wanted[12:] + wanted, 8)
    for name, added, threads in orders:
        with DatasetWriter(tmp_path / name) as writer, ThreadPoolExecutor(threads) as pool:

            def added_once(id: str, writer: DatasetWriter = writer) -> bool:
                try:
                    add(writer, id)
                except MatrixError as error:
                    return error.problem != f"the data set has a clip {id!r} already"
                return True

            assert sum(pool.map(added_once, added)) == 24
    assert ids(tmp_path / "a") == wanted  # c2 before c10
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(tmp_path / "c")


def test_a_given_order_comes_first_and_finished_samples_stay(tmp_path: Path, add: Add) -> None:
    for new in (["0004", "0001"], ["0003", "0002", "0005"]):
        with DatasetWriter(tmp_path / "a", order=["0005", "0003"]) as writer:
            for name in new:
                add(writer, name)
    assert ids(tmp_path / "a") == ["0001", "0004", "0005", "0003", "0002"]


def test_a_second_writer_is_refused(tmp_path: Path, add: Add) -> None:
    path = tmp_path / "a"
    with DatasetWriter(path) as writer:
        with (
            pytest.raises(MatrixError, match=r"process \d+ is using this folder"),
            DatasetWriter(path),
        ):
            raise AssertionError
        add(writer, "0001")
    assert ids(path) == ["0001"]
    assert not (path / ".lock").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "videos/0002.mp4").unlink(), "the video or track file of '0002'"),
        (lambda path: (path / "metadata.jsonl").write_text("{}\n"), "line 1: id: Field required"),
    ],
)
def test_a_broken_data_set_is_refused_and_stays(
    dataset_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(dataset_path)
    before = files(dataset_path)
    with pytest.raises(MatrixError, match=rf"metadata\.jsonl: {message}"):
        DatasetWriter(dataset_path).__enter__()
    assert files(dataset_path) == before


def test_refused_clips_leave_nothing(
    tmp_path: Path,
    add: Add,
    frames_THWC: np.ndarray,
    sample: Sample,
    tracks: dict[str, MaskTrack],
) -> None:
    shared = sample.model_copy(update={"id": "0002"})
    refused: list[tuple[str, dict[str, Any], str]] = [
        ("0001", {}, "id: the data set has a clip '0001' already"),
        ("0002", {"sample": shared}, "'0001' and '0002' share the video file"),
        ("0002", {"frames_THWC": frames_THWC[:, :6]}, "0002: the masks of id1 are 5 frames of 8x1"),
        ("0002", {"frames_THWC": frames_THWC[:4]}, "but the video has 4 of 8x10"),
        ("0002", {"tracks": {"id9": tracks["id1"]}}, "0002: the track id9 names no instance"),
        (
            "0002",
            {"frames_THWC": frames_THWC[:, :7], "tracks": {}, "lossless": False},
            "needs even sizes, got 7x10",
        ),
    ]
    with DatasetWriter(tmp_path / "a") as writer:
        add(writer, "0001")
        before = files(tmp_path / "a")
        for name, parts, message in refused:
            with pytest.raises(MatrixError, match=message):
                add(writer, name, **parts)
        (tmp_path / "broken.mp4").write_bytes(b"nothing")
        with pytest.raises(MatrixError, match=r"broken\.mp4: the video is damaged"):
            writer.add_file(shared, tmp_path / "broken.mp4", tracks)
        assert files(tmp_path / "a") == before
        add(writer, "0002")
    assert ids(tmp_path / "a") == ["0001", "0002"]


def test_journal_that_cannot_be_written(tmp_path: Path, add: Add) -> None:
    path = tmp_path / "a"
    journal = path / "metadata.partial.jsonl"
    writer = DatasetWriter(path).__enter__()
    add(writer, "0001")
    journal.rename(path / "kept")
    journal.mkdir()
    with pytest.raises(MatrixError, match=r"partial\.jsonl: cannot be written \(Is a dir.*Free"):
        add(writer, "0002")
    journal.rmdir()
    (path / "kept").rename(journal)
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert write(path, add) == IDS[1:]


def test_writer_must_be_entered(tmp_path: Path, add: Add) -> None:
    with pytest.raises(ValueError, match="must be entered with 'with'"):
        add(DatasetWriter(tmp_path / "a"), "0001")
    assert not list(tmp_path.iterdir())
