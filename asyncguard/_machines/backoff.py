"""How long to wait before the next attempt.

The delay grows geometrically up to a cap, and the cap comes before the jitter: jittered first and capped then, all who
wait long would come back together. The jitters are those of Marc Brooker, "Exponential Backoff And Jitter" (AWS, 2015):
full jitter ends contention with the fewest calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

from asyncguard._machines import checks

__all__ = ["Backoff", "Jitter", "check_jitter"]

Jitter = Literal["full", "equal", "decorrelated", "none"] | float | Callable[[float], float]

_JITTERS = ("full", "equal", "decorrelated", "none")
_SPREAD = 3.0  # of the decorrelated jitter: up to three times the delay before


def check_jitter(value: object) -> Jitter:
    """Return a `jitter=` option; raise ValueError if it is none of the words, no fraction and not callable."""
    allowed = "'full', 'equal', 'decorrelated', 'none', a fraction 0..1, or a callable on the delay"
    if isinstance(value, str):
        if value in _JITTERS:
            return cast("Jitter", value)
        raise checks.fail("jitter", value, allowed)
    if callable(value):
        return checks.plain("jitter", value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise checks.fail("jitter", value, allowed)
    return float(value)


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delays of a retry: `initial` seconds, times `factor` for each further one, at most `maximum` seconds.

    `jitter`: "full" is uniform between 0 and the delay, "equal" between half of it and all of it, "decorrelated"
    between `initial` and three times the delay before (the factor has no say), "none" leaves it, a fraction f spreads
    it by f to both sides (so it may exceed the maximum by that), a callable gets the delay and returns another.
    """

    initial: float
    factor: float
    maximum: float
    jitter: Jitter

    def ceiling(self, retry: int, least: float = 0.0) -> float:
        """Return the delay before retry number `retry` (from 1) before any jitter; it starts at `least` at least."""
        initial = min(self.maximum, max(self.initial, least))
        if initial <= 0.0 or self.factor == 1.0:
            return initial
        # The power is not even tried where it would pass the maximum: it overflows from attempt 1100 or so on.
        steps = math.log(self.maximum / initial) / math.log(self.factor)
        return self.maximum if retry - 1 >= steps else min(self.maximum, initial * self.factor ** (retry - 1))

    def delay(self, retry: int, previous: float, random: Callable[[], float], least: float = 0.0) -> float:
        """Return the delay in seconds before retry number `retry` (from 1); `previous` is the delay before that."""
        if self.jitter == "decorrelated":
            return self._decorrelated(previous, random, least)
        return self._jittered(self.ceiling(retry, least), random)

    def _decorrelated(self, previous: float, random: Callable[[], float], least: float) -> float:
        low = self.ceiling(1, least)
        high = min(self.maximum, max(low, previous) * _SPREAD)
        return low + (high - low) * random()

    def _jittered(self, ceiling: float, random: Callable[[], float]) -> float:
        jitter: Any = self.jitter
        if jitter == "full":
            return ceiling * random()
        if jitter == "equal":
            return ceiling * (0.5 + 0.5 * random())
        if jitter == "none":
            return ceiling
        if callable(jitter):
            return checks.duration("the delay that jitter= returns", jitter(ceiling))
        return ceiling * (1.0 + float(jitter) * (2.0 * random() - 1.0))
