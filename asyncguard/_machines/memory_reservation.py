"""The bytes of one running call, and what a ledger wants of those who wait for some."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asyncguard._machines.gate import Spot

__all__ = ["Door", "Reservation", "Waiter"]


class Reservation:
    """The bytes of one running call, and who called whom.

    A call inside of a guarded call draws on the reservation of its caller first (`lent`), so that nested guards do not
    reserve the same bytes twice; only what is missing is added to the ledger.
    """

    # Defaults in the class: the fast path sets and reads what is in `__init__` and nothing else.
    parent: Reservation | None = None
    nested = False  # inside of another, or others inside of it
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
    company = 1  # the most calls of the same guard that ran during the measurement
    strangers = False  # calls of other guards ran during the measurement
    level: int | None = None  # what the process held when the measurement began
    generation = 0

    def __init__(self, need: int, door: Door, slice_: int) -> None:
        self.need = need
        self.door = door
        self.slice = slice_  # of time, in which it was let in
        self.plain = True  # let in at once, not measured, no calls around or inside: the fast path asks only this

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
    hopeless: bool
    """It can never fit: it leaves the queue, to be refused."""
    passed: int
    """So many smaller calls were let in while it was the first."""
    since: float
    """The time at which it came, in seconds."""
    more: int
    """Bytes that would have to be promised, as far as was known when it was looked at last."""

    @property
    def spot(self) -> Spot: ...
    @property
    def until(self) -> float:
        """When it stops waiting."""
        ...

    def ready(self) -> bool:
        """Tell whether there is anything to decide."""
        ...

    def grant(self, *, force: bool = False) -> bool:
        """Let it in if it fits, or by force; True: it leaves the queue."""
        ...

    def revoke(self) -> Reservation | None:
        """Take back what was granted, and return it: it waits again."""
        ...

    def drop(self) -> Reservation | None:
        """Forget what was granted, and return it: the caller has gone."""
        ...
