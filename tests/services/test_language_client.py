"""The policy: one re-ask, then failed; nothing is paid for twice; the budget is not passed."""

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from matrix_video.services.errors import MatrixError
from matrix_video.services.language.ledger import Ledger, Load, Price
from matrix_video.services.language.question import Message

from .conftest import GOOD, WRONG, Desk, Push, fails, picture, says

PUSH = Push(subject=1, verb="pushes")


def question(text: str = "Who pushes whom?") -> list[Message]:
    return [Message("system", "You see videos."), Message("user", text)]


def test_a_good_reply_is_typed_and_counted(desk: Desk) -> None:
    model = desk.run(price=Price(tokens_in=1000, tokens_out=10_000))
    reply = model.ask(question(), Push)
    assert (reply.state, reply.value, reply.text, reply.cached) == ("ok", PUSH, GOOD, False)
    body = desk.server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.0, 1024)
    assert body["response_format"]["json_schema"]["schema"] == Push.model_json_schema()
    ledger = model.ledger
    assert (ledger.asked, ledger.answered, ledger.spent) == (1, 1, Load(1, 100, 10))
    line = ledger.line(Price(tokens_in=1000, tokens_out=10_000))
    assert re.sub(r"\d+ s", "0 s", line) == (
        "1 asked, 1 answered, 0 from the store, 0 retries, 0 asked again, 0 failed; "
        "100 tokens in, 10 out, 0 s, cost 0.20"
    )


def test_settings_that_a_server_refuses_are_not_sent(desk: Desk) -> None:
    desk.run(temperature=None, structured=False).ask(question(), Push)
    assert desk.server.bodies[0].keys() == {"model", "messages", "max_tokens"}


def test_a_server_that_does_not_count_is_counted_by_size(desk: Desk) -> None:
    desk.server.script += [says(GOOD, usage=False)]
    model = desk.run()
    model.ask(question(), Push)
    assert model.ledger.spent.tokens_in > 50
    assert model.ledger.spent.tokens_out == -(-len(GOOD) // 3)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (WRONG, "subject: Input should be a valid integer"),
        ('{"subject": 1, "verb": "pushes", "mood": "calm"}', "mood: Extra inputs"),
        ("I am sorry, I cannot help with that.", "there is no whole JSON object in it"),
        ("", "there is no whole JSON object in it"),
    ],
)
def test_one_reask_quotes_the_error(desk: Desk, text: str, error: str) -> None:
    desk.server.script += [says(text)]
    model = desk.run()
    assert model.ask(question(), Push).value == PUSH
    first, second = (body["messages"] for body in desk.server.bodies)
    assert second[: len(first)] == first
    assert second[-2] == {"role": "assistant", "content": text or "(nothing)"}
    assert f"not valid: {error}" in second[-1]["content"]
    assert (model.ledger.asked, model.ledger.reasked, model.ledger.failed) == (1, 1, 0)


def test_a_second_invalid_reply_is_a_failure_with_its_text(desk: Desk) -> None:
    desk.server.script += [says(WRONG), says(f"Again: {WRONG}")]
    model = desk.run()
    reply = model.ask(question(), Push)
    assert (reply.state, reply.value, reply.text) == ("failed", None, f"Again: {WRONG}")
    assert reply.reason.startswith("two replies were not valid: subject: Input should be a valid")
    assert len(desk.server.bodies) == 2
    assert model.ask(question("Another."), Push).state == "ok"
    assert (model.ledger.asked, model.ledger.answered, model.ledger.failed) == (2, 1, 1)


def test_a_reply_that_was_cut_says_so(desk: Desk) -> None:
    desk.server.script += [says('{"subject": 1, "ver', finish="length"), says(None, refusal="No.")]
    reply = desk.run(max_tokens=7).ask(question(), Push)
    assert "it was cut off at 7 tokens" in desk.server.bodies[1]["messages"][-1]["content"]
    assert (reply.state, reply.text) == ("failed", "No.")


def test_a_check_knows_more_than_the_schema(desk: Desk) -> None:
    def check(found: Push) -> str:
        return "" if found.subject in (1, 2) else f"subject: the clip has no id {found.subject}"

    desk.server.script += [says('{"subject": 9, "verb": "pushes"}')]
    assert desk.run().ask(question(), Push, check).value == PUSH
    assert "the clip has no id 9" in desk.server.bodies[1]["messages"][-1]["content"]


def test_a_second_run_pays_nothing_and_knows_what_was_spent(desk: Desk) -> None:
    desk.server.script += [says(WRONG), fails(500)]
    first = desk.run()
    first.ask(question(), Push)
    second = desk.run(base_url="http://127.0.0.1:9/v1")
    reply = second.ask(question(), Push)
    assert (reply.value, reply.cached, len(desk.server.bodies)) == (PUSH, True, 3)
    assert second.ledger.cached == 1
    for ledger in (first.ledger, second.ledger):
        assert (ledger.asked, ledger.answered, ledger.reasked, ledger.retried) == (1, 1, 1, 1)
        assert ledger.spent == Load(2, 200, 20)


def test_a_failure_is_asked_anew_by_the_next_run(desk: Desk) -> None:
    desk.server.script += [says(WRONG), says(WRONG), fails(400)]
    assert desk.run().ask(question(), Push).state == "failed"
    assert desk.run().ask(question(), Push).state == "failed"
    last = desk.run()
    assert last.ask(question(), Push).value == PUSH
    assert last.ask(question(), Push).cached
    assert len(desk.server.bodies) == 4
    assert (last.ledger.asked, last.ledger.answered, last.ledger.failed) == (3, 1, 2)


