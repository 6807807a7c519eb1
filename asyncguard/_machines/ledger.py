"""The ledger of memory: what is promised to running calls, who waits, and what is known of each level.

A check of the memory in use lets in everybody who asks before the first has allocated. The ledger adds what has been
promised: a call is let in when base + promised + need stays below the threshold of every level (as Elasticsearch's
parent circuit breaker adds the bytes about to be used). `base` is explained in `levels`.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from asyncguard._machines.levels import Account, Reading

if TYPE_CHECKING:
    from asyncguard._machines.gate import Spot

__all__ = ["FRESH", "MOST_PASSES", "SLICE", "Door", "Ledger", "Reservation", "Waiter"]

FRESH: Final = 0.010
"""Seconds that a reading serves: all guards of the process share it."""

SLICE: Final = 0.025
"""For one to two of these, in seconds, a call that was let in counts as one that has allocated nothing yet."""

MOST_PASSES: Final = 16
"""So many smaller calls may pass the one at the head of the queue; then it holds the door."""

LOOKAHEAD: Final = 32
"""So many waiters behind the head are looked at, so that the work under the lock stays bounded."""


class Reservation:
    """The bytes of one running call, and who called whom.

    A call inside of a guarded call draws on the reservation of its caller first (`lent`), so that nested guards do not
    reserve the same bytes twice; only what is missing is added to the ledger.
    """

    # Defaults in the class: the fast path sets what is in `__init__` and nothing else.
    parent: Reservation | None = None
    lent = 0  # of `need`, what the parent's reservation covers
    drawn = 0  # of `need`, what covers the calls inside
    waiting = 0  # calls inside that wait in the queue
    closed = False  # the call is over (calls inside may still draw on it)
    ended = False  # and it is out of the sums
    forced = False  # let in though it does not fit, because nothing else ran
    measured = False  # its peak is being measured
    learned = False  # it was measured
    clean = True  # the measurement began on a clean heap
    alone = True  # nothing else ran during the measurement
    generation = 0

    def __init__(self, need: int, door: Door, slice_: int) -> None:
        self.need = need
        self.door = door
        self.slice = slice_  # of time, in which it was let in

    def callers(self) -> Iterator[Reservation]:
        """Yield this reservation and those of the calls around it."""
        here: Reservation | None = self
        while here is not None:
            yield here
            here = here.parent


class Door(Protocol):
    """Where a call came in: it counts the calls that are in."""

    running: int


class Waiter(Protocol):
    """A place in the queue, as the ledger sees it. All of it is called under the ledger's lock."""

    parent: Reservation | None
    passed: int

    @property
    def spot(self) -> Spot: ...
    @property
    def hopeless(self) -> bool: ...
    def ready(self) -> bool: ...
    def grant(self) -> bool: ...


