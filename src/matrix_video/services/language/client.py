"""Typed answers of a language model.

    settings = LanguageSettings("http://localhost:8000/v1", "Qwen/Qwen3-VL-8B-Instruct")
    with Store(out / "store.sqlite") as store, LanguageModel(settings, store) as model:
        reply = model.ask([Message("user", f"Who does what to whom? {caption}")], Interactions)
        if reply.value is not None:
            ...

The policy: a reply is a valid object of the schema; else it is asked for once more with the error;
else the question has failed, its raw text is kept, and the other questions go on. Every reply is
in the work store as soon as it is there: neither a kill nor a second run pays for it again. A
question that has failed is asked anew by the next `ask`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Generic, Literal, Self, TypeVar

from pydantic import BaseModel

from matrix_video.services.console import make_console, say
from matrix_video.services.errors import MatrixError
from matrix_video.services.language.ledger import Account, Exchange, Ledger, Load
from matrix_video.services.language.question import (
    LanguageSettings,
    Message,
    estimate,
    question_key,
    read_reply,
    with_error,
    with_schema,
)
from matrix_video.services.store import Stage, Store

if TYPE_CHECKING:
    from matrix_video.services.language.server import Server

_Schema = TypeVar("_Schema", bound=BaseModel)
_Item = TypeVar("_Item")
_Outcome = TypeVar("_Outcome")

STAGE: Final = Stage("language", 1)
"""Where the work store keeps calls. A higher version asks everything anew."""
_SILENT: Final = 12
"""Calls in a row without a reply, each with its retries, after which the server is given up."""


@dataclass(frozen=True)
class Reply(Generic[_Schema]):
    """ok: ``value`` is valid. failed: neither model nor server answered, ``reason`` says why.
    unasked: it is a dry run, or the budget would be passed. ``text`` is the last raw reply."""

    state: Literal["ok", "failed", "unasked"]
    value: _Schema | None = None
    text: str = ""
    reason: str = ""
    cached: bool = False
    """Nothing was sent: the work store had it."""


class LanguageModel:
    """A model that many threads may ask; one at a time for a work store. Close it, or use ``with``.

    ``dry_run``: nothing is sent, `unasked` counts. ``sleep`` and ``tell`` are for tests: the wait
    before a retry, and the line that says what leaves the machine, before it does.
    """

    def __init__(
        self,
        settings: LanguageSettings,
        store: Store,
        *,
        dry_run: bool = False,
        sleep: Callable[[float], None] = time.sleep,
        tell: Callable[[str], None] = lambda line: say(make_console(stderr=True), line),
    ) -> None:
        self._settings, self._store = settings, store
        self._sleep, self._tell = sleep, tell
        past = (Exchange(**result.value) for _, result in store.items(STAGE))
        self._account = Account(past, settings.budget, settings.price, dry_run)
        self._slots = threading.Semaphore(settings.concurrency)
        self._lock = threading.Lock()
        """For all that follows."""
        self._server: Server | None = None
        self._told: set[str] = set()
        self._turns: dict[str, threading.Lock] = {}
        self._silent = 0

    @property
    def ledger(self) -> Ledger:
        """Of all runs with this work store."""
        return self._account.ledger

    @property
    def unasked(self) -> Load:
        """What the first calls of the unasked questions would take at most, each counted once."""
        return self._account.unasked

    def ask(
        self,
        messages: Sequence[Message],
        schema: type[_Schema],
        check: Callable[[_Schema], str] | None = None,
    ) -> Reply[_Schema]:
        """A valid object of the schema, or why there is none.

        The last message is the user's; the schema is appended to it. ``check`` says what else is
        wrong with an object, empty for nothing: an id that the clip does not have. Raises
        `MatrixError` where no question can be answered: wrong key, model or address, a server that
        has gone, packages that are missing.
        """

        def read(text: str) -> _Schema | str:
            found = read_reply(text, schema)
            if isinstance(found, str) or check is None:
                return found
            return check(found) or found

        question = with_schema(messages, schema)
        key, attempt = question_key(self._settings, question, 0), 0
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:  # Two who ask the same pay once.
            while True:
                reply, fresh = self._attempt(question, schema, read, attempt)
                if fresh or reply.state != "failed":
                    return reply
                attempt += 1  # It failed before this call.

    def each(self, work: Callable[[_Item], _Outcome], items: Iterable[_Item]) -> Iterator[_Outcome]:
        """``work``, which asks, done on items in as many threads as calls may run at once.

        Outcomes come in the order of the items, which are drawn as threads become free.
        """
        waiting: deque[Future[_Outcome]] = deque()
        with ThreadPoolExecutor(self._settings.concurrency) as pool:
            try:
                for item in items:
                    waiting.append(pool.submit(work, item))
                    if len(waiting) >= 2 * self._settings.concurrency:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for one in waiting:
                    one.cancel()

    def _attempt(
        self,
        messages: Sequence[Message],
        schema: type[_Schema],
        read: Callable[[str], _Schema | str],
        attempt: int,
    ) -> tuple[Reply[_Schema], bool]:
        """Ask, and once more with the error; and whether anything was sent or left unasked."""
        text, reason, fresh = "", "", False
        for again in (False, True):
            key = question_key(self._settings, messages, attempt)
            stored = self._store.get(STAGE, key)
            if stored is not None:
                exchange = Exchange(**stored.value)
            else:
                fresh = True
                unasked = self._account.hold(key, estimate(self._settings, messages))
                if unasked:
                    return Reply("unasked", text=text, reason=unasked), fresh
                exchange = self._call(key, messages, schema, read, again)
            if exchange.text is None:
                return Reply("failed", text=text, reason=exchange.reason), fresh
            text, found = exchange.text, read(exchange.text)
            if not isinstance(found, str):
                if not fresh:
                    self._account.hit()
                return Reply("ok", found, text, cached=not fresh), fresh
            reason = exchange.reason or found
            messages = with_error(messages, text, reason)
        return Reply("failed", text=text, reason=f"two replies were not valid: {reason}"), fresh

    def _call(
        self,
        key: str,
        messages: Sequence[Message],
        schema: type[BaseModel],
        read: Callable[[str], BaseModel | str],
        again: bool,
    ) -> Exchange:
        """One call, in the ledger and in the work store."""
        try:
            with self._slots:
                sent = self._connect(messages).send(messages, schema)
            found = sent.reason if sent.text is None else read(sent.text)
        except BaseException:
            self._account.settle(key, None)
            raise
        reason = (sent.reason or found) if isinstance(found, str) else ""
        exchange = replace(sent, reason=reason, again=again)
        self._account.settle(key, exchange)
        self._store.put(STAGE, key, exchange.to_result())
        self._count_silence(exchange)
        return exchange

    def _connect(self, messages: Sequence[Message]) -> Server:
        """The server, once it is said what leaves the machine and where to."""
        kind = "text and images" if any(one.images for one in messages) else "text"
        with self._lock:
            if self._server is None:
                self._server = _make_server(self._settings, self._sleep)
            if kind not in self._told:
                self._told.add(kind)
                self._tell(f"Language model: sends {kind} to {self._server.place}.")
            return self._server

    def _count_silence(self, exchange: Exchange) -> None:
        with self._lock:
            self._silent = 0 if exchange.text is not None else self._silent + 1
            if self._silent < _SILENT:
                return
        raise MatrixError(
            f"the last {_SILENT} calls of the language model at {self._settings.base_url} had no "
            f"reply ({exchange.reason})",
            remedy="see to the server and the settings, then run again: replies so far are kept",
        )

    def close(self) -> None:
        """Safe to call twice."""
        with self._lock:
            if self._server is not None:
                self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _make_server(settings: LanguageSettings, sleep: Callable[[float], None]) -> Server:
    try:
        from matrix_video.services.language.server import Server
    except ModuleNotFoundError as error:
        if error.name not in ("openai", "tenacity"):
            raise
        raise MatrixError(
            f"a language model needs the package {error.name}, which is not installed",
            remedy="run: pip install 'matrix-video[openai]'",
        ) from None
    return Server(settings, sleep)
