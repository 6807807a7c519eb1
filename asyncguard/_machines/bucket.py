"""The rate limiter's machine: several rates at once, all or nothing, and a queue of reserved places.

A caller that cannot start at once reserves the exact time at which it may, in the order of arrival (the reservation
model of Failsafe's RateLimiter): one timer each and no polling, and nobody is overtaken by smaller calls. A place that
is given back moves those behind it forward. A wait that would be too long is refused at once and reserves nothing.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from asyncguard._machines.gate import Request, Spot, Wake
from asyncguard._machines.gcra import Line
from asyncguard._machines.rates import Rate
from asyncguard.errors import RateLimitedError

__all__ = ["Bucket", "Reservation"]

Costs = list[float]
"""A permit: what the call took of each rate, in units of the rate."""

SECOND = 10**9
NOBODY: Wake = ()


class Reservation:
    """A place in the queue. `slot` is the time in ns at which it may be claimed, `before` where the rates stood."""

    __slots__ = ("_bucket", "ahead", "before", "claimed", "costs", "gone", "number", "slot", "spot", "told", "until")

    def __init__(self, bucket: Bucket, request: Request, costs: Costs, number: int, ahead: int) -> None:
        self._bucket = bucket
        self.spot = request.spot
        self.until = request.until
        self.costs = costs
        self.number = number
        self.ahead = ahead
        self.before: list[int] = []
        self.slot = 0
        self.told = math.inf  # when the waiter looks again by itself
        self.claimed = False
        self.gone = False

    def claim(self, now: float) -> Costs | None:
        """Take the permit if its time has come."""
        return self._bucket.claim(self, now)

    def due(self, now: float) -> float:
        """Return the time of its slot, in seconds."""
        del now
        return self._bucket.due(self)

    def withdraw(self) -> Wake:
        """Give the place back to those behind."""
        return self._bucket.withdraw(self)

    def late(self, now: float) -> RateLimitedError:
        """Return the rejection of a waiter that was moved back beyond its time."""
        return self._bucket.refusal(self.slot / SECOND - now, self.until - now)

    def waits(self) -> bool:
        """Tell whether its place is still to be claimed."""
        return not (self.claimed or self.gone)


class Bucket:
    """Rates that hold together. `clock_ns` gives monotonic nanoseconds, `label` names it in messages."""

    outcomes: ClassVar[bool] = False
    timed: ClassVar[bool] = False
    news: ClassVar[tuple[()]] = ()

    def __init__(self, rates: Sequence[Rate], clock_ns: Callable[[], int], label: str = "rate_limit") -> None:
        self._clock = clock_ns
        self._label = label
        self._renew()
        self._set_rates(rates, [])

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[Reservation] = deque()
        self._arrivals = 0
        # The places behind reservation `_stale` (its number) are to be timed anew, from `_base` on.
        self._stale: float = math.inf
        self._base: list[int] = []

    def _set_rates(self, rates: Sequence[Rate], ahead: Sequence[int]) -> None:
        now = self._clock()
        self._lines = [Line(rate, now + debt) for rate, debt in zip(rates, [*ahead, *[0] * len(rates)], strict=False)]
        self._weighed = any(rate.cost is not None for rate in rates)
        self._first = self._lines[0]
        self._simple = len(self._lines) == 1 and not self._weighed
        self._ones: Costs = [1] * len(self._lines)

    # --- the gate ---

    def take(self) -> Costs:
        """Let a call of cost 1 start now, or raise LookupError. The lock is held for a comparison and a store."""
        if not self._simple:
            raise LookupError
        line = self._first
        now = self._clock() * line.scale
        with self._lock:
            tat = line.tat
            if tat < now:
                tat = now
            if tat - now > line.reach or self._queue:
                raise LookupError
            line.tat = tat + line.one
        return [1]

    def admit(self, request: Request) -> Costs | Reservation:
        """Return a permit, or the place that was reserved; raise RateLimitedError if its time would be too late.

        Raises ValueError for a cost that no burst allows, or that is no cost.
        """
        costs = self._costs(request.cost)
        with self._lock:
            now = self._clock()
            self._tidy(now)
            slot = self._slot([line.tat for line in self._lines], costs, now)
            if slot > now and slot / SECOND > request.until:
                raise self.refusal((slot - now) / SECOND, request.until - now / SECOND)
            place = Reservation(self, request, costs, self._arrivals, len(self._queue))
            self._reserve(place, slot)
            if slot > now:
                self._queue.append(place)
                return place
            if self._queue:  # it fits beside those who wait, and has to stay when they are timed anew
                place.claimed = True
                self._queue.append(place)
            return costs

    def claim(self, place: Reservation, now: float) -> Costs | None:
        """Take the permit of a reservation whose time has come; `now` in seconds."""
        with self._lock:
            self._tidy(self._clock())
            if place.slot / SECOND > now:
                return None
            place.claimed = True
            self._trim()
            following = self._next()
        # Those behind may have been moved forward since they set their timers: each wakes the next in line.
        if following is not None and following.told > following.slot / SECOND and following.spot is not None:
            following.spot.wake()
        return place.costs

    def due(self, place: Reservation) -> float:
        """Return the time of a reservation in seconds."""
        with self._lock:
            self._tidy(self._clock())
            place.told = place.slot / SECOND
            return place.told

    def withdraw(self, place: Reservation) -> Wake:
        """Take back a reservation; whoever stands first now is woken."""
        with self._lock:
            if place.claimed:
                return self._shift([-cost for cost in place.costs])
            place.gone = True
            self._stale_from(place.number, place.before)
            self._trim()
            return self._wake_first()

    def refund(self, permit: Costs) -> Wake:
        """Give back what a call took that was never made."""
        with self._lock:
            costs, permit[:] = [-cost for cost in permit], [0] * len(permit)
            return self._shift(costs)

    def reconcile(self, permit: Costs, actual: float) -> Wake:
        """Correct the cost of a permit by what it really was; a debt is repaid by those who come later."""
        _checked(actual, "the actual cost")
        with self._lock:
            corrected = self._spread(actual)
            changes = [new - old for new, old in zip(corrected, permit, strict=False)]
            permit[:] = corrected
            return self._shift(changes)

    def limit(self, remaining: float | None, reset: float | None, *, weighed: bool) -> Wake:
        """Take over what a service says is left: never more than we believe.

        `remaining` is in units of the rate, `reset` the seconds after which there is more; with nothing left nothing
        starts before. `weighed` chooses the rates with a cost, or those without.
        """
        with self._lock:
            now = self._clock()
            self._tidy(now)
            lines = [self._least(line, now, remaining, reset, weighed=weighed) for line in self._lines]
            base = self._front()
            return self._move([max(new, old) for new, old in zip(lines, base, strict=True)])

    def release(self, permit: Costs) -> Wake:
        """Do nothing: a rate is not given back."""
        del permit
        return NOBODY

    def succeeded(self, permit: Costs, elapsed: float) -> Wake:
        """Say nothing: a rate does not look at outcomes."""
        del permit, elapsed
        return NOBODY

    def failed(self, permit: Costs, elapsed: float, error: Exception) -> Wake:
        """Say nothing: a call that failed was sent all the same."""
        del permit, elapsed, error
        return NOBODY

    def abandoned(self, permit: Costs) -> Wake:
        """Say nothing: a call that was cancelled was sent all the same."""
        del permit
        return NOBODY

    # --- what it says about itself ---

    def peek(self, cost: object = 1) -> float:
        """Return in how many seconds a call of that cost could start, 0.0 if now; takes nothing."""
        costs = self._costs(cost)
        with self._lock:
            now = self._clock()
            self._tidy(now)
            return (self._slot([line.tat for line in self._lines], costs, now) - now) / SECOND

    def describe(self) -> str:
        """Say in a few words what is left of each rate, and who waits."""
        with self._lock:
            now = self._clock()
            self._tidy(now)
            left = ", ".join(f"{line.rate}: {line.left(now):g} left" for line in self._lines)
            return f"{left}; {sum(place.waits() for place in self._queue)} waiting"

    def idle(self) -> bool:
        """Tell whether every rate is at rest and nobody waits."""
        with self._lock:
            now = self._clock()
            self._tidy(now)
            return not self._queue and all(line.full(now) for line in self._lines)

    def refusal(self, wait: float, patience: float) -> RateLimitedError:
        """Return the rejection of a caller who would wait longer than it may; both in seconds."""
        rates = ", ".join(str(line.rate) for line in self._lines)
        message = (
            f"{self._label}: {rates} allows this call in {wait:.2f} s, and it may wait for {max(0.0, patience):.2f} s "
            "(max_wait or its deadline)"
        )
        return RateLimitedError(message, retry_after=max(0.0, wait))

    def configure(self, rates: Sequence[Rate]) -> None:
        """Take other rates. Reserved places keep their times, and the new rates begin behind them."""
        with self._lock:
            now = self._clock()
            self._tidy(now)
            ahead = [max(0, line.tat // line.scale - now) for line in self._lines]
            self._queue.clear()
            self._set_rates(rates, ahead)

    def after_fork(self) -> None:
        """In a forked child: a new lock, and nobody waits."""
        base = self._front()
        for line, tat in zip(self._lines, base, strict=True):
            line.tat = tat
        self._renew()

    # --- costs ---

    def _costs(self, cost: object) -> Costs:
        """Return the cost for each rate from a number, or from one number per rate; ValueError if it never fits."""
        costs = list(cost) if isinstance(cost, list | tuple) else self._spread(_checked(cost, "the cost"))
        for line, each in zip(self._lines, costs, strict=True):
            if _checked(each, f"the cost for {line.rate}") > line.rate.burst:
                message = f"{self._label}: a cost of {each:g} never fits into {line.rate}, whose burst is {float(line.rate.burst):g}"
                raise ValueError(message)
        return costs

    def _spread(self, cost: float) -> Costs:
        """A single number is for the rates that weigh calls; where none does, for all."""
        if not self._weighed:
            return [cost] * len(self._lines)
        return [1 if line.rate.cost is None else cost for line in self._lines]

    # --- places, all under the lock ---

    def _slot(self, tats: list[int], costs: Costs, earliest: int) -> int:
        slots = [line.opens(tat, line.units(cost)) for line, tat, cost in zip(self._lines, tats, costs, strict=True) if cost]
        return max(earliest, *slots) if slots else earliest
