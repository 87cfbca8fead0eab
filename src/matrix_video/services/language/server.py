"""One call to an OpenAI-compatible server: retries, and a key that nobody sees.

Time-outs, lost connections, 429 and 5xx are tried again after a wait with jitter, or as long as
Retry-After says. Any other 4xx is final. Needs the extra ``openai``.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import openai
import tenacity
from pydantic import BaseModel, Field, ValidationError

from matrix_video.services.errors import MatrixError
from matrix_video.services.language.ledger import Exchange
from matrix_video.services.language.question import (
    LanguageSettings,
    Message,
    estimate,
    text_tokens,
)

_PATIENCE: Final = 120.0
"""Seconds. A server that asks for more is not waited for; the next run asks again."""
_JITTER: Final = tenacity.wait_random_exponential(multiplier=1, max=60)
_LONGEST_REASON: Final = 500


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class Server:
    """A connection that many threads may use. ``sleep`` is the wait before a retry.

    `MatrixError` for a key that cannot be sent.
    """

    def __init__(self, settings: LanguageSettings, sleep: Callable[[float], None]) -> None:
        self._settings = settings
        self._sleep = sleep
        self._key = os.environ.get(settings.key_variable, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise MatrixError(
                "expected a key of printable ASCII characters, got others",
                remedy="set the variable anew",
                field=settings.key_variable,
            )
        self._client = openai.OpenAI(
            base_url=settings.base_url,
            api_key=self._key or "none",
            max_retries=0,
            # What was said to go to one host does not go to another.
            http_client=openai.DefaultHttpxClient(follow_redirects=False, timeout=settings.timeout),
        )
        key = f"the key in {settings.key_variable}" if self._key else "no key"
        self.place = f"{settings.base_url} (model {settings.model}, {key})"
        """Where questions go, in words."""

    def send(self, messages: Sequence[Message], schema: type[BaseModel]) -> Exchange:
        """The raw reply, or the reason for none. `MatrixError` for a wrong key, model, address."""
        began = time.monotonic()
        trying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_passes),
            wait=_pause,
            stop=tenacity.stop_after_attempt(self._settings.retries + 1),
            sleep=self._sleep,
            reraise=True,
        )
        text, reason, usage = None, "", _Usage(prompt_tokens=0, completion_tokens=0)
        try:
            found = trying(self._post, self._request(messages, schema))
        except (openai.AuthenticationError, openai.NotFoundError) as error:
            raise MatrixError(
                f"the language model at {self.place} cannot be used ({self._reason(error)})",
                remedy="correct the address, the model's name, or the key in the environment "
                f"variable {self._settings.key_variable}",
            ) from None  # The cause holds the request, and so the key.
        except (openai.APIError, ValidationError) as error:
            reason = self._reason(error)
        else:
            choice, usage = found.choices[0], found.usage or _Usage()
            text = self._hide(choice.message.content or choice.message.refusal or "")
            if choice.finish_reason == "length":
                reason = f"it was cut off at {self._settings.max_tokens} tokens"
        # Servers that do not count are counted by size.
        sizes = estimate(self._settings, messages).tokens_in, text_tokens(text or "")
        return Exchange(
            text,
            sizes[0] if usage.prompt_tokens is None else usage.prompt_tokens,
            sizes[1] if usage.completion_tokens is None else usage.completion_tokens,
            retries=trying.statistics["attempt_number"] - 1,
            seconds=round(time.monotonic() - began, 3),
            reason=reason,
        )

    def _request(self, messages: Sequence[Message], schema: type[BaseModel]) -> dict[str, Any]:
        settings = self._settings
        # OpenAI's newer models refuse the name that every other server knows.
        longest = (
            "max_completion_tokens" if "//api.openai.com" in settings.base_url else "max_tokens"
        )
        request: dict[str, Any] = {
            "model": settings.model,
            "messages": [one.wire() for one in messages],
            longest: settings.max_tokens,
        }
        if settings.temperature is not None:
            request["temperature"] = settings.temperature
        if settings.structured:
            held = {"name": schema.__name__, "schema": schema.model_json_schema()}
            request["response_format"] = {"type": "json_schema", "json_schema": held}
        if not self._key:
            request["extra_headers"] = {"Authorization": openai.Omit()}
        return request

    def _post(self, request: dict[str, Any]) -> _Completion:
        raw = self._client.chat.completions.with_raw_response.create(**request)
        return _Completion.model_validate_json(raw.text)

    def _reason(self, error: openai.APIError | ValidationError) -> str:
        if isinstance(error, ValidationError):
            return "what the server sent is no chat completion"
        cause = "" if error.__cause__ is None else f" {error.__cause__}"
        return self._hide(" ".join(f"{error.message}{cause}".split()))[:_LONGEST_REASON]

    def _hide(self, text: str) -> str:
        """Servers may repeat what was sent to them, and half a surrogate pair cannot be kept."""
        text = text.encode("utf-8", "replace").decode()
        return text.replace(self._key, "***") if self._key else text

    def close(self) -> None:
        """Safe to call twice."""
        self._client.close()


def _passes(error: BaseException) -> bool:
    """Whether another try may go well. A reply that is none counts as the server's fault."""
    if isinstance(error, openai.APIStatusError):
        passing = error.status_code == 429 or error.status_code >= 500
        return passing and (_asked(error) or 0.0) <= _PATIENCE
    return isinstance(error, openai.APIConnectionError | ValidationError)


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds until the next try."""
    asked = None if state.outcome is None else _asked(state.outcome.exception())
    return _JITTER(state) if asked is None else asked + random.random()


def _asked(error: BaseException | None) -> float | None:
    if isinstance(error, openai.APIStatusError):
        return retry_after(error.response.headers.get("retry-after", ""))
    return None


def retry_after(header: str) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or an HTTP date; None for others."""
    header = header.strip()
    if header.isascii() and header.isdecimal():
        return float(header)
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
