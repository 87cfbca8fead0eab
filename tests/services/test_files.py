"""Atomic files: whole or not there."""

import errno
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from matrix_video.services import files
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import (
    atomic_dir,
    atomic_path,
    clear_temporary,
    read_json,
    write_json,
)


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "clip.mp4"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".mp4"
        assert temporary.parent == target.parent
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert [path.name for path in target.parent.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize(
    ("error", "told", "match"),
    [
        (RuntimeError("boom"), RuntimeError, "boom"),
        (OSError(errno.ENOSPC, "No space"), MatrixError, r"a: no space is left.*free some space"),
        (OSError(errno.EDQUOT, "Quota"), MatrixError, r"a: no space is left.*free some space"),
        (OSError(errno.EACCES, "Denied", "/elsewhere"), PermissionError, "Denied"),  # not ours
    ],
)
@pytest.mark.parametrize("atomic", [atomic_path, atomic_dir])
def test_an_error_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, atomic: Any, error: Exception, told: type[Exception], match: str
) -> None:
    target = tmp_path / "a"
    if atomic is atomic_path:
        target.write_text("old")
    else:
        _written(target, "old")
    with pytest.raises(told, match=match), atomic(target) as temporary:
        part = temporary if atomic is atomic_path else temporary / "a"
        part.write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == [target]
    assert (target if atomic is atomic_path else target / "a").read_text() == "old"


def _written(path: Path, text: str) -> None:
    with atomic_dir(path) as folder:
        (folder / "a").write_text(text)
        (folder / "b").write_text(text)


@pytest.mark.parametrize(
    "content",
    ["{", "\xff", "[" * 100_000, '{"a":' * 100_000, "9" * 400, "-" + "9" * 5000, '["' + "9" * 400],
)
def test_broken_json_is_one_error_that_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content, encoding="latin-1")
    with pytest.raises(MatrixError, match=r"x\.json: this is not valid JSON.*restore the file"):
        read_json(tmp_path / "x.json")


def test_json_that_cannot_be_read_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MatrixError, match=r"y\.json: the file does not exist\. check the path"):
        read_json(tmp_path / "y.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(MatrixError, match=r"folder\.json: this is not valid JSON .*Is a directory"):
        read_json(tmp_path / "folder.json")
    (tmp_path / "x.json").write_text("[1, 2, 3]")
    monkeypatch.setattr(files, "_LARGEST", 8)
    with pytest.raises(MatrixError, match=r"x\.json: .*9 bytes, at most 8 are read"):
        read_json(tmp_path / "x.json")


def test_permission_is_asked_for_by_name(tmp_path: Path) -> None:
    with (
        pytest.raises(MatrixError, match=r"x: it cannot be written \(Read-only.*permissions"),
        atomic_path(tmp_path / "x") as temporary,
    ):
        raise OSError(errno.EROFS, "Read-only file system", str(temporary))


def test_threads_write_one_file_at_once(tmp_path: Path) -> None:
    target = tmp_path / ("a" * 250 + ".json")  # a temporary name must not be longer
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda i: write_json(target, [i] * 100), range(1200)))
    assert len(set(read_json(target))) == 1
    assert list(tmp_path.iterdir()) == [target]


def test_clearing_spares_what_living_processes_write(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("of another thread")
        left = tmp_path / f".partial-{os.getpid()}-a"  # of an earlier process with our number
        left.write_text("half")
        living = tmp_path / ".partial-1-b"
        living.write_text("of process 1")
        clear_temporary(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([temporary, living])
    assert (tmp_path / "a").read_text() == "of another thread"


def test_a_reader_always_finds_the_old_or_the_new_folder(tmp_path: Path) -> None:
    target, stop, missed = tmp_path / "out", threading.Event(), 0
    _written(target, "0")

    def read() -> None:
        nonlocal missed
        while not stop.is_set():
            missed += not target.is_dir()

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(300):
        _written(target, str(i))
    stop.set()
    reader.join()
    assert missed == 0
    assert list(tmp_path.iterdir()) == [target]


def _dying(step: int) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Wraps functions so that the process dies in front of their step-th call."""
    calls = itertools.count(1)

    def wrap(change: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            if next(calls) == step:
                os._exit(9)
            return change(*args, **kwargs)

        return call

    return wrap


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("swaps", [True, False])
def test_a_kill_between_any_two_steps_keeps_a_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool, again: bool
) -> None:
    if not swaps:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    died, step = 9, 0
    while died:
        step += 1
        target = tmp_path / str(step) / "out"
        _written(target, "old")
        child = os.fork()
        if child == 0:
            dying = _dying(step)
            for module, name in ((os, "replace"), (os, "unlink"), (os, "rmdir"), (os, "mkdir")):
                monkeypatch.setattr(module, name, dying(getattr(module, name)))
            monkeypatch.setattr(files, "_exchange", dying(files._exchange))
            _written(target, "new")
            os._exit(0)
        died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert target.is_dir() or not swaps
        if again:
            _written(target, "new")
        clear_temporary(target.parent)
        assert list(target.parent.iterdir()) == [target]
        assert sorted(path.name for path in target.iterdir()) == ["a", "b"]
        assert len({path.read_text() for path in target.iterdir()}) == 1
    assert step > 4
