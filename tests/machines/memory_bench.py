"""What the tests of the ledger share: a machine of one level, a clock, waiters that say whether they were woken."""

from __future__ import annotations

import math

from asyncguard._machines.estimate import ArgumentBytes, Learner
from asyncguard._machines.gate import Request
from asyncguard._machines.ledger import Ledger
from asyncguard._machines.levels import Bounds, Level, Reading
from asyncguard._machines.memory_gate import MemoryGate
from asyncguard._machines.memory_reservation import Reservation
from asyncguard._machines.memory_shared import SLICE
from asyncguard._machines.memory_ticket import MemoryTicket

LIMIT = 1000


class Spot:
    def __init__(self) -> None:
        self.woken = 0
        self.dead = False

    def wake(self) -> None:
        self.woken += 1

    def alive(self) -> bool:
        return not self.dead


class Meter:
    """Says what the test told it to."""

    def __init__(self) -> None:
        self.peak: int | None = 50
        self.level: int | None = None
        self.running = False

    def start(self) -> int | None:
        assert not self.running, "one measurement at a time"
        self.running = True
        return self.level

    def stop(self) -> int | None:
        assert self.running, "nothing is being measured"
        self.running = False
        return self.peak


class Bench:
    """A machine with `used` of `limit` units in use."""

    def __init__(self, used: int = 0, limit: int = LIMIT) -> None:
        self.now = 100.0
        self.reads = 0
        self.reading([Level("box", limit, used)])
        self.ledger = Ledger(self.read, lambda: self.now)
        self.meter = Meter()
        self.pressures = 0
        self.tidied = 0

    def reading(self, levels: list[Level]) -> None:
        self.levels = levels

    def use(self, used: int, limit: int = LIMIT) -> None:
        """Something changes, long enough after all calls began."""
        self.ledger.look(self.now, anew=True)
        self.levels = [Level("box", limit, used)]
        self.now += 3 * SLICE

    def read(self) -> Reading:
        self.reads += 1
        return Reading(tuple(self.levels), "system")

    def gate(
        self, size: int | Learner | None = None, *, threshold: float = 0.9, resume: float = 0.8, waits: bool = True,
        limit: int | None = None, min_free: int = 0,
    ) -> MemoryGate:  # fmt: skip
        return MemoryGate(
            self.ledger, Bounds(threshold, resume, limit, min_free), size, meter=self.meter, name="guard", waits=waits,
            pressure=self.pressure, tidy=self.tidy,
        )  # fmt: skip

    def pressure(self) -> None:
        self.pressures += 1

    def tidy(self) -> None:
        self.tidied += 1

    def ask(
        self, gate: MemoryGate, need: int | None = None, *, inside: Reservation | None = None, arguments: int = 0
    ) -> Reservation | MemoryTicket:
        cost = ArgumentBytes(arguments) if need is None and gate.learner is not None else need
        return gate.admit(Request(spot=Spot(), cost=cost, owner=inside))

    def enter(self, gate: MemoryGate, need: int | None = None, *, inside: Reservation | None = None) -> Reservation:
        permit = self.ask(gate, need, inside=inside)
        assert isinstance(permit, Reservation), "the call has to wait"
        return permit

    def wait(self, gate: MemoryGate, need: int | None = None, *, inside: Reservation | None = None) -> MemoryTicket:
        ticket = self.ask(gate, need, inside=inside)
        assert isinstance(ticket, MemoryTicket), "the call was let in"
        return ticket

    def end(self, gate: MemoryGate, permit: Reservation) -> list[Spot]:
        if permit.measured:
            gate.succeeded(permit, 0.0)
        return list(gate.release(permit))


def empty(ledger: Ledger) -> bool:
    ledger.look(math.inf, anew=True)
    sums = (ledger.reserved, ledger.running, ledger.young, ledger._stalled, len(ledger.over))
    return sums == (0, 0, [0, 0], 0, 0) and not ledger.queue and ledger.measuring is None
