"""The options of `circuit_breaker`, and which errors count as failures unless it is told otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

from asyncguard._admission import AdmissionOptions
from asyncguard._machines import checks
from asyncguard._machines.checks import On
from asyncguard._machines.circuit_rules import CircuitRules
from asyncguard._machines.classify import classify
from asyncguard.errors import RejectedError

__all__ = ["CircuitBreakerOptions", "is_dependency_failure"]

_FAILURES = frozenset({"transient", "timeout", "unknown"})


def is_dependency_failure(error: Exception) -> bool:
    """Tell whether an error says that the dependency is in trouble: transient, timeout or unknown.

    Throttling, the caller's own mistakes (4xx, `ValueError`) and asyncguard's rejections do not: they would let one
    tenant's bad requests open the circuit for all.
    """
    return not isinstance(error, RejectedError) and classify(error) in _FAILURES


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerOptions(AdmissionOptions):
    """The options of `circuit_breaker`; durations are in seconds once they are checked."""

    failure_rate: float = 0.5
    window: timedelta | int = timedelta(seconds=60)
    minimum_calls: int = 20
    open_for: float = 30.0
    on: On = is_dependency_failure
    slow_call: float | None = None
    slow_call_rate: float = 1.0
    consecutive_failures: int | None = None
    open_factor: float = 2.0
    max_open_for: float = 300.0
    half_open_calls: int = 3

    def __post_init__(self) -> None:
        """Check the options."""
        AdmissionOptions.__post_init__(self)
        for rate in ("failure_rate", "slow_call_rate"):
            self.set(rate, checks.fraction(rate, getattr(self, rate), above=0.0))
        for count in ("minimum_calls", "half_open_calls"):
            checks.integer(count, getattr(self, count), least=1)
        if self.consecutive_failures is not None:
            checks.integer("consecutive_failures", self.consecutive_failures, least=1)
        self.set("on", checks.errors("on", self.on))
        _check_window(self.window)
        self._check_durations()

    def _check_durations(self) -> None:
        self.set("open_for", checks.duration("open_for", self.open_for, above=0.0))
        if self.slow_call is not None:
            self.set("slow_call", checks.duration("slow_call", self.slow_call, above=0.0))
        checks.number("open_factor", self.open_factor, least=1.0)
        self.set("max_open_for", checks.duration("max_open_for", self.max_open_for, above=0.0))
        if self.max_open_for < self.open_for:
            raise checks.fail("max_open_for", self.max_open_for, f"at least open_for, which is {self.open_for:g}")

    def rules(self) -> CircuitRules:
        """Return what the machine needs."""
        seconds, calls = (self.window.total_seconds(), 0) if isinstance(self.window, timedelta) else (0.0, self.window)
        return CircuitRules(
            failure_rate=self.failure_rate,
            window_seconds=seconds,
            window_calls=calls,
            minimum_calls=self.minimum_calls,
            open_for=self.open_for,
            slow_call=math.inf if self.slow_call is None else self.slow_call,
            slow_call_rate=self.slow_call_rate,
            consecutive_failures=self.consecutive_failures or 0,
            open_factor=self.open_factor,
            max_open_for=self.max_open_for,
            half_open_calls=self.half_open_calls,
        )

    def counts(self, error: Exception) -> bool:
        """Tell whether an error is a failure of the dependency; a rejection never is, whatever `on` says."""
        return not isinstance(error, RejectedError) and checks.covers(cast("checks.Errors", self.on), error)


def _check_window(window: object) -> None:
    if isinstance(window, timedelta):
        if window <= timedelta(0):
            raise checks.fail("window", window, "a timedelta greater than 0, or a number of calls")
    elif isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise checks.fail("window", window, "a timedelta, or an integer (the last so many calls) of at least 1")
