"""Inputs by content: what a config reads, and what counts as changed."""

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from pydantic import BaseModel

from matrix_video import cli
from matrix_video.services import inputs
from matrix_video.services.errors import MatrixError
from matrix_video.services.inputs import Contents, check_same, input_paths, read_inputs

NOTHING: Contents = {}


class Config(BaseModel):
    data: Path
    labels: Path | None = None
    more: tuple[Path, ...] = ()
    model: str = "tiny"
    title: str = "x"
    out: Path = Path("out")
    cache: Path | None = None


def _fill(folder: Path) -> Config:
    """A data set, a file, two folders that are no data sets, and a model."""
    config = Config(
        data=folder / "data",
        labels=folder / "labels.csv",
        more=(folder / "maps", folder / "adapter"),
        model=str(folder / "model"),
        title=str(folder / "maps"),
        out=folder / "data/out",
        cache=folder / "cache",
    )
    files = ("data/metadata.jsonl", "data/videos/a.mp4", "labels.csv", "maps/a.png", "adapter/w")
    for name in (*files, "model/weights", "data/out/scores.json", "cache/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return config


def _read(config: Config, known: Contents = NOTHING) -> Contents:
    return read_inputs(input_paths(config), config.out, known)


def test_every_path_that_is_not_written_is_read(tmp_path: Path) -> None:
    found = _read(_fill(tmp_path))
    assert {setting: list(files) for setting, files in found.items()} == {
        "data": ["metadata.jsonl", "videos/a.mp4"],
        "labels": [""],
        "more/0": ["a.png"],
        "more/1": ["w"],
        "model": ["weights"],
    }


def test_no_command_has_a_path_of_another_kind() -> None:
    """An option for a path is an input by its type, or is named as written; a model by its name."""
    for name in cli.COMMANDS:
        for field in getattr(cli._config_class(name), "model_fields", {}):
            written = field in inputs.WRITTEN
            assert written == (field in {"out", "cache"}), (name, field)
            assert ("model" in field) <= (field in inputs.MODELS), (name, field)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: (f / "data/videos/a.mp4").write_text("other"), "data: videos/a.mp4 has changed"),
        (lambda f: (f / "data/metadata.jsonl").unlink(), "data: metadata.jsonl is gone"),
        (lambda f: (f / "labels.csv").write_text("other"), r"labels: labels\.csv has changed"),
        (lambda f: (f / "maps/b.png").write_text("new"), r"more/0: b\.png is new"),
        (lambda f: (f / "adapter/w").rename(f / "adapter/v"), r"more/1: w is gone .*1 other file"),
        (lambda f: (f / "model/weights").write_text("other"), "model: weights has changed"),
        # What changes no content is passed over.
        (lambda f: (f / "data/videos/a.mp4").touch(), None),
        (lambda f: (f / "data/videos/b.mp4").write_text("metadata does not list it"), None),
        (lambda f: (f / "maps/.partial-1-x.png").write_text("temporary"), None),
        (lambda f: (f / "maps/.DS_Store").write_text("hidden"), None),
        (lambda f: (f / "data/out/scores.json").write_text("our own result"), None),
        (lambda f: (f / "cache/y").write_text("a cache"), None),
        (lambda f: (f / "maps/loop").symlink_to(f / "maps"), None),
        (lambda f: os.mkfifo(f / "maps/pipe"), None),
        (lambda f: (f / "data").rename(f / "moved"), None),
    ],
)
def test_a_change_of_content_is_refused_by_name(
    tmp_path: Path, change: Callable[[Path], object], told: str | None
) -> None:
    config = _fill(tmp_path)
    known = _read(config)
    change(tmp_path)
    refused = nullcontext()
    if told is not None:
        match = told.replace(" .*", " since this run began.*")
        refused = pytest.raises(MatrixError, match=match)
    with refused:
        check_same(input_paths(config), known, _read(config, known))


def test_of_a_run_folder_its_results_are_read(tmp_path: Path) -> None:
    run = tmp_path / "run"
    names = ("config.yaml", "environment.json", "metrics.jsonl", "done/x.json", "dataset/a.mp4")
    for name in (*names, "nested/config.yaml", "nested/scores.json", ".lock"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("")
    found = read_inputs({"videos": run}, tmp_path / "out", {})
    assert list(found["videos"]) == ["config.yaml", "dataset/a.mp4"]


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _fill(tmp_path)

    def refused(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(inputs, "sha256_file", refused)
    with pytest.raises(MatrixError, match=r"data: data: .*metadata.jsonl cannot be read \(Perm"):
        _read(config)


def test_reading_gigabytes_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _fill(tmp_path)
    _read(config)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(inputs, "_LONG", 10)
    _read(config)
    assert capsys.readouterr().err == "read inputs: 6/6\n"


def test_large_files_are_hashed_once_and_seen_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, hashed = tmp_path / "a.mp4", []
    file.write_bytes(b"a" * 2**20)
    real = inputs.sha256_file

    def counted(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(inputs, "sha256_file", counted)
    fresh = read_inputs({"v": tmp_path}, tmp_path / "out", {})
    later = time.time() + 60
    monkeypatch.setattr(inputs.time, "time", lambda: later)
    known = read_inputs({"v": tmp_path}, tmp_path / "out", fresh)
    assert len(hashed) == 2  # so fresh a file may still change unseen
    assert read_inputs({"v": tmp_path}, tmp_path / "out", known) == known
    assert len(hashed) == 2
    stamp = file.stat()
    with file.open("r+b") as opened:
        opened.write(b"b")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # same size, inode and time
    with pytest.raises(MatrixError, match=r"v: a\.mp4 has changed"):
        check_same({"v": tmp_path}, known, read_inputs({"v": tmp_path}, tmp_path / "out", known))
