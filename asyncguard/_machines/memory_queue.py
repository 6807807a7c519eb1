"""Who waits at a ledger of memory, who is let in next, and whose callers only wait for that."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncguard._machines.gate import Spot
    from asyncguard._machines.memory_reservation import Reservation, Waiter

__all__ = ["LOOKAHEAD", "MOST_PASSES", "Queue"]

MOST_PASSES: Final = 16
"""So many smaller calls may pass the one at the head of the queue; then it holds the door."""

LOOKAHEAD: Final = 32
"""So many waiters behind the head are looked at, so that the work under the lock stays bounded."""

SWEEP: Final = 1.0
"""Seconds between looks for waiters who are past their time and whose loop is gone."""


class Queue:
    """The waiters in the order in which they came. All of it under the ledger's lock."""

    def clear_queue(self) -> None:
        """Begin anew, with nobody."""
        self.queue: dict[Waiter, bool] = {}  # True: the calls around it only wait for it
        self.offered: dict[Waiter, bool] = {}  # granted, and not yet taken; as in the queue
        self.head: Waiter | None = None  # the first that did not fit when it was last gone through
        self.left: deque[Waiter] = deque()  # gone, but the ledger was in use by the thread that said so
        self._inner: dict[Waiter, None] = {}  # those called by a running call
        self._stalled: int = 0  # running, but only waiting for a call inside that waits here
        self._changed: bool = True  # since the queue was last gone through
        self._swept = -math.inf

    def stuck(self, parent: Reservation | None) -> bool:
        """Tell whether nothing runs but callers that only wait for calls inside them, the caller's own included."""
        raise NotImplementedError

    def abandon(self, reservation: Reservation) -> None:
        """Take back what was granted to somebody who has gone."""
        raise NotImplementedError

    def enqueue(self, waiter: Waiter, *, stays: bool = True) -> None:
        """Put a caller at the end of the queue; if it stays there, the calls around it only wait for it now."""
        self.queue[waiter] = stays
        if waiter.parent is not None:
            self._inner[waiter] = None
        self._mark(waiter, int(stays))

    def leave(self, waiter: Waiter) -> None:
        """Take a caller out of the queue, if it is there."""
        self.offered.pop(waiter, None)
        if waiter in self.queue:
            self._mark(waiter, -int(self.queue.pop(waiter)))
            self._inner.pop(waiter, None)
        if self.head is waiter:
            self.head = None

    def _mark(self, waiter: Waiter, step: int) -> None:
        self._changed = True
        for caller in waiter.parent.callers() if waiter.parent is not None else ():
            stalled = caller.waiting > 0
            caller.waiting += step
            caller.plain = False
            if not caller.ended:
                self._stalled += (caller.waiting > 0) - stalled

    def settle(self) -> list[Spot]:
        """Let in who fits, first come first served; return whom to wake.

        Smaller calls may pass the first that does not fit, at most 16 times. Where nothing has changed since the last
        time nothing is done: a thousand waiters that look again each second must not cost a thousand searches.
        """
        self._show_out()
        if not self._changed:
            return []
        self._changed = False
        old, self.head = self.head, None
        woken = [waiter.spot for waiter in (*self._let_in(), *self._go_on())]
        if self.head is not None and (woken or old not in {None, self.head}):
            woken.append(self.head.spot)  # it is the first now, and looks more often
        self._show_out()
        return woken

    def _let_in(self) -> Iterator[Waiter]:
        looked = 0
        for waiter in list(self.queue):
            if looked > LOOKAHEAD or (self.head is not None and self.head.passed >= MOST_PASSES):
                return
            if not self._awake(waiter):
                continue
            looked += 1
            if self._grant(waiter):
                if self.head is not None and not waiter.hopeless:
                    self.head.passed += 1
                yield waiter
            elif self.head is None:
                self.head = waiter

    def _awake(self, waiter: Waiter) -> bool:
        """Tell whether a waiter can be let in now: a stopped loop keeps its place and blocks nobody."""
        return waiter in self.queue and waiter.ready() and waiter.spot.alive()

    def _go_on(self) -> Iterator[Waiter]:
        """Let one in though it does not fit, or though it is not its turn, if nothing else runs any more.

        First those inside of calls, since what their callers hold is free when they are done: whoever fits, else the
        first of them. Then whoever came first.
        """
        if not self.queue or not (self._inner or self.stuck(None)):
            return
        inner = [waiter for waiter in self._inner if self.stuck(waiter.parent) and self._awake(waiter)][:LOOKAHEAD]
        first = [self.head] if self.head is not None and self.stuck(self.head.parent) else []
        turns = [(waiter, False) for waiter in inner] + [(waiter, True) for waiter in (*inner, *first)]
        for waiter, force in turns:
            if waiter in self.queue and self._grant(waiter, force=force):
                yield waiter
                return

    def _grant(self, waiter: Waiter, *, force: bool = False) -> bool:
        if not waiter.grant(force=force):
            return False
        stays = self.queue[waiter]
        self.leave(waiter)
        if not waiter.hopeless:
            self.offered[waiter] = stays
        return True

    def revoke_dead(self, now: float) -> None:
        """Take back what was granted to waiters whose loop stopped before they took it: they are the first again.

        Who waits past its time on such a loop is forgotten: if it was closed, nobody ever leaves.
        """
        for waiter in [each for each in reversed(self.offered) if not each.spot.alive()]:
            stays = self.offered.pop(waiter)
            granted = waiter.revoke()
            if granted is not None:
                self.abandon(granted)
                waiting, self.queue = self.queue, {}
                self.enqueue(waiter, stays=stays)
                self.queue |= waiting
        if now >= self._swept + SWEEP:
            self._swept = now
            for waiter in [each for each in self.queue if each.until <= now and not each.spot.alive()]:
                self.leave(waiter)
                waiter.drop()

    def _show_out(self) -> None:
        """Take out those who left while the ledger was in use by their own thread: the garbage collector ended them."""
        while self.left:
            waiter = self.left.popleft()
            self.leave(waiter)
            granted = waiter.drop()
            if granted is not None:
                self.abandon(granted)
