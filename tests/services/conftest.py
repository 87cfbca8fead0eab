"""An OpenAI-compatible server on a loopback port that answers as a test has written down."""

import io
import json
import threading
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import BaseModel

from matrix_video.services.language.client import LanguageModel
from matrix_video.services.language.question import LanguageSettings
from matrix_video.services.store import Store


class Push(BaseModel):
    """What the model is asked for in these tests."""

    subject: int
    verb: str
    contact: bool = False


GOOD = '{"subject": 1, "verb": "pushes"}'
WRONG = '{"subject": "the red one", "verb": "pushes"}'


def picture(width: int = 280, height: int = 140, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, kind)
    return file.getvalue()


@dataclass(frozen=True)
class Step:
    """One answer of the server; ``hangs``: none at all."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False


def says(text: str | None, *, finish: str = "stop", usage: bool = True, **message: Any) -> Step:
    """A chat completion: 100 tokens in, 10 out."""
    found: dict[str, Any] = {
        "id": "x",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
    }
    if usage:
        found["usage"] = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return Step(body=json.dumps(found))


def fails(status: int, message: str = "no", **headers: str) -> Step:
    return Step(status, json.dumps({"error": {"message": message}}), headers)


class Scripted:
    """``script`` is worked off, then every call gets `GOOD`; ``before`` sees a call first."""

    def __init__(self) -> None:
        self.script: deque[Step] = deque()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.before: Callable[[int], None] = lambda _count: None
        self.released = threading.Event()
        self._lock = threading.Lock()
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                step = scripted.next(body, {k.lower(): v for k, v in self.headers.items()})
                if step.hangs:
                    scripted.released.wait(5)
                    self.close_connection = True
                    return
                sent = step.body.encode()
                self.send_response(step.status)
                for name, value in {"Content-Type": "application/json", **step.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def next(self, body: dict[str, Any], headers: dict[str, str]) -> Step:
        with self._lock:
            self.bodies.append(body)
            self.headers.append(headers)
            step = self.script.popleft() if self.script else says(GOOD)
        self.before(len(self.bodies))
        return step

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Generator[Scripted]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    scripted = Scripted()
    yield scripted
    scripted.close()


class Desk:
    """Runs against the scripted server that share a work store; waits and lines are kept."""

    def __init__(self, server: Scripted, folder: Path) -> None:
        self.server, self.folder, self._path = server, folder, folder / "work.sqlite"
        self.waits: list[float] = []
        self.lines: list[str] = []
        self._open: list[LanguageModel | Store] = []

    def run(self, *, dry_run: bool = False, **settings: Any) -> LanguageModel:
        """A new run: a client and a store of its own."""
        given = LanguageSettings.model_validate(
            {"base_url": self.server.url, "model": "m", **settings}
        )
        store = Store(self._path)
        model = LanguageModel(
            given, store, dry_run=dry_run, sleep=self.waits.append, tell=self.lines.append
        )
        self._open += [model, store]
        return model

    def close(self) -> None:
        for one in self._open:
            one.close()


@pytest.fixture
def desk(server: Scripted, tmp_path: Path) -> Generator[Desk]:
    made = Desk(server, tmp_path)
    yield made
    made.close()
