"""A fixed number of slots and the queue for them: the bulkhead's machine.

A slot is free in `free`, held by a call, or offered to a waiter. While anybody waits, a released slot is offered to
the first waiter who can take it and never lies in `free`, so that nobody can pass the queue. An offer is claimed under
the lock: a waiter on a stopped loop is skipped, and one that was cancelled passes its offer on.

What is given back waits in `_back` until whoever has the lock sees to it. Giving back must not wait for the lock: the
garbage collector may close a call while its own thread has the lock, and that would wait for itself for ever.
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
        self._back: deque[int | Place | None] = deque()  # slots released, places left; None: look at `free` again
        self.take = self.free.pop  # IndexError is a LookupError: the fast path is one call into C

    # --- the gate ---

    def admit(self, request: Request) -> int | Place:
        """Return a slot, or a place in the queue; raise BulkheadFullError if the queue is full."""
        lost = self._forget_lost() if self.waiting >= self.max_queue else ()
        try:
            with self._lock:
                return self._enter(request)
        finally:
            self._wake_all(self._see_to_it())
            del lost  # not under the lock: calls may end with them

    def release(self, permit: int) -> Wake:
        """Give a slot back: to the queue if there is one."""
        if self.queue or self._surplus:
            self._back.append(permit)
        else:
            self.free.append(permit)
            if not self.queue:
                return _NOBODY
            self._back.append(None)  # somebody queued at the same moment
        return self._see_to_it()

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
            else:
                kept = min(grown, self._surplus)
                self._surplus -= kept
                self.free.extend(range(grown - kept))
            self._back.append(None)
        return self._see_to_it()

    def _withdraw_surplus(self) -> None:
        with contextlib.suppress(IndexError):
            while self._surplus:
                self.free.pop()
                self._surplus -= 1

    def _forget_lost(self) -> list[Place]:
        """Take out who waits past its time on a loop that stands still: if it was closed, they never leave."""
        now = self._clock()
        with self._lock:
            lost = [place for place in self.queue if place.until <= now and not place.alive()]
            for place in lost:
                del self.queue[place]
        return lost

    def _see_to_it(self) -> list[Spot]:
        """Do what was given back, unless somebody has the lock: they look here when they have let go of it."""
        woken: list[Spot] = []
        while self._back and not self._lock.locked():
            with self._lock:
                while self._back:
                    woken.extend(self._do(self._back.popleft()))
        return woken

    @staticmethod
    def _wake_all(spots: Wake) -> None:
        for spot in spots:
            spot.wake()

    # --- under the lock ---

    def _do(self, given: int | Place | None) -> Wake:
        if isinstance(given, Place):
            return self._leave(given)
        return self._offer_free() if given is None else self._pass_on(given)

    def _enter(self, request: Request) -> int | Place:
        self._revoke_dead()
        if self.free and self._first() is None:
            with contextlib.suppress(IndexError):  # the fast path takes without the lock
                return self.free.pop()
        if self.waiting >= self.max_queue or request.until <= self._clock():
            raise self._full()
        place = Place(self, request, self.waiting)
        self.queue[place] = None
        # Whoever released a slot a moment ago may have seen no queue and put it into `free`: look again.
        self._back.append(None)
        return place

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
            return self._stopped()
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
        return [*woken, *self._stopped()] if self.free else woken

    def _stopped(self) -> list[Spot]:
        """Whoever waits while a slot is free is on a stopped loop: they look for themselves when it goes on."""
        return [place.spot for place in self.queue]

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
        return BulkheadFullError(
            f"{self._name}: all {self.size} permits are taken and {self.waiting} of {self.max_queue} places wait"
        )

    # --- what a place asks ---

    def claim(self, place: Place) -> int | None:
        """Take what was offered to a place."""
        woken: Wake = _NOBODY
        try:
            with self._lock:
                if place in self.queue:
                    self._revoke_dead()
                    woken = self._offer_free()  # nobody may have told us: the one in front died with its loop
                if place not in self.offered:
                    return None
                del self.offered[place]
                return place.take_back()
        finally:
            self._wake_all([*woken, *self._see_to_it()])

    def withdraw(self, place: Place) -> Wake:
        """Leave the queue; an offer goes to the next."""
        self._back.append(place)
        return self._see_to_it()

    def _leave(self, place: Place) -> Wake:
        if place in self.offered:
            del self.offered[place]
            return self._pass_on(place.take_back())
        self.queue.pop(place, None)
        return _NOBODY

    def late(self) -> BulkheadFullError:
        """Return the rejection of a caller who waited as long as it may."""
        return BulkheadFullError(
            f"{self._name}: no permit came free in time: all {self.size} are taken, {self.waiting} of "
            f"{self.max_queue} places wait"
        )


class Place:
    """A place in the queue of a bulkhead."""

    __slots__ = ("_slots", "ahead", "offer", "spot", "until")

    def __init__(self, slots: Slots, request: Request, ahead: int) -> None:
        self._slots = slots
        self.spot = request.spot
        self.until = request.until
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
