"""Results of single items of work, kept in one SQLite file under what they were made from.

    JUDGE = Stage("judge", version=1)
    with Store(out / "store.sqlite") as store:
        key = work_key([sha256_file(video), sha256_file(tracks)], {"seed": 0})
        result = store.once(JUDGE, key, lambda: Result("ok", judge(video).to_json()))

A known result is returned, any other is computed and stored at once: a kill loses the items in
flight and no other. Threads and processes may share a file.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_text, writing

State = Literal["ok", "failed", "unscored", "filtered"]
"""ok: there is a value. failed: the item is broken, see the reason. unscored: the judge could not
answer. filtered: a rule left the item out."""

_FORMAT: Final = 1
_WAIT_SECONDS: Final = 60.0
"""How long a write waits for other processes."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS results (
    stage TEXT NOT NULL, version INTEGER NOT NULL, key TEXT NOT NULL,
    state TEXT NOT NULL, value TEXT NOT NULL, reason TEXT NOT NULL,
    seconds REAL NOT NULL, cost REAL NOT NULL,
    PRIMARY KEY (stage, version, key)
)"""


@dataclass(frozen=True)
class Stage:
    """What is done to an item. A higher version makes earlier results unknown."""

    name: str
    version: int


@dataclass(frozen=True)
class Result:
    """Outcome of one item: ``value`` is JSON, ``reason`` says why it is not ok, ``cost`` counts
    what the stage counts (tokens, calls)."""

    state: State
    value: Any = None
    reason: str = ""
    seconds: float = 0.0
    cost: float = 0.0


def work_key(contents: Iterable[str], settings: object = None) -> str:
    """Key of an item: hashes of its inputs' contents, and whatever else the result depends on as
    JSON."""
    told = json.dumps(settings, sort_keys=True, allow_nan=False)
    return sha256_text(*contents, told)


class Store:
    """The results in the file ``path``, which appears with the first one. Close it, or use
    ``with``.

    All methods raise `MatrixError` where the file cannot be read or written or is no store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._connections: dict[int, sqlite3.Connection] = {}
        """By process: a parent's is neither to be used in its child nor, dropped, closed there."""

    def get(self, stage: Stage, key: str) -> Result | None:
        """The stored result; None where there is none."""
        with self._open(make=False) as database:
            if database is None:
                return None
            row = database.execute(
                "SELECT state, value, reason, seconds, cost FROM results "
                "WHERE stage = ? AND version = ? AND key = ?",
                (stage.name, stage.version, key),
            ).fetchone()
            return None if row is None else _result(row)

    def put(self, stage: Stage, key: str, result: Result) -> None:
        """Store a result in the place of an earlier one; it outlives a kill when this returns.

        Raises ``ValueError`` for a value that is not JSON (NaN is not).
        """
        self._write("REPLACE", stage, key, result)

    def once(
        self, stage: Stage, key: str, work: Callable[[], Result], *, retry: bool = False
    ) -> Result:
        """The stored result, or that of ``work``, stored; ``retry``: do failed items again.

        A `MatrixError` in ``work`` is a failed item with that text as its reason; other errors
        pass through and store nothing. Seconds are measured unless ``work`` gives them. Where two
        do the same item at once, both return the first one's result.
        """
        known = self.get(stage, key)
        if known is not None and not (retry and known.state == "failed"):
            return known
        began = time.monotonic()
        try:
            result = work()
        except MatrixError as error:
            result = Result("failed", reason=str(error))
        if not result.seconds:
            result = replace(result, seconds=round(time.monotonic() - began, 3))
        self._write("IGNORE" if known is None else "REPLACE", stage, key, result)
        return self.get(stage, key) or result

    def items(self, stage: Stage) -> list[tuple[str, Result]]:
        """Keys and results of a stage, in the order of keys."""
        with self._open(make=False) as database:
            if database is None:
                return []
            rows = database.execute(
                "SELECT key, state, value, reason, seconds, cost FROM results "
                "WHERE stage = ? AND version = ? ORDER BY key",
                (stage.name, stage.version),
            )
            return [(key, _result(row)) for key, *row in rows]

    def _write(self, conflict: str, stage: Stage, key: str, result: Result) -> None:
        value = json.dumps(result.value, ensure_ascii=False, allow_nan=False)
        row = (stage.name, stage.version, key, result.state, value, result.reason)
        with self._open(make=True) as database:
            assert database is not None
            database.execute(
                f"INSERT OR {conflict} INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, result.seconds, result.cost),
            )

    def close(self) -> None:
        """Safe to call twice."""
        with self._lock:
            own = self._connections.pop(os.getpid(), None)
            if own is not None:
                own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _open(self, *, make: bool) -> Generator[sqlite3.Connection | None]:
        """This process's connection, for one thread at a time; None where there is no file and
        ``make`` is off."""
        with self._lock:
            try:
                own = self._connections.get(os.getpid())
                if own is None and (make or self.path.is_file()):
                    own = self._connections[os.getpid()] = _connect(self.path)
                yield own
            except sqlite3.Error as error:
                raise MatrixError(
                    f"the results kept here cannot be used ({error})",
                    remedy="free space or change permissions and run again; a broken file may be "
                    "deleted, then everything is computed anew",
                    file=self.path,
                ) from error


def _connect(path: Path) -> sqlite3.Connection:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    # Autocommit: each statement is a transaction of its own.
    database = sqlite3.connect(
        path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        _write_ahead(database)
        database.execute("PRAGMA synchronous = NORMAL")
        (found,) = database.execute("PRAGMA user_version").fetchone()
        if found not in (0, _FORMAT):
            raise sqlite3.DatabaseError(f"format {found}, this version reads {_FORMAT}")
        if not found:
            database.execute(_SCHEMA)
            database.execute(f"PRAGMA user_version = {_FORMAT}")
    except BaseException:
        database.close()
        raise
    return database


def _write_ahead(database: sqlite3.Connection) -> None:
    """Write-ahead log: readers never wait, and a kill leaves a whole database. SQLite does not
    wait for its turn to switch to it, so we do."""
    until = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)


def _result(row: Iterable[Any]) -> Result:
    state, value, reason, seconds, cost = row
    try:
        return Result(state, json.loads(value), reason, seconds, cost)
    except (TypeError, ValueError, RecursionError) as error:
        raise sqlite3.DatabaseError(f"a value is not JSON: {error}") from error
