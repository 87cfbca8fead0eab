"""Settings, messages and how a reply is read."""

import json

import pytest
from pydantic import BaseModel, ValidationError

from matrix_video.services.language.question import (
    LanguageSettings,
    Message,
    estimate,
    question_key,
    read_reply,
    with_schema,
)

from .conftest import GOOD, Push, picture

SETTINGS = LanguageSettings(base_url="http://localhost:8000/v1", model="m")


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"```json\n{GOOD}\n```",
        f"Sure! Here it is:\n{GOOD}\nAnything else?",
        f'<think>Perhaps {{"subject": 2}}? No.</think>\n{GOOD}',
    ],
)
def test_an_object_is_found_among_prose_fences_and_thoughts(text: str) -> None:
    assert read_reply(text, Push) == Push(subject=1, verb="pushes")


class Nested(BaseModel):
    push: Push | None = None
    others: list[Push] = []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "there is no whole JSON object in it"),
        ("I cannot help with that.", "there is no whole JSON object in it"),
        ('{"push": ', "there is no whole JSON object in it"),
        ('{"push": {"subject": 1, "verb": "pushes"}, "oth', "Invalid JSON"),
        ("{} or {}", "Invalid JSON"),
        ("[" * 5000 + "{" * 5000 + "}", "Invalid JSON"),
        ('{"push": {"subject": 1}}', r"^push\.verb: Field required$"),
        ('{"mood": "calm"}', "^mood: Extra inputs are not permitted$"),
        ('{"others": [{"subject": 1, "verb": "a", "x": 1}]}', r"^others\.0\.x: Extra inputs"),
        ('{"push": {"subject": NaN, "verb": "a"}}', r"^push\.subject: "),
    ],
)
def test_anything_else_is_an_error_and_never_an_object(text: str, error: str) -> None:
    found = read_reply(text, Nested)
    assert isinstance(found, str)
    with pytest.raises(AssertionError, match=error):
        raise AssertionError(found)


def test_messages_go_as_the_chat_interface_has_them() -> None:
    assert Message("user", "a\ud800b").wire() == {"role": "user", "content": "a?b"}
    wired = Message("user", "look", (picture(), picture(kind="JPEG"))).wire()
    first, second, text = wired["content"]
    assert first["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert second["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")
    assert text == {"type": "text", "text": "look"}
    with pytest.raises(ValueError, match="PNG or JPEG"):
        Message("user", "", (b"GIF89a",))
    with pytest.raises(ValueError, match="a last message of the user"):
        with_schema([Message("assistant", "hm")], Push)


def test_a_question_asks_for_its_schema() -> None:
    asked = with_schema([Message("system", "s"), Message("user", "u")], Push)
    assert [one.text for one in asked[:1]] == ["s"]
    assert asked[1].text.startswith("u\n\nAnswer with one JSON object")
    assert json.loads(asked[1].text.splitlines()[-1]) == Push.model_json_schema()


def test_a_key_is_of_all_that_shapes_the_reply_and_nothing_else() -> None:
    def key(attempt: int = 0, text: str = "t", images: tuple[bytes, ...] = (), **other: object):  # type: ignore[no-untyped-def]
        settings = SETTINGS.model_copy(update=other)
        return question_key(settings, [Message("user", text, images)], attempt)

    different = [
        key(),
        key(attempt=1),
        key(text="u"),
        key(images=(picture(),)),
        key(images=(picture(281),)),
        key(model="n"),
        key(temperature=None),
        key(max_tokens=5),
        key(structured=False),
    ]
    assert len(set(different)) == len(different)
    assert key() == key(base_url="https://elsewhere/v1", timeout=1.0, retries=0, concurrency=1)


def test_an_estimate_grows_with_text_and_images() -> None:
    assert estimate(SETTINGS, [Message("user", "a" * 300)]).tokens_in == 108
    load = estimate(SETTINGS, [Message("user", "", (picture(), picture(kind="JPEG")))])
    assert (load.calls, load.tokens_in, load.tokens_out) == (1, 8 + 2 * 50, 1024)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"base_url": "localhost:8000"}, "expected an address like http://localhost:8000/v1"),
        ({"base_url": "http://u:sk-secret@host/v1"}, "Put a key into the environment"),
        ({"base_url": "http://host/v1?key=sk-secret"}, "Put a key into the environment"),
        ({"budget": {"money": 5}}, "without a price. Give one"),
        ({"model": ""}, "at least 1 character"),
        ({"concurrency": 0}, "greater than 0"),
    ],
)
def test_settings_are_checked_and_say_no_secret(given: dict[str, object], error: str) -> None:
    with pytest.raises(ValidationError, match=error) as caught:
        LanguageSettings.model_validate({"base_url": "http://h/v1", "model": "m", **given})
    assert "sk-secret" not in str(caught.value)
