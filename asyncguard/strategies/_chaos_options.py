"""The options of `chaos`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from asyncguard._machines import checks
from asyncguard._strategy import Options

Seconds = float | tuple[float, float]
Failure = Exception | type[Exception] | Callable[[], Exception]
Fault = Literal["latency", "error", "result", "cancellation"]


class _Untouched:
    """The default of `result`: None is a result like any other."""

    def __repr__(self) -> str:
        return "UNTOUCHED"

    def __reduce__(self) -> str:
        return "UNTOUCHED"


UNTOUCHED: Final = _Untouched()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosOptions(Options):
    """The options of `chaos`, durations in seconds."""

    rate: float
    latency: Seconds | None = None
    error: Failure | None = None
    result: Any = UNTOUCHED
    cancel: bool = False
    enabled: bool | Callable[[], bool] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        Options.__post_init__(self)
        self.set("rate", checks.fraction("rate", self.rate))
        checks.boolean("cancel", self.cancel)
        if self.latency is not None:
            self.set("latency", _seconds(self.latency))
        if self.error is not None:
            new_error(self.error)
        if self.enabled is not None and not isinstance(self.enabled, bool):
            checks.function("enabled", self.enabled)
        if self.seed is not None:
            checks.integer("seed", self.seed)
        if not self.faults:
            raise ValueError("chaos needs something to inject: at least one of latency=, error=, result=, cancel=True")

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Which faults there are, each as likely as the others."""
        there: dict[Fault, bool] = {
            "latency": self.latency is not None,
            "error": self.error is not None,
            "result": self.result is not UNTOUCHED,
            "cancellation": self.cancel,
        }
        return tuple(fault for fault, given in there.items() if given)


def _seconds(value: Any) -> Seconds:
    if not isinstance(value, tuple):
        return checks.duration("latency", value)
    pair = cast("tuple[object, ...]", value)
    if len(pair) != 2:  # noqa: PLR2004 - a range has two ends
        raise checks.fail("latency", pair, "seconds, or a pair (least, most) of them")
    least = checks.duration("latency", pair[0])
    return least, checks.duration("latency", pair[1], least=least)


def new_error(value: Any) -> Exception:
    """Return a new error from an `error=` option; TypeError if there is none to be had."""
    if isinstance(value, Exception):
        return value.with_traceback(None)  # raised again and again, it would carry all the ways it went
    if isinstance(value, type):
        checks.errors("error", value)
        try:
            error = value("injected by chaos")
        except TypeError:
            text = "an exception class that takes a message (else give an instance, or a function that makes one)"
            raise checks.wrong_type("error", value, text) from None
        return cast("Exception", error)
    if isinstance(value, BaseException) or not callable(value):
        raise checks.wrong_type("error", value, "an Exception, a class of it, or a function that makes one")
    return _made(checks.plain("error", value))


def _made(value: Callable[[], object]) -> Exception:
    error = value()
    if not isinstance(error, Exception):
        raise checks.wrong_type("what error= makes", error, "an Exception")
    return error
