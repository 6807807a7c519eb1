"""The generic cell rate algorithm (ITU-T I.371) for one rate, in integers.

One number says all: the theoretical arrival time, at which the bucket would be full again. A call of cost c moves it c
emission intervals later, and fits if that is at most a burst's worth of intervals from now. Time is counted in
nanoseconds times `scale`, the smallest whole number that makes the emission interval whole (3 for "3/s"), and of all
rates that hold together: nothing is ever rounded, so the last unit of a burst is not lost as it is with floats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from asyncguard._machines.rates import Rate

__all__ = ["SHUT", "Line", "lines_of"]

SHUT = -(1 << 100)


class Line:
    """The state of one rate. Times are nanoseconds; `tat`, `seen` and units are nanoseconds * `scale`.

    `gap` is how far `tat` may lie ahead for a call of cost 1 to start by the fast path: `reach`, or SHUT while that has
    to stay out. `seen` is the latest time that was acted on, so that a clock that goes back is noticed.
    """

    __slots__ = ("burst", "gap", "interval", "rate", "reach", "scale", "seen", "tat")

    def __init__(self, rate: Rate, now: int, scale: int | None = None) -> None:
        interval = rate.period / rate.limit
        self.rate = rate
        self.scale = interval.denominator if scale is None else scale
        self.interval = int(interval * self.scale)
        self.burst = math.floor(rate.burst * self.interval)
        self.gap = self.reach = self.burst - self.interval
        self.tat = self.seen = now * self.scale

    def units(self, cost: float) -> int:
        """Return a cost as time; a whole number of calls exactly, others to the nearest unit."""
        return cost * self.interval if isinstance(cost, int) else round(cost * self.interval)

    def drained(self, now: int, remaining: float | None, reset: float | None) -> int:
        """Return where the bucket stands if no more than `remaining` is left, and more only in `reset` seconds."""
        tat = now * self.scale
        if remaining is not None:
            tat += self.burst - self.units(remaining)
        if reset is not None and (remaining is None or remaining < 1):
            tat = max(tat, (now + round(reset * 1e9)) * self.scale + self.reach)
        return tat

    def left(self, now: int) -> float:
        """Return how much cost fits now, below zero while a debt is repaid."""
        return (self.burst - max(0, self.tat - now * self.scale)) / self.interval

    def full(self, now: int) -> bool:
        """Tell whether nothing would be lost by forgetting this line."""
        return self.tat <= now * self.scale


def lines_of(rates: Sequence[Rate], now: int) -> list[Line]:
    """Return the lines of rates that hold together, on one scale."""
    scale = math.lcm(*((rate.period / rate.limit).denominator for rate in rates))
    return [Line(rate, now, scale) for rate in rates]
