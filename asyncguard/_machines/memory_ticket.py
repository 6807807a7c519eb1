"""A place in the queue of a ledger: what the caller needs is asked anew at each look."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from asyncguard._machines.estimate import ArgumentBytes, guess
from asyncguard._machines.memory_reservation import Reservation
from asyncguard._machines.memory_shared import SLICE

if TYPE_CHECKING:
    from asyncguard._machines.gate import Request, Wake
    from asyncguard._machines.memory_gate import MemoryGate
    from asyncguard.errors import MemoryPressureError

__all__ = ["MemoryTicket"]

FIRST_LOOK: Final = 0.05
LAST_LOOK: Final = 1.0
"""Seconds after which a waiter looks again unasked, growing: other programs give memory back without telling us."""


class MemoryTicket:
    """Implements the ticket protocol, and what the ledger wants of a waiter."""

    __slots__ = (
        "_gate", "_generation", "_permit", "_queued", "_request",
        "ahead", "arguments", "hopeless", "more", "parent", "passed", "since", "spot", "stated",
    )  # fmt: skip

    def __init__(self, gate: MemoryGate, request: Request, now: float) -> None:
        self.spot = request.spot
        self.since = now
        self.ahead = 0
        self.passed = 0
        self.parent = request.owner if isinstance(request.owner, Reservation) else None
        hint = isinstance(request.cost, ArgumentBytes)
        self.arguments = int(request.cost) if hint else 0
        self.stated: int | None = None if hint or request.cost is None else round(request.cost)
        self._gate = gate
        self._generation = gate.ledger.generation
        self._request = request
        self.more = 0
        self._queued = False
        self.hopeless = False  # it can never fit
        self._permit: Reservation | None = None

    # --- under the ledger's lock ---

    def ready(self) -> bool:
        """Tell whether there is anything to decide: not while the first call of the function is being measured."""
        learner = self._gate.learner
        return self.stated is not None or learner is None or learner.need is not None or not learner.busy

    def grant(self, *, force: bool = False) -> bool:
        """Let the call in if it fits, or by force if nothing else runs; True: it leaves the queue."""
        gate = self._gate
        need, measured = gate.size(self)
        if need is None:
            return False
        if gate.impossible(need):
            self.hopeless = True
            self._request.until = -math.inf  # the limit may have shrunk since it came: it need not wait any longer
            return True
        lent = min(need, self._spare())
        self.more = need - lent
        forced = self.more > 0 and (not gate.fits(self.more, self.since) or gate.crowded)
        if (forced and not force) or not self._secured(forced=forced):
            return False
        self._permit = self._open(need, lent, forced=forced, measured=measured)
        return True

    def _secured(self, *, forced: bool) -> bool:
        """Promise the bytes in front of all other processes; False if one of them was faster."""
        ledger = self._gate.ledger
        if ledger.near is None or not self.more:
            return True
        if forced and not ledger.quiet_elsewhere(self.since):
            return False
        ledger.announce(self.more)
        if ledger.quiet_elsewhere(self.since) if forced else self._gate.still_fits(self.more, self.since):
            return True
        ledger.announce()
        return False

    def _passes(self) -> bool:
        """Tell whether the queue does not matter: for the call nothing is left to decide."""
        need = self._gate.size(self)[0]
        return need is not None and (self._gate.impossible(need) or need <= self._spare())

    def _spare(self) -> int:
        parent = self.parent
        return 0 if parent is None or parent.closed else parent.need - parent.drawn

    def _open(self, need: int, lent: int, *, forced: bool, measured: bool) -> Reservation:
        ledger = self._gate.ledger
        permit = Reservation(need, self._gate, ledger.slice)
        permit.parent, permit.lent = self.parent, lent
        permit.forced, permit.measured, permit.plain = forced, measured, False
        ledger.open(permit)
        if measured and self._gate.learner is not None:
            self._gate.learner.begins(permit)
        return permit

    # --- what the gate and its driver ask ---

    def try_at_once(self) -> None:
        """Go in now if nobody waits (or if the caller's reservation covers it), else take a place and look around."""
        gate, ledger = self._gate, self._gate.ledger
        woken: Wake = ()
        with ledger.lock:
            force = not ledger.queue and ledger.stuck(self.parent)
            if (ledger.queue and not self._passes()) or not self.grant(force=force):
                self.ahead = len(ledger.queue)
                self._queued = True
                gate.waiting += 1
                ledger.enqueue(self, stays=gate.waits)
                woken = ledger.settle()
        self.wake(woken)

    def go_through(self) -> Reservation:
        """Go in whatever there is: the garbage collector makes this call while its thread is in the ledger.

        If it waited, everybody would wait for that thread, and it for them.
        """
        need = self._gate.size(self)[0]
        permit = self._open(guess(self.arguments) if need is None else need, 0, forced=True, measured=False)
        return self._gate.begin(permit, 0.0, queued=False)

    def taken(self, now: float) -> Reservation | None:
        """Return the reservation that was granted, once; None if there is none (yet)."""
        queued = self._queued
        with self._gate.ledger.lock:  # or it is taken back at this moment
            permit, self._permit = self._permit, None
            if permit is not None:
                self._leave()
        if permit is None:
            if self._gate.pressed and not self.hopeless:
                self._gate.pressure()
            return None
        return self._gate.begin(permit, now - self.since, queued=queued)

    @property
    def until(self) -> float:
        """When it stops waiting."""
        return self._request.until

    def claim(self, now: float) -> Reservation | None:
        """Look again and take what was granted."""
        ledger = self._gate.ledger
        ledger.look(now, anew=True)
        woken: Wake = ()
        with ledger.lock:
            if self._permit is None and not self.hopeless:
                woken = ledger.settle()
        self.wake(woken)
        return self.taken(now)

    def due(self, now: float) -> float:
        """Return when to look again: after 50 ms, then in growing steps, at last every second.

        The first in the queue sooner, if it is only kept out until it is seen what others take, or if other processes
        may give back what it waits for: those wake nobody here.
        """
        ledger = self._gate.ledger
        with ledger.lock:
            first = next(iter(ledger.queue), None) is self
        if first and (ledger.cautious or ledger.promised_elsewhere):
            return now + SLICE
        return now + min(LAST_LOOK, max(FIRST_LOOK, now - self.since))

    def withdraw(self) -> Wake:
        """Leave the queue, or give back what was granted."""
        ledger = self._gate.ledger
        if ledger.inside():  # the garbage collector ended the caller in the midst of something
            ledger.left.append(self)
            return ()
        self._leave()
        permit = self.drop()
        if permit is not None:
            return ledger.close(permit)
        with ledger.lock:
            return ledger.settle()

    def drop(self) -> Reservation | None:
        """Forget what was granted, and return it: the caller has gone."""
        self._unqueue()
        return self.revoke()

    def revoke(self) -> Reservation | None:
        """Take back what was granted, and return it: it waits again."""
        permit, self._permit = self._permit, None
        if permit is not None:
            self._gate.forget(permit)
        return permit

    def late(self, now: float) -> MemoryPressureError:
        """Return the rejection of a caller who waited as long as it may."""
        return self._gate.refusal(self, now)

    def _leave(self) -> None:
        with self._gate.ledger.lock:
            self._gate.ledger.leave(self)
            self._unqueue()

    def _unqueue(self) -> None:
        if self._generation == self._gate.ledger.generation:  # who waited in the parent of a fork does not wait here
            self._gate.waiting -= self._queued
        self._queued = False

    def wake(self, woken: Wake) -> None:
        """Wake others; who looks for itself needs no waking."""
        for spot in woken:
            if spot is not self.spot:
                spot.wake()
