"""The rate limiter's machine: several rates at once, all or nothing, and a queue of reserved places.

A caller that cannot start at once reserves the exact time at which it may, in the order of arrival (the reservation
model of Failsafe's RateLimiter): one timer each and no polling, and nobody is overtaken by smaller calls. A place that
is given back moves those behind it forward. A wait that would be too long is refused at once and reserves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from asyncguard._machines.bucket_alone import Exclusive, alone
from asyncguard._machines.bucket_quick import quick, quick_all
from asyncguard._machines.durations import in_words
from asyncguard._machines.gate import NOBODY, Request, Wake, wake
from asyncguard._machines.gcra import Line, lines_of
from asyncguard._machines.rate_costs import Costs, cost_of, costs_of, fitted, spread
from asyncguard._machines.rates import Rate
from asyncguard._machines.reservation import SECOND, Reservation
from asyncguard._machines.timetable import Timetable
from asyncguard._machines.unjudged import Unjudged
from asyncguard.errors import RateLimitedError

__all__ = ["Bucket"]


class Bucket(Exclusive, Unjudged):
    """Rates that hold together. `clock_ns` gives monotonic nanoseconds, `label` names it in messages."""

    def __init__(self, rates: Sequence[Rate], clock_ns: Callable[[], int], label: str = "rate_limit") -> None:
        self.outcomes = False
        self.timed = False
        self.news: tuple[()] = ()
        self._clock = clock_ns
        self._label = label
        super().__init__()
        self._set_lines(lines_of(rates, clock_ns()))

    def _set_lines(self, lines: Sequence[Line]) -> None:
        self._table = Timetable(lines)
        self.queue = self._table.queue
        self.lines = lines
        self._weighed = any(line.rate.cost is not None for line in lines)
        self.take = self._fast_path()

    def _fast_path(self) -> Callable[[], Costs]:
        if self._weighed:
            return _never
        if len(self.lines) == 1:
            return quick(self.lines[0], self._clock, self.lock)
        return quick_all(self.lines, self._clock, self.lock)

    # --- the gate; `take`, the fast path, is made above ---

    def admit(self, request: Request) -> Costs | Reservation:
        """Return a permit, or the place that was reserved; raise RateLimitedError if its time would be too late.

        Raises ValueError for a cost that is none, or that no burst allows.
        """
        lines = self.lines
        return self._admit(request, costs_of(request.cost, lines), lines)

    @alone
    def _admit(self, request: Request, costs: Costs, lines: Sequence[Line]) -> Costs | Reservation:
        now = self._tidy()
        if lines is not self.lines:  # changed meanwhile, by another thread
            costs = fitted(costs, self.lines)
        place = Reservation(self, self._table, request, costs)
        self._table.meet(place, now)
        if place.slot > now and place.slot / SECOND > request.until:
            raise self.refusal((place.slot - now) / SECOND, request.until - now / SECOND)
        self._table.add(place, now)
        return costs if place.claimed else place

    def claim(self, place: Reservation, now: float) -> Costs | None:
        """Take the permit of a reservation whose time has come; `now` in seconds."""
        following = self._claim(place, now)
        if following is None:
            return None
        wake(following)
        return place.permit

    @alone
    def _claim(self, place: Reservation, now: float) -> Wake | None:
        # By our own clock as well: a late place was just timed anew from there, which is after the caller read its own.
        now_ns = self._tidy()
        table = place.table
        if table is not self._table:
            table.tidy(now_ns)
        if place.gone:
            return self._come_again(place, now_ns)
        table.update(place)
        if place.slot > now_ns and place.slot / SECOND > now:
            return None
        table.claim(place)
        # Those behind may have been moved forward since they set their timers: each wakes the next in line.
        following = table.first() or self._table.first()
        if not isinstance(following, Reservation):
            return NOBODY
        following.table.update(following)
        return (following.spot,) if following.told > following.slot / SECOND else NOBODY

    def _come_again(self, place: Reservation, now: int) -> Wake | None:
        """Let in at the end of the queue who was skipped because its event loop stood still, and goes on now."""
        if place.table is not self._table:
            place.permit[:] = fitted(place.permit, self.lines)
            place.costs, place.table = tuple(place.permit), self._table
        self._table.meet(place, now)
        if place.slot / SECOND > max(place.until, now / SECOND):
            return None
        place.gone = False
        self._table.add(place, now)
        return NOBODY if place.claimed else None

    @alone
    def due(self, place: Reservation) -> float:
        """Return the time of a reservation in seconds."""
        now = self._tidy()
        if place.gone:
            return math.inf  # it was skipped, and comes again too late: nothing to look for before its time is over
        if place.table is not self._table:
            place.table.tidy(now)
        place.table.update(place)
        place.told = place.slot / SECOND
        return place.told

    def withdraw(self, place: Reservation) -> Wake:
        """Take back a reservation; whoever stands first now is woken."""
        return self.give(self._withdraw, place)

    def refund(self, permit: Costs) -> Wake:
        """Give back what a call took that was never made."""
        return self.give(self._correct, permit, [0.0] * len(permit))

    def reconcile(self, permit: Costs | None, actual: float) -> Wake:
        """Correct the cost of a permit by what it really was; a debt is repaid by those who come later."""
        actual = cost_of("the actual cost", actual)
        # None: the limiter only observes
        return NOBODY if permit is None else self.give(self._reconcile, permit, actual)

    def limit(self, remaining: float | None, reset: float | None, *, weighed: bool) -> Wake:
        """Take over what a service says is left of its own count; we never believe in more than before.

        `remaining` is in units of the rate, `reset` the seconds until there is more: with less than 1 left, nothing
        starts before. `weighed` means the rates that have a cost, False those that have none.
        """
        return self.give(self._limit, remaining, reset, weighed)

    def release(self, permit: Costs) -> Wake:
        """Do nothing: a rate is not given back."""
        del permit
        return NOBODY

    # --- what it says about itself, and what is said to it ---

    def wait(self, cost: object = 1) -> float:
        """Return in how many seconds a call of that cost could start, 0.0 if now; takes nothing."""
        lines = self.lines
        return self._wait(costs_of(cost, lines), lines)

    @alone
    def _wait(self, costs: Costs, lines: Sequence[Line]) -> float:
        now = self._tidy()
        if lines is not self.lines:
            costs = fitted(costs, self.lines)
        return (self._table.earliest(costs, now) - now) / SECOND

    @alone
    def describe(self) -> str:
        """Say in a few words what is left of each rate, and who waits."""
        now = self._tidy()
        left = ", ".join(f"{line.rate}: {_tenths(max(0.0, line.left(now)))} left" for line in self.lines)
        pause = self._pause(now)
        soon = f", next in {in_words(pause, 2)}" if pause > 0 else ""
        return f"{left}; {self._table.waiting} waiting{soon}"

    @alone
    def pause(self) -> float:
        """Return the seconds until the next call may start: the first who waits, or a newcomer."""
        return self._pause(self._tidy())

    def _pause(self, now: int) -> float:
        first = self._table.first()
        if first is None:
            slot = self._table.earliest([min(1.0, float(line.rate.burst)) for line in self.lines], now)
        else:
            self._table.update(first)
            slot = first.slot
        return max(0, slot - now) / SECOND

    @alone
    def idle(self) -> bool:
        """Tell whether every rate is at rest and nobody waits."""
        now = self._tidy()
        return not self.queue and all(line.full(now) for line in self.lines)

    def refusal(self, wait: float, patience: float) -> RateLimitedError:
        """Return the rejection of a caller who would wait longer than it may; both in seconds."""
        rates = ", ".join(str(line.rate) for line in self.lines)
        message = (
            f"{self._label}: {rates} allows this call in {in_words(wait)}, "
            f"and it may wait for {in_words(max(0.0, patience))} (max_wait or its deadline)"
        )
        return RateLimitedError(message, retry_after=max(0.0, wait))

    @alone
    def configure(self, rates: Sequence[Rate]) -> None:
        """Take other rates. Reserved places keep their times, and the new rates begin behind them."""
        now = self._tidy()
        ahead = [max(0, line.tat // line.scale - now) for line in self.lines] + [0] * len(rates)
        lines = lines_of(rates, now)
        for line, debt in zip(lines, ahead, strict=False):
            line.tat += debt * line.scale
        self._set_lines(lines)

    def after_fork(self) -> None:
        """In a forked child: a new lock, and nobody waits."""
        self.renew()
        lines = lines_of([line.rate for line in self.lines], self._tidy())
        for line, tat in zip(lines, self._table.front(), strict=True):
            line.tat = tat
        self._set_lines(lines)

    def reentered(self) -> RateLimitedError:
        """Return the refusal of a caller that asks in the middle of a decision: the garbage collector ended it."""
        return RateLimitedError(
            f"{self._label}: asked by a finalizer that ran while this limiter decided about another call on the same "
            "thread; make no guarded call in __del__, or make it in a task",
            retry_after=0.0,
        )

    # --- under the lock ---

    def _withdraw(self, place: Reservation) -> Wake:
        if place.claimed:  # interrupted between the claim and the call
            return self._correct(place.permit, [0.0] * len(place.permit))
        now, table = self._tidy(), place.table
        if table is not self._table:
            table.tidy(now)
        if not place.gone:
            table.leave(place, now)
        first = table.first()  # of those who waited when the rates changed
        return (first.spot,) if first is not None else self._first_spot()

    def _limit(self, remaining: float | None, reset: float | None, weighed: bool) -> Wake:  # noqa: FBT001
        now = self._tidy()
        front = list(self._table.front())
        for i, line in enumerate(self.lines):
            if (line.rate.cost is not None) == weighed:
                front[i] = max(front[i], line.drained(now, remaining, reset))
        self._table.move(front, now)
        return self._first_spot()

    def _tidy(self) -> int:
        now = self._clock()
        self._table.tidy(now)
        return now

    def _reconcile(self, permit: Costs, actual: float) -> Wake:
        return self._correct(permit, spread(actual, self.lines))

    def _correct(self, permit: Costs, costs: Costs) -> Wake:
        now = self._tidy()
        front = list(self._table.front())
        each_line = zip(self.lines, costs, permit, strict=False)  # there may be more lines, or fewer, by now
        for i, (line, cost, taken) in enumerate(each_line):
            front[i] = max(front[i], now * line.scale) + line.units(cost) - line.units(taken)
        permit[:] = costs[: len(permit)]
        self._table.move(front, now)
        return self._first_spot()

    def _first_spot(self) -> Wake:
        first = self._table.first()
        return NOBODY if first is None else (first.spot,)


def _never() -> Costs:
    raise LookupError


def _tenths(number: float) -> str:
    return f"{round(number, 1) + 0.0:.1f}".removesuffix(".0")  # 0.0: a zero has no sign
