"""What was asked of a language model, what it cost, and the budget that is not passed."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt

from matrix_video.services.store import Result


class Price(BaseModel):
    """Money for a million tokens, in the currency of your bill."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    tokens_in: NonNegativeFloat
    tokens_out: NonNegativeFloat


class Budget(BaseModel):
    """Limits on all that a work store holds, of all runs together. None: no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    calls: NonNegativeInt | None = None
    """A second question after an invalid reply is a call, a retry of a call is not."""
    tokens: NonNegativeInt | None = None
    """In and out together."""
    money: NonNegativeFloat | None = None
    """Needs a price."""

    def passed_by(self, load: Load, price: Price | None) -> str:
        """The first limit that the load is beyond, in words; empty where there is none."""
        limits = (
            (self.calls, load.calls, "calls"),
            (self.tokens, load.tokens_in + load.tokens_out, "tokens"),
            (self.money, load.money(price) or 0.0, "in money"),
        )
        passed = (
            f"{most:g} {of}" for most, value, of in limits if most is not None and value > most
        )
        return next(passed, "")


@dataclass(frozen=True)
class Load:
    """Calls, and tokens that go in and come out."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def __add__(self, more: Load) -> Load:
        return Load(
            self.calls + more.calls,
            self.tokens_in + more.tokens_in,
            self.tokens_out + more.tokens_out,
        )

    def money(self, price: Price | None) -> float | None:
        """None without a price."""
        if price is None:
            return None
        return (self.tokens_in * price.tokens_in + self.tokens_out * price.tokens_out) / 1e6


@dataclass(frozen=True)
class Exchange:
    """One call and its outcome, as it stands in the work store."""

    text: str | None
    """The raw reply; None where the server gave none."""
    tokens_in: int = 0
    tokens_out: int = 0
    retries: int = 0
    seconds: float = 0.0
    """Waits included."""
    reason: str = ""
    """Why the reply is not valid, or why there is none."""
    again: bool = False
    """It quoted the error of an invalid reply."""

    @property
    def load(self) -> Load:
        return Load(1, self.tokens_in, self.tokens_out)

    def to_result(self) -> Result:
        state = "failed" if self.reason else "ok"
        return Result(
            state, asdict(self), self.reason, self.seconds, self.tokens_in + self.tokens_out
        )


@dataclass(frozen=True)
class Ledger:
    """Counts over all runs that shared a work store; ``cached`` counts this run alone.

    A server may bill calls that timed out: they are not in it. ``seconds`` of calls that ran at the
    same time add up.
    """

    asked: int = 0
    """Questions put to the server."""
    answered: int = 0
    cached: int = 0
    """Questions that the store answered."""
    retried: int = 0
    reasked: int = 0
    """Questions put again with the error of their first reply."""
    failed: int = 0
    spent: Load = Load()
    seconds: float = 0.0

    def plus(self, one: Exchange) -> Ledger:
        """With one exchange more. A first reply that is not valid is no failure yet."""
        final = one.again or one.text is None
        return replace(
            self,
            asked=self.asked + (not one.again),
            answered=self.answered + (not one.reason),
            retried=self.retried + one.retries,
            reasked=self.reasked + one.again,
            failed=self.failed + (final and bool(one.reason)),
            spent=self.spent + one.load,
            seconds=self.seconds + one.seconds,
        )

    def line(self, price: Price | None) -> str:
        """For people."""
        money = self.spent.money(price)
        return (
            f"{self.asked} asked, {self.answered} answered, {self.cached} from the store, "
            f"{self.retried} retries, {self.reasked} asked again, {self.failed} failed; "
            f"{self.spent.tokens_in:,} tokens in, {self.spent.tokens_out:,} out, "
            f"{self.seconds:.0f} s" + ("" if money is None else f", cost {money:.2f}")
        )


class Account:
    """The ledger, what is under way and what was left unasked, for many threads."""

    def __init__(
        self, past: Iterable[Exchange], budget: Budget, price: Price | None, dry_run: bool
    ) -> None:
        self._lock = threading.Lock()
        self._budget, self._price, self._dry = budget, price, dry_run
        self._held: dict[str, Load] = {}
        self._unasked: dict[str, Load] = {}
        self.ledger = Ledger()
        for one in past:
            self.ledger = self.ledger.plus(one)

    @property
    def unasked(self) -> Load:
        with self._lock:
            return sum(self._unasked.values(), Load())

    def hold(self, key: str, estimate: Load) -> str:
        """Set the estimate of a call aside; or why the call is not to be made."""
        with self._lock:
            total = sum(self._held.values(), self.ledger.spent + estimate)
            passed = self._budget.passed_by(total, self._price)
            if not self._dry and not passed:
                self._held[key] = estimate
                return ""
            self._unasked[key] = estimate
        return "a dry run asks nothing" if self._dry else f"the budget of {passed} would be passed"

    def settle(self, key: str, exchange: Exchange | None) -> None:
        """Put what really was in the place of the estimate; None: nothing was."""
        with self._lock:
            del self._held[key]
            if exchange is not None:
                self.ledger = self.ledger.plus(exchange)

    def hit(self) -> None:
        """The store answered a question."""
        with self._lock:
            self.ledger = replace(self.ledger, cached=self.ledger.cached + 1)
