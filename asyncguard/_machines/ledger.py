"""The ledger of memory: what is promised to running calls, who waits, and what is known of each level.

A check of the memory in use lets in everybody who asks before the first has allocated. The ledger adds what has been
promised: a call is let in when base + promised + need stays below the threshold of every level (as Elasticsearch's
parent circuit breaker adds the bytes about to be used). `base` is explained in `levels`. What other processes promise
is added where they share the level (`neighbours`).
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from asyncguard._machines.levels import Account, Reading
from asyncguard._machines.memory_queue import LOOKAHEAD
from asyncguard._machines.memory_reservation import Reservation
from asyncguard._machines.memory_shared import SLICE, Shared

if TYPE_CHECKING:
    from asyncguard._machines.gate import Spot
    from asyncguard._machines.neighbours import Neighbours

__all__ = ["FRESH", "Ledger"]

FRESH: Final = 0.010
"""Seconds that a reading serves: all guards of the process share it."""


class Ledger(Shared):
    """The account of one kind of memory. `read` gives a reading (called outside of the lock), `clock` seconds.

    `connect` gives the table of all processes that share this memory, None as long as there is none; it is asked with
    every reading.
    """

    def __init__(
        self,
        read: Callable[[], Reading],
        clock: Callable[[], float],
        connect: Callable[[], Neighbours | None] | None = None,
    ) -> None:
        self._read = read
        self.clock = clock
        self.connect = connect
        self.generation = 0
        self._renew()

    def _renew(self) -> None:
        # Reentrant: the garbage collector may end an abandoned call on the thread that holds the lock.
        self.lock = threading.RLock()
        self.inside: Callable[[], bool] = cast("Any", self.lock)._is_owned  # noqa: SLF001 - as threading.Condition does
        self.accounts: dict[str, Account] = {}
        self.source = "none"
        self.looks = 0  # grows with each reading, and when bytes go out of the sums of which none tells yet
        self._turn = self._booked = 0  # of the last reading that was begun, and of the last that was taken note of
        self._given = self._seen = 0  # bytes that went out of the sums, and of those the ones that went before it began
        self.fresh_until = -math.inf
        self.reserved = 0
        self.running = 0
        self.ended = 0
        self.slice = 1
        self.young = [0, 0]  # promised in this slice of time, and in the one before
        self.young_until = -math.inf
        self.over: deque[Reservation] = deque()  # calls that ended and are still in the sums above
        self.leave_table()
        self._clean_at = -1
        self.measuring: Reservation | None = None
        self.clear_queue()

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
            if anew:
                self.revoke_dead(now)
            if now < self.fresh_until and self.looks and not freed and not (anew and self._ended_since(now)):
                return
            self.fresh_until = now + FRESH
            self._put_right()
            before = self.reserved, self._elsewhere(now).promised
            self._turn += 1
            turn, given = self._turn, self._given
        reading = self._read()
        near = None if self.connect is None else self.connect()
        with self.lock:
            if turn < self._booked and not freed:  # it took longer than one that was begun later
                return
            self._booked, self._seen = turn, given
            self._grow_older(now)
            self._meet(near)
            after = self._elsewhere(now)
            self.elsewhere = max(before[1], after.promised)
            self._book(reading, max(before[0], self.reserved), after.young, freed)

    def _ended_since(self, now: float) -> bool:
        return bool(self.over or self.unread) or self._elsewhere(now).promised < self.elsewhere

    @property
    def unread(self) -> int:
        """Bytes that are not promised any more, and of which no reading tells yet whether they are free."""
        return self._given - self._seen

    def _book(self, reading: Reading, reserved: int, others_young: int, freed: int) -> None:
        kept: dict[str, Account] = {}
        young = sum(self.young)
        for level in reading.levels:
            account = kept[level.name] = self.accounts.get(level.name) or Account(level)
            if level.own:
                account.look(level, reserved, young, freed)
            else:
                account.look(level, reserved + self.elsewhere, young + others_young, freed)
        self.accounts, self.source = kept, reading.source
        self.looks += 1
        self._changed = True

    def _grow_older(self, now: float) -> None:
        if now < self.young_until:
            return
        long_ago = now >= self.young_until + SLICE
        self.young = [0, 0 if long_ago else self.young[0]]
        self.slice += 2 if long_ago else 1
        self.young_until = now + SLICE

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

    def stuck(self, parent: Reservation | None) -> bool:
        """Tell whether nothing runs but callers that only wait for calls inside them, the caller's own included."""
        return not self.others(parent)

    def open(self, reservation: Reservation) -> None:
        """Enter a call that was let in, under the lock."""
        parent = reservation.parent
        if parent is not None and parent.ended:  # meanwhile, and what it had is given back
            reservation.lent = 0
        own = reservation.need - reservation.lent
        reservation.generation = self.generation
        reservation.door.running += 1
        self.running += 1
        self.reserved += own
        self.told += own
        self.young[0] += own
        if parent is not None:
            reservation.nested = parent.nested = True
            parent.plain = False
            parent.drawn += reservation.lent
        if self.measuring is not None and self.measuring not in reservation.callers():
            self._joins(reservation, self.measuring)
        if reservation.measured:
            self._measure(reservation)
        self.announce()

    def _measure(self, reservation: Reservation) -> None:
        """Note on what ground and in which company a call is that will be measured."""
        self.measuring = reservation
        reservation.clean = self._clean_at == self._over_so_far()
        others = self.others(reservation)
        reservation.alone = not others
        reservation.company = max(1, min(others + 1, reservation.door.running))
        reservation.strangers = others >= reservation.company

    @staticmethod
    def _joins(reservation: Reservation, measured: Reservation) -> None:
        measured.alone = False
        if reservation.door is measured.door:
            measured.company = max(measured.company, reservation.door.running)
        else:
            measured.strangers = True

    def close(self, reservation: Reservation) -> Sequence[Spot]:
        """End a call; return whom to wake.

        As long as nobody waits, without the lock: the sums are put right before the next reading, which has to come
        before its bytes serve another call anyway. Whoever queues at this moment sees it in `over`, or is seen here.
        """
        self.abandon(reservation)
        return self.hand_on(reservation) if self.queue or not reservation.plain else ()

    def hand_on(self, reservation: Reservation) -> Sequence[Spot]:
        """Let in who waits for what a call has just given back; return whom to wake."""
        if reservation.nested and self.near is not None and not self.inside():
            self.standing()  # not to be told one by one
        if not self.queue:
            return ()
        if self.inside():  # the garbage collector ended it in the midst of something: who waits will look again
            self._changed = True
            return ()
        self.look(self.clock(), anew=True)
        with self.lock:
            return self.settle()

    def abandon(self, reservation: Reservation) -> None:
        """End a call: its bytes are no longer promised, but they are not free before the next look.

        Without the lock: a statement without a call in it is not interrupted by other threads.
        """
        reservation.closed = True
        if self.generation and reservation.generation != self.generation:  # promised by the parent of a fork
            return
        near = self.near
        if near is not None and (reservation.plain or not reservation.nested):
            self.told -= reservation.need
            near.cells[near.mine] = self.told
        self.over.append(reservation)  # last: from here on another thread may put right what is told

    def standing(self) -> tuple[int, int]:
        """Return the bytes promised to running calls and how many run, without those that have ended."""
        with self.lock:
            gone = list(self.over)  # a copy: calls end in other threads
            if len(gone) > LOOKAHEAD or any(each.nested for each in gone):
                self._put_right()  # too many to count at each call, or not to be told one by one
                self.fresh_until = -math.inf
                gone = list(self.over)
            return self.reserved - sum(each.need for each in gone), self.running - len(gone)

    def _put_right(self) -> None:
        """Take the calls that have ended out of the sums, under the lock and before a reading. Once for each call."""
        over, young, now, before = self.over, self.young, self.slice, self.reserved
        self._changed = self._changed or bool(over)
        while over:
            each = over.popleft()
            each.ended = True
            each.door.running -= 1
            self.running -= 1
            self.ended += 1
            if not each.plain:
                self._end_of_unusual(each)
                continue
            self.reserved -= each.need  # `_give_back` inline
            if now - each.slice < len(young):
                young[now - each.slice] -= each.need
        self.told = self.reserved
        self._went_out(before - self.reserved)
        self.announce()

    def _went_out(self, size: int) -> None:
        """Bytes are not promised any more: they serve nobody before a reading that is begun after this."""
        if size > 0 and self.looks:
            self._given += size
            self.looks += 1

    def _end_of_unusual(self, reservation: Reservation) -> None:
        if reservation.waiting:
            self._stalled -= 1
        if self.measuring is reservation:
            self.measuring = None
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
            need = max(need, reservation.lent, reservation.drawn)
            age = self.slice - reservation.slice
            if age >= len(self.young):
                age = -1
            # From here on without a call: it may end in another thread.
            if reservation.closed or reservation.generation != self.generation:
                return []
            more = need - reservation.need
            if age >= 0:
                self.young[age] += more
            self.reserved += more
            self.told += more
            reservation.need = need
            self._went_out(-more)
            self._changed = True
            self.fresh_until = -math.inf
        self.look(self.clock())
        with self.lock:
            return self.settle()
