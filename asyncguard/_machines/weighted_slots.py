"""Permits of which a call may need several, and a queue with priorities: the bulkhead where calls differ.

The order of the queue is fixed when a caller comes: its time of arrival, earlier by `AGING` seconds for each level of
priority. So everybody gains a level in each `AGING` seconds of waiting, and nobody is passed for ever by callers that
come later and are more important; and the order of two never changes, which makes the queue a heap.

The first may need more permits than are free. Then lighter calls behind it may pass, at most `MOST_PASSES` of them;
after that what comes free is kept for the first, so that small calls never starve a big one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from asyncguard._machines.place import Place
from asyncguard._machines.queued import Asker, Queued

if TYPE_CHECKING:
    from asyncguard._machines.gate import Request, Wake

__all__ = ["AGING", "LOOKAHEAD", "MOST_PASSES", "Share", "WeightedSlots"]

AGING: Final = 1.0
"""Seconds of waiting that count as one level of priority."""

MOST_PASSES: Final = 16
"""So many lighter calls may pass the first of the queue."""

LOOKAHEAD: Final = 8
"""So many callers that do not fit are looked at, so that the work under the lock stays bounded."""


class Share:
    """The permits that one call holds."""

    __slots__ = ("generation", "weight")

    def __init__(self, weight: int, generation: int) -> None:
        self.weight = weight
        self.generation = generation  # calls that were in flight in the parent of a fork are not ours to count


class WeightedSlots(Queued[Share]):
    """`size` permits, of which each call takes as many as it weighs, and at most `max_queue` waiters by priority."""

    _generation = 0
    _used = 0

    def take(self) -> Share:
        """Never at once: what a call weighs has to be asked."""
        raise LookupError

    def release(self, permit: Share) -> Wake:
        """Give the permits of a call back."""
        self._back.append(permit)
        return self._see_to_it()

    refund = release

    def after_fork(self) -> None:
        """In a forked child: a new lock, nobody waits, nothing is in flight."""
        self._generation += 1
        self._used = 0
        self._renew()

    @property
    def taken(self) -> int:
        """How many permits are held or offered."""
        return self._used

    def resize(self, size: int, max_queue: int) -> Wake:
        """Change the number of permits; calls that run keep theirs."""
        self.size, self.max_queue = size, max_queue
        self._back.append(None)
        return self._see_to_it()

    def reconcile(self, permit: Share, actual: float) -> Wake:
        """Correct the weight of a running call."""
        self._back.append(partial(self._correct, permit, self.weighed(actual)))
        return self._see_to_it()

    def weighed(self, weight: Any) -> int:
        """Return a weight; raise ValueError for one that never fits."""
        if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= self.size:
            raise ValueError(
                f"{self._name}: the weight of a call must be an integer of 1..{self.size} (max_concurrent), "
                f"got {weight!r}"
            )
        return weight

    # --- under the lock ---

    def _enter(self, request: Request) -> Share | Place:
        weight = self.weighed(request.cost)
        self._revoke_dead()
        if self._fits(weight) and self.line.first() is None:
            return self._share(weight)
        now = self._clock()
        priority = request.owner.priority if isinstance(request.owner, Asker) else 0.0
        place = Place(self, request, rank=now - AGING * priority, weight=weight)
        return self._queue_up(place, now)

    def _queue_up(self, place: Place, now: float) -> Share | Place:
        """Come into the queue and look whether it is our turn; without a place or time to wait leave it again."""
        self._join(place)
        self._settle()
        if place in self.offered:
            return self._accept(place)
        if self.waiting > self.max_queue or place.until <= now:
            self.line.leave(place)
            raise self._full()
        return place

    def _fits(self, weight: int) -> bool:
        """Tell whether a call may start now; what is heavier than all permits, since a resize, runs alone."""
        return self._used + weight <= self.size or not self._used

    def _share(self, weight: int) -> Share:
        self._used += weight
        return Share(weight, self._generation)

    def _correct(self, permit: Share, weight: int) -> None:
        if permit.generation == self._generation:
            self._used += weight - permit.weight
            permit.weight = weight
        self._settle()

    def _pass_on(self, permit: Share) -> None:
        if permit.generation == self._generation:
            self._used -= permit.weight
        self._settle()

    def _settle(self) -> None:
        aside: list[Place] = []  # they do not fit; the first of them is the first of the queue
        while (self._used < self.size or not self._used) and (place := self.line.first()) is not None:
            if self._fits(place.weight):
                self._offer(place, self._share(place.weight))
                if aside:
                    aside[0].passed += 1
            else:
                aside.append(place)
                self.line.pop()
            if aside and (aside[0].passed >= MOST_PASSES or len(aside) > LOOKAHEAD):
                break
        for place in aside:
            self.line.push(place)

    def _how_full(self) -> str:
        return f"{self._used} of {self.size} permits are taken"
