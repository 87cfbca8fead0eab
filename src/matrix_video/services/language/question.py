"""What is sent to a language model and how its reply is read: settings, messages, JSON."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit

from PIL import Image
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from matrix_video.services.language.ledger import Budget, Load, Price
from matrix_video.services.store import work_key

_Schema = TypeVar("_Schema", bound=BaseModel)

_IMAGES: Final = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}
_BYTES_A_TOKEN: Final = 3
"""Of text. English has more, so the estimate is rather too high."""
_TOKENS_A_TURN: Final = 8
"""What a chat template adds to a message."""
_PATCH: Final = 28
"""Side in pixels of the square that models of the Qwen family make a token of."""
_ASK: Final = "Answer with one JSON object and nothing else. Its JSON schema:\n"
_ASK_AGAIN: Final = (
    "This reply is not valid: {error}.\n"
    "Send the whole JSON object again, with the error corrected, and nothing else."
)


class LanguageSettings(BaseModel):
    """A model on an OpenAI-compatible server. The key is in the environment and nowhere else."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True
    )

    base_url: str
    """For example http://localhost:8000/v1."""
    model: str = Field(min_length=1)
    """The server's name for it. Replies are kept under this name, whatever the server."""
    temperature: NonNegativeFloat | None = 0.0
    """None: not sent, for models that refuse it."""
    max_tokens: PositiveInt = 1024
    """Of a reply."""
    timeout: PositiveFloat = 120.0
    """Seconds that the server may be silent."""
    concurrency: PositiveInt = 8
    """Calls at once."""
    retries: NonNegativeInt = 5
    """Of a call, after time-outs, lost connections, 429 and 5xx."""
    price: Price | None = None
    budget: Budget = Budget()
    key_variable: str = "OPENAI_API_KEY"
    """Name of the environment variable with the key. A local server needs none."""
    structured: bool = True
    """Have the server hold replies to the schema. Off for servers that answer 400 to that."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        place = urlsplit(self.base_url)
        if place.scheme not in ("http", "https") or not place.hostname:
            raise ValueError("base_url: expected an address like http://localhost:8000/v1")
        if "@" in place.netloc or place.query or place.fragment:
            raise ValueError(
                "base_url: expected a host and a path alone. Put a key into the environment and "
                "the name of its variable into key_variable"
            )
        if self.budget.money is not None and self.price is None:
            raise ValueError("budget: money cannot be counted without a price. Give one")
        return self


@dataclass(frozen=True)
class Message:
    """A turn of a conversation; ``images`` are PNG or JPEG files (``ValueError`` for others)."""

    role: Literal["system", "user", "assistant"]
    text: str
    images: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        # JSON files may hold half a surrogate pair, which cannot be encoded.
        object.__setattr__(self, "text", self.text.encode("utf-8", "replace").decode())
        for image in self.images:
            _kind(image)

    def wire(self) -> dict[str, Any]:
        """As OpenAI's chat interface has it."""
        if not self.images:
            return {"role": self.role, "content": self.text}
        urls = [f"data:{_kind(one)};base64,{base64.b64encode(one).decode()}" for one in self.images]
        images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        return {"role": self.role, "content": [*images, {"type": "text", "text": self.text}]}


def _kind(image: bytes) -> str:
    for begin, kind in _IMAGES.items():
        if image.startswith(begin):
            return kind
    raise ValueError("expected an image as a PNG or JPEG file")


def with_schema(messages: Sequence[Message], schema: type[BaseModel]) -> tuple[Message, ...]:
    """The question, whose last message also asks for JSON of the schema."""
    if not messages or messages[-1].role != "user":
        raise ValueError("expected a last message of the user")
    told = _ASK + json.dumps(schema.model_json_schema(), ensure_ascii=False)
    return (*messages[:-1], replace(messages[-1], text=f"{messages[-1].text}\n\n{told}"))


def with_error(messages: Sequence[Message], text: str, error: str) -> tuple[Message, ...]:
    """The question, its invalid reply, and the error."""
    reply = Message("assistant", text or "(nothing)")
    return (*messages, reply, Message("user", _ASK_AGAIN.format(error=error)))


def question_key(settings: LanguageSettings, messages: Sequence[Message], attempt: int) -> str:
    """Key of a call in the work store: what is said, and all that shapes the reply."""
    said = [
        (one.role, one.text, [hashlib.sha256(image).hexdigest() for image in one.images])
        for one in messages
    ]
    shape = settings.model_dump(include={"model", "temperature", "max_tokens", "structured"})
    return work_key([], {"said": said, "shape": shape, "attempt": attempt})


def estimate(settings: LanguageSettings, messages: Sequence[Message]) -> Load:
    """Of one call: tokens in by the size of what is sent, the longest reply out."""
    tokens = sum(text_tokens(one.text) + _TOKENS_A_TURN for one in messages)
    for image in (image for one in messages for image in one.images):
        with Image.open(io.BytesIO(image)) as opened:
            tokens += math.prod(math.ceil(side / _PATCH) for side in opened.size)
    return Load(1, tokens, settings.max_tokens)


def text_tokens(text: str) -> int:
    """Tokens of a text by its size."""
    return math.ceil(len(text.encode()) / _BYTES_A_TOKEN)


def read_reply(text: str, schema: type[_Schema]) -> _Schema | str:
    """The object in a reply, among prose, fences or thoughts; else the error.

    From the first brace to the last: neither of two objects is taken, nor the inner one of an
    object that was cut off. Fields that the schema lacks are errors.
    """
    said = text.rpartition("</think>")[2]
    begin, end = said.find("{"), said.rfind("}")
    if begin < 0 or end < begin:
        return "there is no whole JSON object in it"
    try:
        return schema.model_validate_json(said[begin : end + 1], extra="forbid")
    except ValidationError as error:
        places = ((".".join(map(str, one["loc"])), one["msg"]) for one in error.errors()[:5])
        return "; ".join(f"{place}: {told}" if place else told for place, told in places)