def test_a_kill_before_the_second_call_does_not_pay_for_the_first_again(desk: Desk) -> None:
    desk.server.script += [says(WRONG)]
    started = threading.Event()

    def kill(count: int) -> None:
        if count == 2:
            started.wait(10)
            os.kill(child, signal.SIGKILL)

    desk.server.before = kill
    child = os.fork()
    if child == 0:
        desk.run().ask(question(), Push)
        os._exit(1)
    started.set()
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    model = desk.run()
    assert model.ledger.spent.calls == 1
    assert model.ask(question(), Push).value == PUSH
    sizes = [len(body["messages"]) for body in desk.server.bodies]
    assert sizes == [2, 4, 4]


def test_calls_are_bounded_in_number_and_items_drawn_as_needed(desk: Desk) -> None:
    running, most, drawn = 0, 0, 0
    full = threading.Barrier(3)
    lock = threading.Lock()

    def before(count: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if count <= 3:
            full.wait(10)
        with lock:
            running -= 1

    def items() -> Iterator[str]:
        nonlocal drawn
        for i in range(30):
            drawn += 1
            yield str(i)

    desk.server.before = before
    model = desk.run(concurrency=3)
    states = model.each(lambda item: (item, model.ask(question(item), Push).state), items())
    assert next(states) == ("0", "ok")
    assert drawn == 6
    assert list(states) == [(str(i), "ok") for i in range(1, 30)]
    assert most == 3


def test_two_who_ask_the_same_pay_once(desk: Desk) -> None:
    model = desk.run()
    replies = list(model.each(lambda _: model.ask(question(), Push), range(8)))
    assert [reply.value for reply in replies] == [PUSH] * 8
    assert len(desk.server.bodies) == 1


@pytest.mark.parametrize(
    ("budget", "calls", "told"),
    [
        ({"calls": 2}, 2, "2 calls"),
        ({"tokens": 550}, 4, "550 tokens"),
        ({"money": 0.55}, 4, "0.55 in money"),
        ({"calls": 0}, 0, "0 calls"),
    ],
)
def test_a_budget_stops_before_it_is_passed(
    desk: Desk, budget: dict[str, float], calls: int, told: str
) -> None:
    # A question is estimated at 148 + 30 tokens and takes 100 + 10: a fifth may pass 550.
    price = Price(tokens_in=1000, tokens_out=1000)
    model = desk.run(budget=budget, price=price, max_tokens=30)
    replies = [model.ask(question(str(i)), Push) for i in range(9)]
    assert [one.state for one in replies] == ["ok"] * calls + ["unasked"] * (9 - calls)
    assert replies[-1].reason == f"the budget of {told} would be passed"
    assert (model.unasked.calls, len(desk.server.bodies)) == (9 - calls, calls)
    assert model.ledger.failed == 0


def test_a_budget_is_of_all_runs_together_and_may_be_raised(desk: Desk) -> None:
    for calls in (2, 2, 5):
        model = desk.run(budget={"calls": calls})
        states = [model.ask(question(str(i)), Push).state for i in range(9)]
        assert states == ["ok"] * calls + ["unasked"] * (9 - calls)
    assert len(desk.server.bodies) == 5


def test_calls_under_way_count_for_the_budget(desk: Desk) -> None:
    both = threading.Barrier(2)

    def before(_count: int) -> None:
        both.wait(10)

    desk.server.before = before
    model = desk.run(budget={"calls": 2})
    replies = list(model.each(lambda i: model.ask(question(str(i)), Push), range(8)))
    assert sorted(one.state for one in replies) == ["ok"] * 2 + ["unasked"] * 6


def test_a_dry_run_counts_and_sends_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.run().ask(question("known"), Push)
    desk.lines.clear()
    monkeypatch.setitem(sys.modules, "openai", None)
    model = desk.run(dry_run=True)
    replies = [model.ask(question(text), Push) for text in ("known", "new", "new", "newer")]
    assert [one.state for one in replies] == ["ok", "unasked", "unasked", "unasked"]
    assert replies[1].reason == "a dry run asks nothing"
    assert (model.unasked.calls, model.unasked.tokens_out) == (2, 2048)
    assert model.unasked.tokens_in > 100
    assert (len(desk.server.bodies), desk.lines) == (1, [])


def test_it_says_what_leaves_the_machine_before_it_does(desk: Desk) -> None:
    told: list[int] = []
    desk.server.before = lambda _count: told.append(len(desk.lines))
    model = desk.run()
    model.ask(question(), Push)
    model.ask(question("Another."), Push)
    model.ask([Message("user", "Look.", (picture(),))], Push)
    place = f"{desk.server.url} (model m, no key)"
    assert desk.lines == [
        f"Language model: sends text to {place}.",
        f"Language model: sends text and images to {place}.",
    ]
    assert told == [1, 1, 2]


@pytest.mark.parametrize("package", ["openai", "tenacity"])
def test_missing_packages_are_named(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.delitem(sys.modules, "matrix_video.services.language.server", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    problem = (
        rf"^a language model needs the package {package}, which is not installed\. "
        r"run: pip install 'matrix-video\[openai\]'\.$"
    )
    model = desk.run()
    with pytest.raises(MatrixError, match=problem):
        model.ask(question(), Push)
    assert model.ledger == Ledger()
