"""A place in the queue of a gate: the ticket that its caller waits on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asyncguard._machines.gate import Request, Wake
    from asyncguard._machines.queued import Queued
    from asyncguard.errors import BulkheadFullError


LOOK: Final = 1.0
"""Seconds until a waiter looks around unasked, where that can help."""


class Place:
    """A place in the queue of a bulkhead: `rank` is its order, `weight` the permits that it needs."""

    __slots__ = ("_gate", "ahead", "home", "offer", "passed", "rank", "spot", "until", "weight")

    def __init__(self, gate: Queued[Any], request: Request, *, rank: float = 0.0, weight: int = 1) -> None:
        self._gate = gate
        self.spot = request.spot
        self.home = request.home
        self.until = request.until
        self.ahead = gate.waiting
        self.rank = rank
        self.weight = weight
        self.passed = 0  # by lighter calls while it was the first
        self.offer: Any = None

    def alive(self) -> bool:
        """Tell whether the waiter could claim an offer."""
        return self.spot.alive()

    def claim(self, now: float) -> Any:
        """Take the permit that was offered; None if it is not our turn."""
        del now
        return self._gate.claim(self)

    def due(self, now: float) -> float:
        """Return when to look around though nobody wakes us: the loop of one in front may stop before it claims."""
        return now + LOOK if self._gate.mixed else math.inf

    def withdraw(self) -> Wake:
        """Leave the queue."""
        return self._gate.withdraw(self)

    def late(self, now: float) -> BulkheadFullError:
        """Return the rejection of a caller who waited as long as it may."""
        del now
        return self._gate.late()
