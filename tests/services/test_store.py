"""The work store: what is kept, what is done again, threads, processes and kills."""

import os
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from matrix_video.services.errors import MatrixError
from matrix_video.services.store import Result, Stage, State, Store, work_key

STAGE = Stage("judge", 1)
STATES: tuple[State, ...] = ("ok", "failed", "unscored", "filtered")


def test_the_file_appears_with_the_first_result(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "store.sqlite"
    with Store(path) as store:
        assert store.get(STAGE, "a") is None
        assert store.items(STAGE) == []
        assert list(tmp_path.iterdir()) == []
        store.put(STAGE, "a", Result("ok", 1))
    assert [file.name for file in path.parent.iterdir()] == ["store.sqlite"]


@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_results_come_back_as_they_were_and_are_not_made_again(
    tmp_path: Path, state: State, retry: bool
) -> None:
    given = Result(state, {"ä": [1, 2.5, None, "[/x]"]}, "because", 1.25, 300)
    with Store(tmp_path / "s") as store:
        assert store.once(STAGE, "key", lambda: given) == given
    with Store(tmp_path / "s") as store:
        assert store.items(STAGE) == [("key", given)]
        assert store.get(Stage("judge", 2), "key") is None
        assert store.get(Stage("other", 1), "key") is None
        again = store.once(STAGE, "key", lambda: Result("ok", 2, seconds=1), retry=retry)
        wanted = Result("ok", 2, seconds=1) if retry and state == "failed" else given
        assert again == store.get(STAGE, "key") == wanted


def test_our_errors_are_failed_items_and_others_pass_through(tmp_path: Path) -> None:
    def broken() -> Result:
        raise MatrixError("it is torn", remedy="mend it", file="x.mp4")

    def wrong() -> Result:
        raise ZeroDivisionError

    with Store(tmp_path / "s") as store:
        found = store.once(STAGE, "a", broken)
        assert (found.state, found.reason) == ("failed", "x.mp4: it is torn. mend it.")
        with pytest.raises(ZeroDivisionError):
            store.once(STAGE, "b", wrong)
        with pytest.raises(ValueError, match="Out of range float"):
            store.put(STAGE, "c", Result("ok", float("nan")))
        assert [key for key, _ in store.items(STAGE)] == ["a"]


def test_a_key_changes_with_contents_and_settings() -> None:
    keys = {
        work_key(["ab", "c"]),
        work_key(["a", "bc"]),
        work_key(["ab", "c"], {"seed": 1}),
        work_key(["ab", "c"], {"seed": 2}),
    }
    assert len(keys) == 4
    assert work_key(["a"], {"x": 1, "y": 2}) == work_key(["a"], {"y": 2, "x": 1})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"no database at all, however long it may be" * 40),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: _execute(path, "PRAGMA user_version = 99"),
        lambda path: _execute(path, "UPDATE results SET value = '{'"),
        lambda path: _execute(path, f"UPDATE results SET value = '{'[' * 100_000}'"),
    ],
)
def test_a_broken_file_is_one_error_that_names_it(tmp_path: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "store.sqlite"
    with Store(path) as store:
        store.put(STAGE, "a", Result("ok", 1))
    spoil(path)
    with (
        Store(path) as store,
        pytest.raises(MatrixError, match=r"store\.sqlite: the results kept here cannot be used"),
    ):
        store.items(STAGE)


def _execute(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Store(tmp_path / "file" / "s") as store, pytest.raises(MatrixError, match="file/s: "):
        store.put(STAGE, "a", Result("ok"))


def test_threads_and_a_forked_process_share_a_store(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store, ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda i: store.put(STAGE, f"{i % 600:04d}", Result("ok", i)), range(1200)))
        child = os.fork()
        if child == 0:
            store.put(STAGE, "child", Result("ok"))
            store.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        store.put(STAGE, "parent", Result("ok"))
        assert len(store.items(STAGE)) == 602


def test_of_two_at_once_both_get_the_first_result(tmp_path: Path) -> None:
    barrier = threading.Barrier(2)

    def work(value: int) -> Result:
        barrier.wait(10)
        return Result("ok", value)

    with (
        Store(tmp_path / "s") as one,
        Store(tmp_path / "s") as two,
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(one.once, STAGE, "a", lambda: work(1))
        second = pool.submit(two.once, STAGE, "a", lambda: work(2))
        assert first.result() == second.result() == one.get(STAGE, "a")


def _worker(path: Path, log: Path, items: range) -> int:
    """A process that does the items and writes down each that it does."""
    child = os.fork()
    if child:
        return child
    try:
        with Store(path) as store, log.open("a", buffering=1) as done:

            def work(item: int) -> Result:
                done.write(f"{item}\n")
                time.sleep(0.001)
                return Result("ok", item)

            for item in items:
                store.once(STAGE, f"{item:03d}", lambda item=item: work(item))
        os._exit(0)
    finally:
        os._exit(1)


def _values(path: Path) -> list[int]:
    with Store(path) as store:
        return [result.value for _, result in store.items(STAGE)]


def test_processes_write_at_once(tmp_path: Path) -> None:
    running = [_worker(tmp_path / "s", tmp_path / "log", range(k, 200, 4)) for k in range(4)]
    assert [os.waitpid(child, 0)[1] for child in running] == [0] * 4
    assert _values(tmp_path / "s") == list(range(200))


def test_a_kill_loses_at_most_the_item_in_flight(tmp_path: Path) -> None:
    path, log = tmp_path / "s", tmp_path / "log"
    kills = 5
    for kill in range(kills):
        child = _worker(path, log, range(300))
        until = time.monotonic() + 30
        while not log.exists() or len(log.read_text().split()) < 50 * (kill + 1):
            assert time.monotonic() < until
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.waitpid(_worker(path, log, range(300)), 0)
    done = list(map(int, log.read_text().split()))
    assert sorted(set(done)) == list(range(300))
    assert len(done) <= 300 + kills
    assert _values(path) == list(range(300))
