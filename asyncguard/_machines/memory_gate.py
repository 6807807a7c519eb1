"""One guard's door to a ledger: how much of each level it may fill, what a call needs, who has to wait."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Protocol

from asyncguard._machines import levels
from asyncguard._machines.estimate import ArgumentBytes, Learner, guess
from asyncguard._machines.ledger import Ledger
from asyncguard._machines.levels import Bounds, Room
from asyncguard._machines.memory_reservation import Reservation
from asyncguard._machines.memory_ticket import MemoryTicket
from asyncguard._machines.memory_words import Decision, refusal
from asyncguard._machines.neighbours import ROWS_IN_USE

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncguard._machines.gate import Request, Wake
    from asyncguard.errors import MemoryPressureError

__all__ = ["MemoryGate", "Meter"]

MOST_NEWS = 256

MOST_BYTES = 1 << 46
"""More than the largest machine has. Who promised more would spoil the table that processes share."""


class Meter(Protocol):
    """Measures the peak of this process, one call at a time.

    `start` gives the bytes held then, None if they are not known; `stop` those of the peak above them.
    """

    def start(self) -> int | None: ...
    def stop(self) -> int | None: ...


def _nothing() -> None:
    """Do nothing: nobody cares about pressure here."""


class MemoryGate:
    """Implements the gate protocol. `size` is the bytes of each call, a learner, or None if each call states its own.

    `pressure` is called when somebody has to wait, `tidy` when an empty allocator would help the next measurement;
    both must only schedule work. `waits` is False for a guard that refuses at once.
    """

    outcomes: bool = True
    timed: bool = False

    def __init__(  # noqa: PLR0913 - what a gate is made of
        self,
        ledger: Ledger,
        bounds: Bounds,
        size: int | Learner | None,
        *,
        meter: Meter,
        name: str = "memory_guard",
        waits: bool = True,
        pressure: Callable[[], None] = _nothing,
        tidy: Callable[[], None] = _nothing,
    ) -> None:
        self.ledger = ledger
        self.name = name
        self.news: deque[Decision | int] = deque(maxlen=MOST_NEWS)  # a number: so many bytes were admitted at once
        self.pressure = pressure
        self.running = 0
        self.waiting = 0
        self.pressed = False
        self._tidy = tidy
        self._meter = meter
        self._clock = ledger.clock
        self.configure(bounds, size, waits=waits)

    def configure(self, bounds: Bounds, size: int | Learner | None, *, waits: bool) -> None:
        """Put other options in force, for calls that come from now on."""
        self.bounds = bounds
        self.waits = waits
        learner, stated = (size, None) if isinstance(size, Learner) else (None, size)
        self.learner, self.stated = learner, stated  # at once: no call must see neither
        self._looks = -1
        self._quick = -math.inf
        self._room = self._calm = Room()

    def after_fork(self) -> None:
        """In a forked child: nobody waits, nothing runs; what was learned stays. Renews the shared ledger too."""
        self.ledger.after_fork()
        self.running = 0
        self.waiting = 0
        self.pressed = False
        self._looks = -1
        if self.learner is not None:
            self.learner.after_fork()

    def idle(self) -> bool:
        """Tell whether nothing would be lost but an estimate that can be learned again."""
        with self.ledger.lock:
            gone = sum(each.door is self for each in list(self.ledger.over))  # a copy: calls end in other threads
            return self.running == gone and not self.waiting

    # --- the fast path ---

    def take(self, stated: int | None = None) -> Reservation:
        """Return a reservation for a call inside of no other guarded call, or raise LookupError.

        `stated` is what this call needs, None if that is the same for all.
        """
        ledger, learner = self.ledger, self.learner
        now = self._clock()
        if now >= ledger.fresh_until:
            ledger.look(now)
        need = stated
        if need is None:
            need = self.stated if learner is None else learner.estimator.need
        if need is None or (learner is not None and now >= learner.measure_at):
            raise LookupError
        with ledger.lock:
            if self._looks != ledger.looks:
                self._reckon()
            if self.pressed or ledger.queue or ledger.measuring or ledger.reserved + need > self._quick:
                raise LookupError
            near = ledger.near
            if near is not None:
                # First said, then looked: of two who do that at the same time one sees the other.
                cells, together = near.cells, self._room.together - ledger.reserved + ledger.told
                ledger.told += need
                cells[near.mine] = ledger.told
                if cells[ROWS_IN_USE] > 1 and near.total() > together:
                    ledger.told -= need
                    cells[near.mine] = ledger.told
                    raise LookupError
            self.running += 1
            ledger.running += 1
            ledger.reserved += need
            ledger.young[0] += need
            permit = Reservation(need, self, ledger.slice)
            if ledger.generation:
                permit.generation = ledger.generation
            return permit

    # --- the slow path ---

    def admit(self, request: Request) -> Reservation | MemoryTicket:
        """Return a reservation or a place in the queue; raise MemoryPressureError if it cannot fit or may not wait.

        `request.cost` is the bytes of this call, or the size of its arguments (`ArgumentBytes`), or None;
        `request.owner` the reservation of the guarded call around it, if there is one.
        """
        permit = self._at_once(request)
        if permit is not None:
            return permit
        now = self._clock()
        if self.ledger.inside():
            return MemoryTicket(self, request, now).go_through()
        self.ledger.look(now, anew=True)
        ticket = MemoryTicket(self, request, now)
        ticket.try_at_once()
        permit = ticket.taken(now)
        if permit is not None:
            return permit
        if ticket.hopeless or not self.waits:
            ticket.wake(ticket.withdraw())
            raise self.refusal(ticket, now)
        return ticket

    def _at_once(self, request: Request) -> Reservation | None:
        """Let in who fits by the last reading, which costs nothing: calls that have ended since still count."""
        if isinstance(request.owner, Reservation):
            return None  # it draws on the bytes of its caller
        hint = request.cost is None or isinstance(request.cost, ArgumentBytes)
        try:
            permit = self.take(None if hint else round(request.cost or 0))
        except LookupError:
            return None
        self.news.append(permit.need)
        return permit

    def begin(self, permit: Reservation, waited: float, *, queued: bool) -> Reservation:
        """Hand over a reservation: the call starts now."""
        if permit.measured:
            try:
                permit.level = self._meter.start()
            except Exception:  # noqa: BLE001 - no thread can be started, or so: the call is made all the same
                self.forget(permit)
        decision = "forced" if permit.forced else "waited" if queued else "admitted"
        self.news.append(self.decided(decision, permit.need, waited))
        return permit

    def size(self, ticket: MemoryTicket) -> tuple[int | None, bool]:
        """Return what a call needs as far as is known now, and whether to measure it; None: wait for the first call.

        Asked again at each look and not only when queueing: what was learned in between decides. What was learned or
        guessed never says that a call cannot fit; such a call runs alone.
        """
        if ticket.stated is not None:
            return ticket.stated, False
        if self.learner is None and self.stated is not None:
            return self.stated, False
        if self.learner is None:  # it came while sizes were learned, and now each call states its own
            return int(min(guess(ticket.arguments), max(0.0, self.ceiling()))), False
        free = self.ledger.measuring is None
        alone = free and not self.ledger.others(ticket.parent)
        need, measured = self.learner.ask(ticket.arguments, self._clock(), alone=alone, free=free)
        return (need if need is None else int(min(need, max(0.0, self.ceiling())))), measured

    def impossible(self, need: int) -> bool:
        """Tell whether a call whose size was stated can never fit."""
        return self.learner is None and need > self.ceiling()

    def fits(self, more: int, since: float) -> bool:
        """Tell whether `more` bytes may be promised now to a call that came at `since`, under the lock.

        After a refusal nothing is let in until the level has fallen to `resume`.
        """
        if self._looks != self.ledger.looks:
            self._reckon()
        reserved, elsewhere = self.ledger.reserved, self.ledger.claimed(since)
        held = self.pressed and not self._calm.has(reserved, elsewhere)
        self.pressed = held or not self._room.has(reserved + more, elsewhere)
        return not self.pressed

    @property
    def crowded(self) -> bool:
        """Whether as many calls run as what was learned so far is trusted for."""
        return self.learner is not None and self.running >= self.learner.window

    def still_fits(self, more: int, since: float) -> bool:
        """Tell whether `more` bytes fit also now that the other processes have been told of them."""
        return self._room.has(self.ledger.reserved + more, self.ledger.claimed(since))

    def _reckon(self) -> None:
        if not self.ledger.looks:  # the first reading is being taken, in another thread: nobody is let in by none
            self._quick = -math.inf
            return
        accounts, unread = self.ledger.accounts.values(), self.ledger.unread
        self._room = levels.room(accounts, self.bounds, self.bounds.threshold, unread)
        self._calm = levels.room(accounts, self.bounds, self.bounds.resume, unread)
        self._quick = min(self._room.here, self._room.together - self.ledger.elsewhere)
        self._looks = self.ledger.looks

    # --- the end of a call ---

    def succeeded(self, permit: Reservation, elapsed: float) -> Wake:
        """Learn from a call that was measured."""
        del elapsed
        if permit.measured:
            self._learn(permit, self._meter.stop())
        return ()

    def failed(self, permit: Reservation, elapsed: float, error: Exception) -> Wake:
        """Learn from a MemoryError; other failures say nothing about the size."""
        del elapsed
        if isinstance(error, MemoryError) and self.learner is not None:
            with self.ledger.lock:
                self.learner.ran_out(permit.need)
        return self.abandoned(permit)

    def abandoned(self, permit: Reservation) -> Wake:
        """A call that did not come to its end tells nothing about its size."""
        if permit.measured:
            self._meter.stop()
            self._learn(permit, None)
        return ()

    def release(self, permit: Reservation) -> Wake:
        """Give the bytes back."""
        woken = self.ledger.close(permit)
        if permit.learned:
            self._tidy()
        return woken

    def refund(self, permit: Reservation) -> Wake:
        """Give the bytes back of a call that was never made."""
        if permit.measured:
            self._meter.stop()
            self.forget(permit)
        return self.ledger.close(permit)

    def reconcile(self, permit: Reservation, actual: float) -> Wake:
        """Correct the bytes of a running call."""
        if math.isnan(actual):
            raise ValueError(f"actual must be the bytes of the call, got {actual}")
        return self.ledger.resize(permit, round(min(max(0, actual), MOST_BYTES)))

    def forget(self, permit: Reservation) -> None:
        """Do not measure this call after all."""
        permit.measured = False
        if self.learner is not None:
            self.learner.forget(permit)

    def _learn(self, permit: Reservation, peak: int | None) -> None:
        permit.measured = False
        if self.learner is None:  # another size was configured meanwhile
            return
        now = self._clock()
        with self.ledger.lock:
            self.learner.ends(permit, peak, now)
        permit.learned = True

    # --- the numbers ---

    def ceiling(self) -> float:
        """Return how many bytes could be promised if nothing else used any."""
        accounts = list(self.ledger.accounts.values())
        return min((self.bounds.ceiling(each.level, self.bounds.threshold) for each in accounts), default=math.inf)

    def decided(self, decision: str, need: int, waited: float = 0.0) -> Decision:
        """Return a decision with the numbers of the level that has the least room now."""
        accounts = list(self.ledger.accounts.values())
        elsewhere = self.ledger.promised_elsewhere
        level = levels.tightest(accounts, self.bounds, elsewhere)
        return Decision(decision, level, self.bounds, *self.ledger.standing(), need, waited, elsewhere)

    def refusal(self, ticket: MemoryTicket, now: float) -> MemoryPressureError:
        """Return the error for a call that is not let in, and note the decision."""
        need, _ = self.size(ticket)
        decision = self.decided("rejected", need or 0, now - ticket.since)
        self.news.append(decision)
        permanent = need is not None and self.impossible(need)
        calm = self.pressed and need is not None and self.still_fits(ticket.more, ticket.since)
        return refusal(self.name, decision, permanent=permanent, unknown=need is None, calm=calm)
