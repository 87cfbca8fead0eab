"""What is tried again and what is final, on a real connection."""

import logging
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from matrix_video.services.errors import MatrixError
from matrix_video.services.language.client import Reply
from matrix_video.services.language.question import Message
from matrix_video.services.language.server import retry_after

from .conftest import GOOD, Desk, Push, Step, fails, says

QUESTION = [Message("user", "Who pushes?")]


def in_seconds(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def test_a_wait_that_the_server_asks_for_is_kept(desk: Desk) -> None:
    desk.server.script += [
        fails(429, **{"Retry-After": "7"}),
        fails(503, **{"Retry-After": in_seconds(31)}),
        fails(429, **{"Retry-After": "soon"}),
    ]
    model = desk.run()
    assert model.ask(QUESTION, Push).value == Push(subject=1, verb="pushes")
    seconds, date, jitter = desk.waits
    assert 7 <= seconds <= 8
    assert 29 <= date <= 32
    assert 0 <= jitter <= 4
    assert (model.ledger.retried, model.ledger.asked, model.ledger.failed) == (3, 1, 0)


def test_a_server_that_asks_for_too_long_is_not_waited_for(desk: Desk) -> None:
    desk.server.script += [fails(429, "quota", **{"Retry-After": "86400"})]
    reply = desk.run().ask(QUESTION, Push)
    assert (reply.state, desk.waits) == ("failed", [])
    assert "quota" in reply.reason


@pytest.mark.parametrize(
    "step",
    [
        fails(500),
        fails(529),
        Step(hangs=True),
        Step(body="<html>busy</html>"),
        Step(body='{"error": {"message": "overloaded"}}'),
        Step(body="\x00", headers={"Content-Encoding": "gzip"}),
    ],
    ids=["500", "529", "time-out", "html", "error in 200", "broken gzip"],
)
def test_what_may_pass_is_tried_again(desk: Desk, step: Step) -> None:
    desk.server.script += [step, step]
    model = desk.run(timeout=0.1)
    assert model.ask(QUESTION, Push).state == "ok"
    assert len(desk.waits) == model.ledger.retried == 2


def test_tries_have_an_end(desk: Desk) -> None:
    desk.server.script += [fails(500, "on fire")] * 3
    model = desk.run(retries=2)
    reply = model.ask(QUESTION, Push)
    assert (reply.state, reply.value, reply.text) == ("failed", None, "")
    assert "on fire" in reply.reason
    assert (len(desk.server.bodies), model.ledger.retried, model.ledger.failed) == (3, 2, 1)


@pytest.mark.parametrize("status", [307, 400, 403, 408, 413, 422])
def test_other_refusals_are_final_and_of_one_question(desk: Desk, status: int) -> None:
    elsewhere = {"Location": f"{desk.server.url}/elsewhere"} if status == 307 else {}
    desk.server.script += [fails(status, "too long", **elsewhere)]
    model = desk.run()
    reply = model.ask(QUESTION, Push)
    assert (reply.state, len(desk.server.bodies), desk.waits) == ("failed", 1, [])
    assert str(status) in reply.reason
    assert model.ask([Message("user", "Another.")], Push).state == "ok"


@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_key_or_model_ends_the_run(desk: Desk, status: int) -> None:
    desk.server.script += [fails(status, "the model `m` does not exist")]
    model = desk.run()
    error = (
        rf"the language model at {desk.server.url} \(model m, no key\) cannot be used \(.*`m` does "
        r"not exist.*\)\. correct the address, the model's name, or the key in the environment "
        r"variable OPENAI_API_KEY\."
    )
    with pytest.raises(MatrixError, match=error):
        model.ask(QUESTION, Push)
    assert model.ledger.asked == 0


def test_a_server_that_has_gone_ends_the_run(desk: Desk) -> None:
    model = desk.run(base_url="http://127.0.0.1:9/v1", retries=1)
    replies: list[Reply[Push]] = []
    with pytest.raises(MatrixError, match=r"the last 12 calls .* no reply \(.*refused.*see to the"):
        replies += (model.ask([Message("user", str(i))], Push) for i in range(99))
    assert model.ledger.failed == 12


def test_a_local_server_gets_no_key(desk: Desk) -> None:
    desk.run().ask(QUESTION, Push)
    assert "authorization" not in desk.server.headers[0]


def test_nobody_sees_the_key(
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = "sk-geheim-0815"
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", f" {key}\n")
    desk.server.script += [fails(400, f"key {key}"), says(f"{key} {GOOD}"), fails(401, key)]
    model = desk.run(key_variable="MY_KEY")
    replies = [model.ask([Message("user", str(i))], Push) for i in range(2)]
    with pytest.raises(MatrixError) as caught:
        model.ask(QUESTION, Push)
    assert desk.server.headers[0]["authorization"] == f"Bearer {key}"
    assert replies[1].text == f"*** {GOOD}"
    desk.close()
    seen = [str(replies), str(desk.lines), repr(model), *capfd.readouterr(), caplog.text]
    seen += traceback.format_exception(caught.value)
    seen += [file.read_bytes().decode("latin-1") for file in desk.folder.iterdir()]
    assert "HTTP" in caplog.text
    assert not [text for text in seen if key in text]
    assert "the key in MY_KEY" in desk.lines[0]


def test_a_key_that_cannot_be_sent_is_refused_unseen(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\nsk-two")
    with pytest.raises(MatrixError, match=r"^OPENAI_API_KEY: expected a key of printable") as error:
        desk.run().ask(QUESTION, Push)
    assert "sk-" not in str(error.value)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        (" 12 ", 12),
        ("-3", None),
        ("1e3", None),
        ("", None),
        ("nan", None),
        ("later", None),
    ],
)
def test_a_header_says_seconds_or_nothing(header: str, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_a_header_says_a_date() -> None:
    assert retry_after(in_seconds(-60)) == 0
    assert 50 < (retry_after(in_seconds(60)) or 0) <= 60
