"""A ledger's part in the table of all processes that share its memory (`neighbours`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from asyncguard._machines.memory_queue import Queue
from asyncguard._machines.neighbours import Elsewhere, Neighbours

if TYPE_CHECKING:
    from collections import deque

    from asyncguard._machines.gate import Spot
    from asyncguard._machines.memory_reservation import Reservation

__all__ = ["SLICE", "Shared"]

SLICE: Final = 0.025
"""For one to two of these, in seconds, a call that was let in counts as one that has allocated nothing yet."""

NOTHING: Final = Elsewhere()


class Shared(Queue):
    """What the other processes promise counts here, and they are told what is promised here."""

    clock: Callable[[], float]
    connect: Callable[[], Neighbours | None] | None
    fresh_until: float
    reserved: int
    running: int
    over: deque[Reservation]
    young: list[int]
    young_until: float

    def leave_table(self) -> None:
        """Begin anew, without a table."""
        self.near: Neighbours | None = None
        self.told = 0  # promised to calls that still run: what the other processes are told
        self.elsewhere = 0  # promised by the other processes at the last look

    def _put_right(self) -> None:
        """Take the calls that have ended out of the sums."""
        raise NotImplementedError

    def _elsewhere(self, now: float) -> Elsewhere:
        return NOTHING if self.near is None else self.near.elsewhere(now)

    def share(self, connect: Callable[[], Neighbours | None]) -> None:
        """Count with other processes from now on."""
        self.connect = connect
        self.fresh_until = -math.inf

    def _meet(self, near: Neighbours | None) -> None:
        """Take note of the table of all processes, and tell them how young our promises are."""
        if self.near is None and near is not None:
            while self.over:
                self._put_right()
            self.told, self.near = self.reserved, near  # no call since `over` was empty: nobody has ended meanwhile
        self.near = near
        if near is not None:
            self.announce()
            near.tell_young(sum(self.young), self.young_until + SLICE)

    def announce(self, more: int = 0) -> None:
        """Tell the other processes what is promised here, and `more` that is about to be."""
        near = self.near
        if near is not None:
            near.tell_idle(idle=not more and 0 < self._stalled >= self.running - len(self.over))
            near.cells[near.mine] = self.told + more  # without a call, as in `abandon`: both leave what is true now

    def claimed(self, since: float) -> int:
        """Return the bytes that count against a call that came at `since`: promised elsewhere, or waited for longer.

        What has been given back since the last look still counts: it need not be free.
        """
        if self.near is None:
            return 0
        now = self.clock()
        return max(self.elsewhere, self.near.elsewhere(now).promised) + sum(self.near.wanted_before(since, now))

    @property
    def promised_elsewhere(self) -> int:
        """Bytes that other processes have promised now."""
        return self._elsewhere(self.clock()).promised

    def quiet_elsewhere(self, since: float) -> bool:
        """Tell whether nothing goes on in other processes, and nobody waits there who came before `since`."""
        if self.near is None:
            return True
        now = self.clock()
        return not self.near.elsewhere(now).busy and not self.near.wanted_before(since, now, 0.0)

    def _want(self, near: Neighbours) -> None:
        """Tell the other processes what the first in the queue waits for."""
        if self.head is None:
            near.want_nothing()
        else:
            near.want(self.head.more, self.head.since, self.clock())

    def settle(self) -> list[Spot]:
        """Let in who fits, and tell the other processes who still waits; under the lock. Returns whom to wake."""
        woken = super().settle()
        if self.near is not None:
            self.announce()
            self._want(self.near)
        return woken
