"""Every error that asyncguard raises by itself.

An error of the user's function is never wrapped: it leaves as it is, with a short note. What stands here says that a
guard decided something. All of them survive pickling with their facts.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BlockingWaitError",
    "BulkheadFullError",
    "CallTimeoutError",
    "CircuitOpenError",
    "DeadlineExceededError",
    "GuardError",
    "InputValidationError",
    "MemoryPressureError",
    "RateLimitedError",
    "RejectedError",
    "Violation",
]


def _rebuild(cls: type[GuardError], args: tuple[object, ...], state: dict[str, Any]) -> GuardError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class GuardError(Exception):
    """The root of asyncguard's own errors.

    `strategy` is the name of the strategy that raised it, `partition` the partition (host, model, tenant) it decided
    for, both empty where there is none.
    """

    strategy: str = ""
    partition: str = ""

    def __init__(self, message: str = "", *, strategy: str = "", partition: str = "") -> None:
        super().__init__(message)
        self.strategy = strategy
        self.partition = partition

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class RejectedError(GuardError):
    """The function was not called. `retry_after` says in how many seconds asking again may help, if that is known."""

    retry_after: float | None = None

    def __init__(
        self,
        message: str = "",
        *,
        strategy: str = "",
        partition: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, strategy=strategy, partition=partition)
        self.retry_after = retry_after


class CircuitOpenError(RejectedError):
    """The circuit is open: the dependency failed too often and is left alone for `retry_after` seconds."""


class BulkheadFullError(RejectedError):
    """All permits are taken and the queue is full, or the wait in it was longer than allowed."""


class RateLimitedError(RejectedError):
    """The rate allows the call only after `retry_after` seconds, which is longer than the caller may wait."""


class MemoryPressureError(RejectedError):
    """There is not enough memory for the call.

    `used`, `limit`, `reserved` and `need` are bytes. `permanent` is true if the call can never fit: waiting is
    pointless, a smaller input is not.
    """

    used: int = 0
    limit: int = 0
    reserved: int = 0
    need: int = 0
    permanent: bool = False


class DeadlineExceededError(RejectedError, TimeoutError):
    """The deadline was over before the function was called."""


class BlockingWaitError(RejectedError):
    """A sync caller would have to wait on the thread that runs an event loop.

    Waiting there would block the very loop that has to release the permit.
    """


class CallTimeoutError(GuardError, TimeoutError):
    """The function was called and did not finish in time. `seconds` is the time it was allowed."""

    seconds: float = 0.0


class Violation:
    """One broken rule of one parameter: where it is, what was expected and what came, never the data itself."""

    __slots__ = ("actual", "expected", "parameter", "path", "rule", "where")

    def __init__(  # noqa: PLR0913 - six facts make a violation
        self, parameter: str, rule: str, expected: str, actual: str, *, path: str = "", where: str = ""
    ) -> None:
        self.parameter = parameter
        self.path = path
        self.rule = rule
        self.expected = expected
        self.actual = actual
        self.where = where

    def _facts(self) -> tuple[str, ...]:
        return (self.parameter, self.path, self.rule, self.expected, self.actual, self.where)

    def __reduce__(self) -> tuple[Any, ...]:
        return _violation, self._facts()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Violation) and self._facts() == other._facts()

    def __hash__(self) -> int:
        return hash(self._facts())

    def __repr__(self) -> str:
        return f"Violation({self})"

    def __str__(self) -> str:
        place = f"{self.parameter}{self.path}"
        where = f", {self.where}" if self.where else ""
        return f"{place}: {self.rule}: expected {self.expected}, got {self.actual}{where}"


def _violation(  # noqa: PLR0913 - the pickled form of a violation
    parameter: str, path: str, rule: str, expected: str, actual: str, where: str
) -> Violation:
    return Violation(parameter, rule, expected, actual, path=path, where=where)


class InputValidationError(GuardError, ValueError):
    """The arguments (or, with `returns=`, the result) break the declared rules; all of them are in `violations`."""

    function: str = ""
    violations: tuple[Violation, ...] = ()
