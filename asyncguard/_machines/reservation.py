"""The ticket of a rate limiter: a place in the queue, to be claimed when its time has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncguard._machines.timetable import Place, Timetable

if TYPE_CHECKING:
    from asyncguard._machines.bucket import Bucket
    from asyncguard._machines.gate import Request, Wake
    from asyncguard._machines.rate_costs import Costs
    from asyncguard.errors import RateLimitedError

__all__ = ["SECOND", "Reservation"]

SECOND = 10**9
"""Nanoseconds."""


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