class Ledger:
    """The account of one kind of memory. `read` gives a reading (called outside of the lock), `clock` seconds."""

    def __init__(self, read: Callable[[], Reading], clock: Callable[[], float]) -> None:
        self._read = read
        self.clock = clock
        self.generation = 0
        self._renew()

    def _renew(self) -> None:
        self.lock = threading.Lock()
        self.accounts: dict[str, Account] = {}
        self.source = "none"
        self.looks = 0
        self.fresh_until = -math.inf
        self.reserved = 0
        self.running = 0
        self.ended = 0
        self.slice = 1
        self.young = [0, 0]  # promised in this slice of time, and in the one before
        self.over: deque[Reservation] = deque()  # calls that ended and are still in the sums above
        self._slice_until = -math.inf
        self._stalled = 0  # running, but only waiting for a call inside that waits here
        self._clean_at = -1
        self.measuring: Reservation | None = None
        self.queue: dict[Waiter, bool] = {}  # True: the calls around it only wait for it
        self._changed = True  # since the queue was last gone through

    def after_fork(self) -> None:
        """In a forked child: nobody waits, nothing runs, and what the parent's calls give back is not ours."""
        self.generation += 1
        self._renew()

    # --- readings ---

    def look(self, now: float, *, anew: bool = False, freed: int = 0) -> None:
        """Take a new reading if the last one is too old.

        Also, with `anew`, if calls have ended since: they need not have given their memory back to the system, so a
        reading from before is no ground to let in the next one. `freed` bytes are known to have been given back.
        """
        with self.lock:
            if now < self.fresh_until and self.looks and not freed and not (anew and self.over):
                return
            self.fresh_until = now + FRESH
            self._put_right()
            before = self.reserved
        reading = self._read()
        with self.lock:
            self._grow_older(now)
            self._book(reading, max(before, self.reserved), freed)

    def _book(self, reading: Reading, reserved: int, freed: int) -> None:
        kept: dict[str, Account] = {}
        for level in reading.levels:
            account = kept[level.name] = self.accounts.get(level.name) or Account(level)
            account.look(level, reserved, sum(self.young), freed)
        self.accounts, self.source = kept, reading.source
        self.looks += 1
        self._changed = True

    def _grow_older(self, now: float) -> None:
        if now < self._slice_until:
            return
        long_ago = now >= self._slice_until + SLICE
        self.young = [0, 0 if long_ago else self.young[0]]
        self.slice += 2 if long_ago else 1
        self._slice_until = now + SLICE

    @property
    def cautious(self) -> bool:
        """Whether calls that have just started keep others out that may fit when it is seen what those take."""
        return any(account.held > account.base for account in self.accounts.values())

    def relieve(self, freed: int) -> list[Spot]:
        """Take note that `freed` bytes were given back to the system; return whom to wake."""
        self.look(self.clock(), freed=freed)
        with self.lock:
            return self.settle()

    def trimmed(self, ended: int) -> None:
        """Say that the allocator was emptied; the heap is clean if no call has run since `ended` calls were over."""
        with self.lock:
            if self._quiet() and self._over_so_far() == ended:
                self._clean_at = ended

    def mark(self) -> int:
        """Return how many calls are over, for `trimmed`."""
        with self.lock:
            return self._over_so_far()

    def _over_so_far(self) -> int:
        return self.ended + len(self.over)

    def _quiet(self) -> bool:
        return self.running == len(self.over)

    # --- calls ---

    def others(self, parent: Reservation | None) -> int:
        """Return how many calls run, without those that only wait for calls inside them (the caller's own included)."""
        mine = 0 if parent is None else sum(not each.closed and not each.waiting for each in parent.callers())
        return self.running - self._stalled - mine

    def open(self, reservation: Reservation) -> None:
        """Enter a call that was let in, under the lock."""
        own = reservation.need - reservation.lent
        reservation.generation = self.generation
        reservation.door.running += 1
        self.running += 1
        self.reserved += own
        self.young[0] += own
        if reservation.parent is not None:
            reservation.parent.drawn += reservation.lent
        if self.measuring is not None and self.measuring not in reservation.callers():
            self.measuring.alone = False
        if reservation.measured:
            self.measuring = reservation
            reservation.clean = self._clean_at == self._over_so_far()

    def close(self, reservation: Reservation) -> Sequence[Spot]:
        """End a call; return whom to wake.

        As long as nobody waits, without the lock: the sums are put right before the next reading, which has to come
        before its bytes serve another call anyway. Whoever queues at this moment sees it in `over`, or is seen here.
        """
        reservation.closed = True
        self.over.append(reservation)
        if not self.queue:
            return ()
        self.look(self.clock(), anew=True)
        with self.lock:
            return self.settle()

    def standing(self) -> tuple[int, int]:
        """Return the bytes promised to running calls and how many run, without those that have ended."""
        with self.lock:
            if len(self.over) > LOOKAHEAD or any(each.lent or each.drawn for each in self.over):
                self._put_right()  # too many to count at each call, or not to be told one by one
                self.fresh_until = -math.inf
            gone = list(self.over)
            return self.reserved - sum(each.need for each in gone), self.running - len(gone)

    def _put_right(self) -> None:
        """Take the calls that have ended out of the sums, under the lock and before a reading."""
        while self.over:
            reservation = self.over.popleft()
            if reservation.generation == self.generation:
                self._end(reservation)

    def _end(self, reservation: Reservation) -> None:
        self._changed = True
        reservation.door.running -= 1
        self.running -= 1
        self.ended += 1
        if reservation.waiting:
            self._stalled -= 1
        if self.measuring is reservation:
            self.measuring = None
        reservation.ended = True
        self._give_back(reservation)

    def _give_back(self, reservation: Reservation) -> None:
        """Give bytes back, unless calls inside still draw on them: then the last of those does it."""
        if reservation.drawn:
            return
        own = reservation.need - reservation.lent
        self.reserved -= own
        age = self.slice - reservation.slice
        if age < len(self.young):
            self.young[age] -= own
        parent = reservation.parent
        if parent is not None and reservation.lent:
            parent.drawn -= reservation.lent
            if parent.ended:
                self._give_back(parent)

    def resize(self, reservation: Reservation, need: int) -> list[Spot]:
        """Correct the bytes of a running call; return whom to wake."""
        with self.lock:
            if reservation.closed or reservation.generation != self.generation:
                return []
            need = max(need, reservation.lent, reservation.drawn)
            age = self.slice - reservation.slice
            if age < len(self.young):
                self.young[age] += need - reservation.need
            self.reserved += need - reservation.need
            reservation.need = need
            self._changed = True
            self.fresh_until = -math.inf
        self.look(self.clock())
        with self.lock:
            return self.settle()

    # --- the queue, all under the lock ---

    def enqueue(self, waiter: Waiter, *, stays: bool = True) -> None:
        """Put a caller at the end of the queue; if it stays there, the calls around it only wait for it now."""
        self.queue[waiter] = stays
        self._mark(waiter, int(stays))

    def leave(self, waiter: Waiter) -> None:
        """Take a caller out of the queue, if it is there."""
        if waiter in self.queue:
            self._mark(waiter, -int(self.queue.pop(waiter)))

    def _mark(self, waiter: Waiter, step: int) -> None:
        self._changed = True
        for caller in waiter.parent.callers() if waiter.parent is not None else ():
            stalled = caller.waiting > 0
            caller.waiting += step
            if not caller.ended:
                self._stalled += (caller.waiting > 0) - stalled

    def settle(self) -> list[Spot]:
        """Let in who fits, first come first served; return whom to wake.

        Smaller calls may pass the first that does not fit, at most 16 times. Where nothing has changed since the last
        time nothing is done: a thousand waiters that look again each second must not cost a thousand searches.
        """
        if not self._changed:
            return []
        self._changed = False
        head: Waiter | None = None
        woken: list[Spot] = []
        looked = 0
        for waiter in list(self.queue):
            if looked > LOOKAHEAD or (head is not None and head.passed >= MOST_PASSES):
                break
            if not waiter.ready() or not waiter.spot.alive():  # a stopped loop keeps its place and blocks nobody
                continue
            looked += 1
            if waiter.grant():
                self.leave(waiter)
                woken.append(waiter.spot)
                if head is not None and not waiter.hopeless:
                    head.passed += 1
            elif head is None:
                head = waiter
        if woken and head is not None:
            woken.append(head.spot)  # it is the first now, and looks more often
        return woken
