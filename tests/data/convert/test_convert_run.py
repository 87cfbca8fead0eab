"""Stopped and repeated runs."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from matrix_video.data.convert import convert, to_authors
from matrix_video.data.convert.run import STORE
from matrix_video.services.errors import MatrixError


def start(source: Path, target: Path) -> int:
    """A process that converts; its number."""
    child = os.fork()
    if not child:
        convert(source, target)
        os._exit(0)
    return child


def many(authors: Path, count: int) -> None:
    """More clips of the same kind."""
    rows = ["video,prompt"]
    for n in range(count):
        shutil.copy(authors / "videos" / "000001.mp4", authors / "videos" / f"9{n:05d}.mp4")
        masks = authors / "mask_annotation"
        shutil.copytree(masks / "000001", masks / f"9{n:05d}")
        rows.append(f"9{n:05d}.mp4,a <id1> man hands a cup to a <id3> woman")
    (authors / "metadata.csv").write_text("\n".join(rows) + "\n")


def test_killed_ten_times_gives_the_same_bytes(tmp_path: Path, authors: Path, kit: Any) -> None:
    many(authors, 20)
    rng = random.Random(5)
    steps = (authors, tmp_path / "middle"), (tmp_path / "middle", tmp_path / "back")
    for source, target in steps:
        kills = 0
        while kills < 5:
            child = start(source, target)
            time.sleep(rng.random() * 0.12)
            os.kill(child, signal.SIGKILL)
            if os.waitpid(child, 0)[1] == 0:
                break  # it was faster than we
            kills += 1
        if not target.exists() or (target / STORE).is_file():
            convert(source, target)
        convert(source, tmp_path / "undisturbed")
        assert kit.contents(target) == kit.contents(tmp_path / "undisturbed")
        shutil.rmtree(tmp_path / "undisturbed")
        assert kills >= 3


def interrupted(source: Path, target: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a conversion to the authors' layout when so many clips are written."""
    done = 0
    make = to_authors.ToAuthors.make

    def one(self: to_authors.ToAuthors, index: int) -> object:
        nonlocal done
        if done == after:
            raise KeyboardInterrupt
        done += 1
        return make(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(to_authors.ToAuthors, "make", one)
        with pytest.raises(KeyboardInterrupt):
            convert(source, target)


def test_only_what_changed_is_converted_again(
    dataset_path: Path, tmp_path: Path, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    interrupted(dataset_path, target, 2, monkeypatch)
    done = target / "mask_annotation" / "0001" / "<id1>" / "000.png"
    done.write_bytes(b"untouched")
    tracks = dataset_path / "tracks" / "0002.json"
    before = tracks.stat()
    tracks.write_text(tracks.read_text().replace('"id2"', '"id3"').replace('"id1"', '"id2"'))
    tracks.write_text(tracks.read_text().replace('"id3"', '"id1"'))
    os.utime(tracks, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time
    convert(dataset_path, target)
    assert done.read_bytes() == b"untouched"
    convert(dataset_path, tmp_path / "undisturbed")
    changed = kit.contents(tmp_path / "undisturbed")
    folder = "mask_annotation/0002"
    assert {n: c for n, c in kit.contents(target).items() if folder in n} == {
        n: c for n, c in changed.items() if folder in n
    }


def test_an_unfinished_target_of_other_data_is_refused(
    dataset_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(dataset_path, tmp_path / "target", 1, monkeypatch)
    with pytest.raises(MatrixError, match=r"unfinished: it still has convert\.sqlite"):
        convert(tmp_path / "target", tmp_path / "further")
    metadata = dataset_path / "metadata.jsonl"
    metadata.write_text(metadata.read_text().replace("small", "large"))
    with pytest.raises(MatrixError, match="an unfinished conversion of other data"):
        convert(dataset_path, tmp_path / "target")


def test_a_full_disk_stops_and_leaves_no_clip_out(
    dataset_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "target"))

    with monkeypatch.context() as patch:
        patch.setattr(to_authors, "copy", full)
        with pytest.raises(MatrixError, match="no space is left on the device"):
            convert(dataset_path, tmp_path / "target")
    assert not convert(dataset_path, tmp_path / "target").left_out
