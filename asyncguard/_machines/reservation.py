"""The ticket of a rate limiter: a place in the queue, to be claimed when its time has come."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any

from asyncguard._machines import checks
from asyncguard._machines.gate import Request, Wake
from asyncguard._machines.gcra import Line
from asyncguard._machines.rates import Rate
from asyncguard._machines.timetable import Place, Timetable

if TYPE_CHECKING:
    from asyncguard._machines.bucket import Bucket
    from asyncguard.errors import RateLimitedError

__all__ = ["SECOND", "Costs", "Priced", "Reservation", "cost_of", "fitted"]

Costs = list[float]
"""A permit: what the call took of each rate, in units of the rate."""

SECOND = 10**9


class Priced(list[Any]):
    """What a call costs under each of some rates, which may be others when it comes in."""

    __slots__ = ("rates",)

    def __init__(self, rates: Sequence[Rate], costs: Iterable[Any]) -> None:
        super().__init__(costs)
        self.rates = rates

    def fits(self, lines: Sequence[Line]) -> bool:
        """Tell whether these are still the rates."""
        return len(self.rates) == len(lines) and all(map(is_, self.rates, (line.rate for line in lines)))


def fitted(costs: Sequence[Any], lines: Sequence[Line]) -> Costs:
    """Return the costs of a call that was priced, or let in, before the rates changed: it is no error of its caller."""
    given = [cost_of("a cost", each) for each in costs] + [1] * len(lines)
    return [min(each, float(line.rate.burst)) for line, each in zip(lines, given, strict=False)]


def cost_of(what: str, cost: Any, most: float = math.inf) -> float:
    """Return a cost, a whole number as an int; ValueError if it is none."""
    if hasattr(cost, "__index__") and not isinstance(cost, bool):  # NumPy's integers, too
        cost = int(cost)
    number = checks.number(what, cost, least=0.0, most=most)
    return cost if isinstance(cost, int) else number


class Reservation(Place):
    """A place in the queue of a bucket; the bucket decides, under its lock."""

    __slots__ = ("_bucket", "ahead", "permit", "table", "told", "until")

    def __init__(self, bucket: Bucket, table: Timetable, request: Request, costs: Costs) -> None:
        super().__init__(tuple(costs), request.spot)  # what it was timed with, whatever becomes of the permit
        self._bucket = bucket
        self.permit = costs
        self.table = table
        self.until = request.until
        self.ahead = table.waiting
        self.told = 0.0  # when the waiter looks again by itself

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
        """Return the rejection of a waiter whose place was moved back beyond its time."""
        return self._bucket.refusal(self.slot / SECOND - now, self.until - now)
