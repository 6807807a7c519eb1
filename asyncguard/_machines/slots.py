"""A fixed number of slots and the queue for them: the bulkhead's machine.

A slot is free in `free`, held by a call, or offered to a waiter. While anybody waits, a released slot is offered to
the first waiter who can take it and never lies in `free`, so that nobody can pass the queue. An offer is claimed under
the lock: a waiter on a stopped loop is skipped, and one that was cancelled passes its offer on.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from typing import TYPE_CHECKING

from asyncguard.errors import BulkheadFullError

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncguard._machines.gate import Request, Spot, Wake

_NOBODY: Wake = ()


class Slots:
    """`size` slots and at most `max_queue` waiters, first come first served."""

    outcomes: bool = False
    timed: bool = False
    news: tuple[()] = ()

    def __init__(self, size: int, max_queue: int, *, name: str, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._name = name
        self._surplus = 0  # slots to withdraw when they come back, after the bulkhead was made smaller
        self.size = size
        self.max_queue = max_queue
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self.free: deque[int] = deque(range(self.size))
        self.queue: dict[Place, None] = {}  # waits for an offer, first come first; a dict leaves in O(1)
        self.offered: dict[Place, None] = {}  # was offered a slot and has not claimed it yet
        self.take = self.free.pop  # IndexError is a LookupError: the fast path is one call into C

    # --- the gate ---

    def admit(self, request: Request) -> int | Place:
        """Return a slot, or a place in the queue; raise BulkheadFullError if the queue is full."""
        with self._lock:
            self._revoke_dead()
            if self.free and self._first() is None:
                with contextlib.suppress(IndexError):  # the fast path takes without the lock
                    return self.free.pop()
            if self.waiting >= self.max_queue or request.until <= self._clock():
                raise self._full()
            place = Place(self, request.spot, self.waiting)
            self.queue[place] = None
            # Whoever released a slot a moment ago may have seen no queue and put it into `free`: look again.
            self._offer_and_wake()
            return place

    def release(self, permit: int) -> Wake:
        """Give a slot back: to the queue if there is one."""
        if not self.queue and not self._surplus:
            self.free.append(permit)
            if not self.queue:
                return _NOBODY
            with self._lock:  # somebody queued at the same moment
                return self._offer_free()
        with self._lock:
            return self._pass_on(permit)

    refund = release

    def succeeded(self, permit: int, elapsed: float) -> Wake:
        """Say nothing: a bulkhead does not look at outcomes."""
        del permit, elapsed
        return _NOBODY

    def failed(self, permit: int, elapsed: float, error: Exception) -> Wake:
        """Say nothing: a bulkhead does not look at outcomes."""
        del permit, elapsed, error
        return _NOBODY

    def abandoned(self, permit: int) -> Wake:
        """Say nothing: a bulkhead does not look at outcomes."""
        del permit
        return _NOBODY

    def after_fork(self) -> None:
        """In a forked child: a new lock, nobody waits, nothing is in flight."""
        self._surplus = 0
        self._renew()

    def idle(self) -> bool:
        """Tell whether no slot is taken and nobody waits."""
        return len(self.free) == self.size and not self.waiting

    # --- looking and changing ---

    @property
    def taken(self) -> int:
        """How many calls hold a slot or are offered one."""
        return self.size + self._surplus - len(self.free)

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return len(self.queue) + len(self.offered)

    def resize(self, size: int, max_queue: int) -> Wake:
        """Change the number of slots; calls that run keep theirs."""
        with self._lock:
            grown, self.size, self.max_queue = size - self.size, size, max_queue
            if grown < 0:
                self._surplus -= grown
                self._withdraw_surplus()
                return _NOBODY
            kept = min(grown, self._surplus)
            self._surplus -= kept
            self.free.extend(range(grown - kept))
            return self._offer_free()

    def _withdraw_surplus(self) -> None:
        with contextlib.suppress(IndexError):
            while self._surplus:
                self.free.pop()
                self._surplus -= 1

    # --- under the lock ---

    def _first(self) -> Place | None:
        """Return the first waiter that could take a slot."""
        for place in self.queue:
            if place.alive():
                return place
        return None

    def _pass_on(self, permit: int) -> Wake:
        """Offer a slot that came back to the first waiter; it never lies in `free` meanwhile."""
        if self._surplus:
            self._surplus -= 1
            return _NOBODY
        place = self._first()
        if place is None:
            self.free.append(permit)
            return _NOBODY
        return self._offer(place, permit)

    def _offer_free(self) -> Wake:
        """Offer the free slots to the first waiters; return whom to wake."""
        woken: list[Spot] = []
        while self.free and (place := self._first()) is not None:
            try:
                permit = self.free.pop()
            except IndexError:  # the fast path was quicker
                break
            woken.extend(self._offer(place, permit))
        return woken

    def _offer_and_wake(self) -> None:
        """Offer what turned out to be free. Rare, so waking under the lock is no harm: it only schedules."""
        for spot in self._offer_free():
            spot.wake()

    def _offer(self, place: Place, permit: int) -> list[Spot]:
        del self.queue[place]
        self.offered[place] = None
        place.offer = permit
        return [place.spot]

    def _revoke_dead(self) -> None:
        """Take back offers to waiters whose loop stopped before they could claim them; they keep the last place."""
        for place in [place for place in self.offered if not place.alive()]:
            del self.offered[place]
            self.queue[place] = None
            self.free.append(place.take_back())

    def _full(self) -> BulkheadFullError:
        message = f"{self._name}: all {self.size} permits are taken and {self.waiting} of {self.max_queue} places wait"
        return BulkheadFullError(message)

    # --- what a place asks ---

    def claim(self, place: Place) -> int | None:
        """Take what was offered to a place."""
        with self._lock:
            if place in self.queue:
                self._revoke_dead()
                self._offer_and_wake()  # nobody may have told us: the one in front died with its loop
            if place not in self.offered:
                return None
            del self.offered[place]
            return place.take_back()

    def withdraw(self, place: Place) -> Wake:
        """Leave the queue; an offer goes to the next."""
        with self._lock:
            if place in self.queue:
                del self.queue[place]
                return _NOBODY
            if place not in self.offered:
                return _NOBODY
            del self.offered[place]
            return self._pass_on(place.take_back())

    def late(self) -> BulkheadFullError:
        """Return the rejection of a caller who waited as long as it may."""
        return BulkheadFullError(
            f"{self._name}: no permit came free in time: all {self.size} are taken, {self.waiting} of "
            f"{self.max_queue} places wait"
        )


class Place:
    """A place in the queue of a bulkhead."""

    __slots__ = ("_slots", "ahead", "offer", "spot")

    def __init__(self, slots: Slots, spot: Spot, ahead: int) -> None:
        self._slots = slots
        self.spot = spot
        self.ahead = ahead
        self.offer: int | None = None

    def alive(self) -> bool:
        """Tell whether the waiter could claim an offer."""
        return self.spot.alive()

    def take_back(self) -> int:
        """Take the offer away, to claim it or to pass it on."""
        permit, self.offer = self.offer, None
        assert permit is not None  # noqa: S101 - only places in `offered` are asked
        return permit

    def claim(self, now: float) -> int | None:
        """Take the slot that was offered; None if it is not our turn."""
        del now
        return self._slots.claim(self)

    def due(self, now: float) -> float:
        """Nothing to look for: a release wakes us."""
        del now
        return math.inf

    def withdraw(self) -> Wake:
        """Leave the queue."""
        return self._slots.withdraw(self)

    def late(self, now: float) -> BulkheadFullError:
        """Return the rejection of a caller who waited as long as it may."""
        del now
        return self._slots.late()
