"""When a circuit opens, for how long, and what it takes to close it: the numbers and nothing that changes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from asyncguard._machines.probes import Probes
from asyncguard._machines.window import CountWindow, Tally, TimeWindow, Window

__all__ = ["CircuitRules"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitRules:
    """When to open, for how long, and what it takes to close: checked and in seconds. See `circuit_breaker`."""

    failure_rate: float = 0.5
    window_seconds: float = 60.0
    window_calls: int = 0  # > 0: the last so many calls instead of seconds
    minimum_calls: int = 20
    open_for: float = 30.0
    slow_call: float = math.inf
    slow_call_rate: float = 1.0
    consecutive_failures: int = 0  # 0: not asked
    open_factor: float = 2.0
    max_open_for: float = 300.0
    half_open_calls: int = 3

    def new_window(self, now: float) -> Window:
        """Return an empty window."""
        if self.window_calls:
            return CountWindow(self.window_calls, self.minimum_calls)
        return TimeWindow(self.window_seconds, now)

    def counts_like(self, other: CircuitRules) -> bool:
        """Tell whether a window of the other rules may be kept."""
        mine, theirs = (
            (each.window_seconds, each.window_calls, each.minimum_calls, each.slow_call) for each in (self, other)
        )
        return mine == theirs

    def trip(self, tally: Tally) -> bool:
        """Tell whether a closed circuit has to open."""
        if self.consecutive_failures and tally.run >= self.consecutive_failures:
            return True
        # A window of fewer calls than the minimum could never open.
        minimum = min(self.minimum_calls, self.window_calls or self.minimum_calls)
        return tally.calls >= minimum and self._too_many(tally.failed, tally.slow, tally.calls)

    def decide(self, probes: Probes) -> bool | None:
        """Tell whether a half-open circuit has to open (True) or close (False); None while it may go either way."""
        if self.consecutive_failures and probes.run() >= self.consecutive_failures:
            return True
        if self._too_many(probes.failed, probes.slow, probes.allowed):
            return True
        missing = probes.missing()
        slow = probes.slow + missing if self.slow_call < math.inf else 0
        return None if self._too_many(probes.failed + missing, slow, probes.allowed) else False

    def _too_many(self, failed: int, slow: int, calls: int) -> bool:
        return failed / calls >= self.failure_rate or slow / calls >= self.slow_call_rate
