"""What now that an attempt failed: again after so many seconds, or give up, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from asyncguard._machines import checks, shape
from asyncguard._machines.backoff import Backoff
from asyncguard._machines.classify import TRANSIENT, TRANSIENT_KINDS, classify, kind_of_status
from asyncguard._machines.durations import in_words
from asyncguard._machines.retry_after import retry_after
from asyncguard.errors import BlockingWaitError, DeadlineExceededError, MemoryPressureError, RejectedError

__all__ = ["Attempts", "OnOption", "Policy", "Situation", "Verdict"]

OnOption = type[Exception] | tuple[type[Exception], ...] | Callable[[Any], bool | float | timedelta]
"""What `on=` takes: a class, a tuple of them, or a predicate."""

_THROTTLED_FROM = 1.0  # seconds: who is throttled starts slower (AWS, retry behaviour 2.1)
_SPREAD = 0.1  # of the pause that was asked for: those who were sent away together do not come back together


@dataclass(frozen=True, slots=True)
class Policy:
    """The options that decide."""

    on: checks.Errors
    max_retries: int | None
    backoff: Backoff
    max_retry_after: float
    retry_rejected: bool
    retry_exhausted: bool


@dataclass(frozen=True, slots=True)
class Situation:
    """What the machine cannot know by itself.

    `left` is the seconds until the deadline (None without one), `wall` the seconds since 1970 (for HTTP dates),
    `exhausted` says that a retry further inside has given up on the error, `spend` takes one retry from the budget.
    """

    left: float | None
    wall: float
    exhausted: bool
    spend: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is why to give up, empty for another attempt after `delay` seconds.

    `asked` is the pause that the target asked for and `detail` completes the reason for a reader.
    """

    kind: str
    delay: float = 0.0
    reason: str = ""
    detail: str = ""
    asked: float | None = None


class Attempts:
    """The attempts of one call. `number` is the one that runs now or comes next, from 1."""

    __slots__ = ("_policy", "_previous", "_random", "number")

    def __init__(self, policy: Policy, random: Callable[[], float]) -> None:
        self._policy = policy
        self._random = random
        self._previous = 0.0
        self.number = 1

    def failed(self, error: Exception, now: Situation) -> Verdict:
        """Decide about an error."""
        if isinstance(error, RejectedError):
            return self._rejected(error, now)
        kind = classify(error)
        if now.exhausted and not self._policy.retry_exhausted:
            return Verdict(kind, reason="exhausted")
        wanted = self._wanted(error, kind)
        asked = retry_after(error, now.wall)
        if wanted is False:
            return Verdict(kind, reason="not_retryable", detail=kind, asked=asked)
        return self._next(kind, wanted, asked, now)

    def returned(self, result: object, answer: object, now: Situation) -> Verdict | None:
        """Decide about a result and what `on_result` answered to it; None if it is what was wanted."""
        wanted = _answer("on_result", answer)
        if wanted is False:
            return None
        return self._next(kind_of_status(shape.status(result)) or "unknown", wanted, retry_after(result, now.wall), now)

    def _rejected(self, error: RejectedError, now: Situation) -> Verdict:
        hopeless = isinstance(error, DeadlineExceededError | BlockingWaitError) or (
            isinstance(error, MemoryPressureError) and error.permanent
        )
        if hopeless or not (self._policy.retry_rejected or self._names(error)):
            return Verdict("rejected", reason="rejected", detail=type(error).__name__)
        return self._next("rejected", True, error.retry_after, now)  # noqa: FBT003 - the answer of `on`

    def _names(self, error: RejectedError) -> bool:
        """Tell whether `on` names a rejection by its own class; `Exception` does not ask for rejections."""
        named = checks.classes(self._policy.on)
        return any(issubclass(each, RejectedError) and isinstance(error, each) for each in named)

    def _wanted(self, error: Exception, kind: str) -> bool | float:
        on: Any = self._policy.on
        if on is TRANSIENT:
            return kind in TRANSIENT_KINDS
        named = checks.classes(on)
        if not named:
            return _answer("on", on(error))
        # A group is one of these errors if every leaf of it is.
        group = cast("ExceptionGroup[Exception]", error) if isinstance(error, ExceptionGroup) else None
        return isinstance(error, named) or (group is not None and group.split(named)[1] is None)

    def _next(self, kind: str, wanted: bool | float, asked: float | None, now: Situation) -> Verdict:  # noqa: FBT001
        most = self._policy.max_retries
        if now.left is not None and now.left <= 0.0:
            return Verdict(kind, reason="deadline", asked=asked)
        if most is not None and self.number > most:
            return Verdict(kind, reason="max_retries", asked=asked)
        if asked is not None and asked > self._policy.max_retry_after:
            detail = f"asked for {in_words(asked)}, max_retry_after is {in_words(self._policy.max_retry_after)}"
            return Verdict(kind, reason="retry_after", detail=detail, asked=asked)
        return self._within_time(kind, self._delay(kind, wanted, asked, now.left), asked, now)

    def _within_time(self, kind: str, delay: float, asked: float | None, now: Situation) -> Verdict:
        if now.left is not None and delay >= now.left:
            detail = f"the next attempt would start in {in_words(delay)}, {in_words(now.left)} are left"
            return Verdict(kind, reason="deadline", detail=detail, asked=asked)
        # A rejected call never reached the dependency, and one that waits out a 429 does what it was told.
        if kind not in {"rejected", "throttle"} and not now.spend():
            return Verdict(kind, reason="budget", asked=asked)
        self.number += 1
        return Verdict(kind, delay=delay, asked=asked)

    def _delay(self, kind: str, wanted: bool | float, asked: float | None, left: float | None) -> float:  # noqa: FBT001
        if not isinstance(wanted, bool):
            return wanted
        least = _THROTTLED_FROM if kind == "throttle" else 0.0
        backoff = self._policy.backoff
        # A guard further inside says when to come back: that it said so often is no sign of a worse dependency.
        number = 1 if kind == "rejected" and asked else self.number
        self._previous = backoff.delay(number, 0.0 if number == 1 else self._previous, self._random, least)
        if not asked:
            return self._previous
        spread = 0.0 if backoff.jitter == "none" else asked * _SPREAD * self._random()
        delay = max(asked, self._previous) + spread
        return delay if left is None or delay < left else asked


def _answer(option: str, answer: object) -> bool | float:
    """Return what a predicate said: yes, no, or the delay in seconds. A 0 is a delay, False is a no."""
    if not isinstance(answer, bool) and isinstance(answer, int | float | timedelta):
        return checks.duration(f"the delay that {option}= returns", answer)
    return bool(answer)
