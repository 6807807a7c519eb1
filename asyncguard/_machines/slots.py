"""A fixed number of slots and the queue for them: the bulkhead's machine where all calls are alike.

A slot is free in `free`, held by a call, or offered to a waiter. While anybody waits, a released slot is offered to
the first waiter who can take it and never lies in `free`, so that nobody can pass the queue.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

from asyncguard._machines.gate import NOBODY
from asyncguard._machines.place import Place
from asyncguard._machines.queued import Queued

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncguard._machines.gate import Request, Wake

__all__ = ["MOST_SLOTS", "Place", "Slots"]

MOST_SLOTS: Final = 1_000_000
"""Every slot is an entry in memory: who means "no limit" by a huge number would fill all there is."""


class Slots(Queued[int]):
    """`size` slots and at most `max_queue` waiters, first come first served."""

    def __init__(self, size: int, max_queue: int, *, name: str, clock: Callable[[], float]) -> None:
        self.surplus = 0  # slots to withdraw when they come back, after the bulkhead was made smaller
        super().__init__(size, max_queue, name=name, clock=clock)

    def _renew(self) -> None:
        super()._renew()
        self.free: deque[int] = deque(range(self.size))
        self.take = self.free.pop  # IndexError is a LookupError: the fast path is one call into C

    # --- the gate ---

    def release(self, permit: int) -> Wake:
        """Give a slot back: to the queue if there is one. The drivers of a bulkhead have this inline."""
        if self.queue or self.surplus:
            self._back.append(permit)
            return self._see_to_it()
        self.free.append(permit)
        return self.look() if self.queue else NOBODY  # somebody may have queued at the same moment

    def look(self) -> Wake:
        """Offer what is free to who waits."""
        self._back.append(None)
        return self._see_to_it()

    refund = release

    def after_fork(self) -> None:
        """In a forked child: a new lock, nobody waits, nothing is in flight."""
        self.surplus = 0
        self._renew()

    # --- looking and changing ---

    @property
    def taken(self) -> int:
        """How many calls hold a slot or are offered one."""
        return self.size + self.surplus - len(self.free)

    def resize(self, size: int, max_queue: int) -> Wake:
        """Change the number of slots; calls that run keep theirs."""
        self._alone(self._resize, size, max_queue)
        return self._see_to_it()

    def _resize(self, size: int, max_queue: int) -> None:
        grown, self.size, self.max_queue = size - self.size, size, max_queue
        if grown < 0:
            self.surplus -= grown
            self._withdraw_surplus()
        else:
            kept = min(grown, self.surplus)
            self.surplus -= kept
            self.free.extend(range(grown - kept))
        self._back.append(None)

    def _withdraw_surplus(self) -> None:
        with contextlib.suppress(IndexError):
            while self.surplus:
                self.free.pop()
                self.surplus -= 1

    # --- under the lock ---

    def _enter(self, request: Request) -> int | Place:
        self._revoke_dead()
        if self.free and self.line.first() is None:
            with contextlib.suppress(IndexError):  # the fast path takes without the lock
                return self.free.pop()
        if self.waiting >= self.max_queue or request.until <= self._clock():
            raise self._full()
        place = Place(self, request)
        self._join(place)
        # Whoever released a slot a moment ago may have seen no queue and put it into `free`: look again.
        self._back.append(None)
        return place

    def _pass_on(self, permit: int) -> None:
        """Offer a slot that came back to the first waiter; it never lies in `free` meanwhile."""
        if self.surplus:
            self.surplus -= 1
        elif (place := self.line.first()) is not None:
            self._offer(place, permit)
        else:
            self.free.append(permit)

    def _settle(self) -> None:
        while self.free and (place := self.line.first()) is not None:
            try:
                permit = self.free.pop()
            except IndexError:  # the fast path was quicker
                return
            self._offer(place, permit)
