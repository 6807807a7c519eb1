"""The ledger against a slow model that keeps no sums: it works everything out anew from lists, at every step."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asyncguard._machines.ledger import FRESH
from asyncguard._machines.levels import Level
from asyncguard._machines.memory_queue import MOST_PASSES
from asyncguard._machines.memory_reservation import Reservation
from asyncguard._machines.memory_shared import SLICE
from asyncguard._machines.memory_ticket import MemoryTicket
from asyncguard.errors import MemoryPressureError
from tests.machines.memory_bench import Bench, Spot, empty

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncguard._machines.gate import Spot as Parked

LIMITS = (1000, 1500)
THRESHOLD, RESUME = 0.9, 0.8


@dataclass(eq=False)
class Call:
    """A call as the model sees it: waits, runs, over (but not out of the sums), gone."""

    need: int
    inside: Call | None
    state: str = "waits"
    stays: bool = True
    slice: int = 0
    lent: int = 0
    passed: int = 0
    forced: bool = False
    ticket: MemoryTicket | None = None
    permit: Reservation | None = None

    def around(self) -> list[Call]:
        return [] if self.inside is None else [self.inside, *self.inside.around()]


@dataclass
class Model:
    """Two levels and the calls. No sums: everything is worked out from the list of calls."""

    now: float
    used: list[int] = field(default_factory=lambda: [0, 0])
    base: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=lambda: [0, 0])
    calls: list[Call] = field(default_factory=list)
    pressed: bool = False
    fresh_until: float = -math.inf
    slice: int = 1
    slice_until: float = -math.inf

    def counts(self, call: Call) -> bool:
        """Whether its bytes are still promised: it is in the sums, or calls inside of it still draw on it."""
        drawn_on = any(each.inside is call and each.lent and self.counts(each) for each in self.calls)
        return call.state in {"runs", "over"} or (call.state == "gone" and drawn_on)

    def spare(self, call: Call) -> int:
        parent = call.inside
        if parent is None or parent.state != "runs":
            return 0
        return parent.need - sum(each.lent for each in self.calls if each.inside is parent and self.counts(each))

    def promised(self, *, young: bool = False) -> int:
        counted = [call for call in self.calls if self.counts(call) and (not young or self.slice - call.slice < 2)]
        return sum(call.need - call.lent for call in counted)

    def queue(self) -> list[Call]:
        return [call for call in self.calls if call.state == "waits"]

    def others(self, call: Call) -> int:
        waiting = [call, *(each for each in self.queue() if each.stays)]
        waits_for = {id(each) for inner in waiting for each in inner.around()}
        return sum(each.state in {"runs", "over"} and id(each) not in waits_for for each in self.calls)

    def room(self, fraction: float) -> float:
        return min(fraction * limit - held for limit, held in zip(LIMITS, self.held, strict=True))

    def fits(self, more: int) -> bool:
        held = self.pressed and self.promised() > self.room(RESUME)
        self.pressed = held or self.promised() + more > self.room(THRESHOLD)
        return not self.pressed

    def look(self, *, anew: bool) -> None:
        over = [call for call in self.calls if call.state == "over"]
        if self.now < self.fresh_until and not (anew and over):
            return
        self.fresh_until = self.now + FRESH
        for call in over:
            call.state = "gone"
        if self.now >= self.slice_until:
            self.slice += 2 if self.now >= self.slice_until + SLICE else 1
            self.slice_until = self.now + SLICE
        old = self.promised() - self.promised(young=True)
        before = self.base or self.used
        self.base = [min(max(b, u - self.promised()), u) for b, u in zip(before, self.used, strict=True)]
        self.held = [max(b, min(u, u - old)) for b, u in zip(self.base, self.used, strict=True)]

    def grant(self, call: Call, *, force: bool = False) -> bool:
        lent = min(call.need, self.spare(call))
        fits = lent == call.need or self.fits(call.need - lent)
        if not fits and not force:
            return False
        call.state, call.lent, call.forced, call.slice = "runs", lent, not fits, self.slice
        return True

    def settle(self) -> None:
        head: Call | None = None
        for call in self.queue():
            if head is not None and head.passed >= MOST_PASSES:
                break
            if self.grant(call):
                if head is not None:
                    head.passed += 1
            elif head is None:
                head = call
        self.go_on(head)

    def go_on(self, head: Call | None) -> None:
        """When nothing runs: one inside of a call that fits, else the first inside of a call, else the first."""
        inner = [call for call in self.queue() if call.inside is not None and not self.others(call)]
        first = [head] if head is not None and not self.others(head) else []
        for call, force in [(call, False) for call in inner] + [(call, True) for call in (*inner, *first)]:
            if self.grant(call, force=force):
                return

    def arrive_at_once(self, call: Call) -> bool:
        """Who is inside of no call, finds nobody waiting and fits by the last reading needs no other."""
        if call.inside is not None:
            return False
        self.look(anew=False)
        if self.pressed or self.queue() or self.promised() + call.need > self.room(THRESHOLD):
            return False
        self.calls.append(call)
        return self.grant(call)

    def arrive(self, call: Call) -> None:
        if self.arrive_at_once(call):
            return
        self.look(anew=True)
        alone = not self.queue()
        self.calls.append(call)
        call.state = "arrives"
        force = alone and not self.others(call)
        if (alone or call.need <= self.spare(call)) and self.grant(call, force=force):
            return
        call.state = "waits"
        self.settle()
        if call.state == "waits" and not call.stays:
            self.cancel(call)

    def end(self, call: Call) -> None:
        call.state = "over"
        if self.queue():
            self.look(anew=True)
            self.settle()

    def cancel(self, call: Call) -> None:
        if call.state == "runs":
            self.end(call)
        else:
            call.state = "gone"
            self.settle()

    def claim(self, call: Call) -> None:
        self.look(anew=True)
        if call.state == "waits":
            self.settle()


def wake(spots: Iterable[Parked]) -> None:
    """Do what the driver does with those whom it is to wake."""
    for spot in spots:
        spot.wake()


class LedgerMachine(RuleBasedStateMachine):
    """Calls come (also inside of others), end, are cancelled; other programs use memory and give it back."""

    @initialize()
    def start(self) -> None:
        self.bench = Bench()
        self.bench.reading([Level("box", LIMITS[0], 0), Level("pod", LIMITS[1], 0)])
        self.gate = self.bench.gate(None, threshold=THRESHOLD, resume=RESUME)
        self.model = Model(self.bench.now)

    def running(self) -> list[Call]:
        return [call for call in self.model.calls if call.permit is not None]

    def waiting(self) -> list[Call]:
        return [call for call in self.model.calls if call.ticket is not None]

    @rule(need=st.integers(0, 900), data=st.data())
    def arrive(self, need: int, data: st.DataObject) -> None:
        inside = data.draw(st.sampled_from([None, *self.running()]))
        call = Call(need, inside)
        got = self.bench.ask(self.gate, need, inside=None if inside is None else inside.permit)
        self.model.arrive(call)
        if isinstance(got, MemoryTicket):
            call.ticket = got
        else:
            call.permit = got

    @rule(need=st.integers(0, 900), data=st.data())
    def arrive_without_waiting(self, need: int, data: st.DataObject) -> None:
        inside = data.draw(st.sampled_from([None, *self.running()]))
        call = Call(need, inside, stays=False)
        self.gate.configure(self.gate.bounds, None, waits=False)
        with contextlib.suppress(MemoryPressureError):
            permit = self.bench.ask(self.gate, need, inside=None if inside is None else inside.permit)
            assert isinstance(permit, Reservation)
            call.permit = permit
        self.gate.configure(self.gate.bounds, None, waits=True)
        self.model.arrive(call)
        assert (call.permit is None) == (call.state == "gone")

    @rule(need=st.integers(901, 5000))
    def arrive_with_what_never_fits(self, need: int) -> None:
        with pytest.raises(MemoryPressureError) as caught:
            self.bench.ask(self.gate, need)
        assert caught.value.permanent
        self.model.look(anew=True)
        self.model.settle()  # its look may have shown that others fit

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.running()))
        assert call.permit is not None
        wake(self.gate.release(call.permit))
        call.permit = None
        self.model.end(call)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.waiting()))
        assert call.ticket is not None
        wake(call.ticket.withdraw())
        call.ticket = None
        self.model.cancel(call)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def look_at_the_ticket(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.waiting()))
        assert call.ticket is not None
        call.permit = call.ticket.claim(self.bench.now)
        self.model.claim(call)
        assert (call.permit is not None) == (call.state == "runs")
        if call.permit is not None:
            assert (call.permit.lent, call.permit.forced) == (call.lent, call.forced)
            call.ticket = None

    @rule(box=st.integers(0, 1000), pod=st.integers(0, 500))
    def other_programs_use(self, box: int, pod: int) -> None:
        self.model.used = [box, box + pod]
        self.bench.reading([Level("box", LIMITS[0], box), Level("pod", LIMITS[1], box + pod)])

    @rule(seconds=st.sampled_from([0.001, 0.011, 0.026, 0.051, 0.5]))
    def time_passes(self, seconds: float) -> None:
        self.bench.now = self.model.now = self.bench.now + seconds

    @rule()
    def somebody_takes_a_reading(self) -> None:
        self.bench.ledger.look(self.bench.now)
        self.model.look(anew=False)
        wake(self.bench.ledger.relieve(0))
        self.model.settle()

    @invariant()
    def both_say_the_same(self) -> None:
        if not hasattr(self, "bench"):
            return
        ledger, model = self.bench.ledger, self.model
        assert ledger.reserved == model.promised()
        assert sum(ledger.young) == model.promised(young=True)
        assert ledger.running == sum(call.state in {"runs", "over"} for call in model.calls)
        assert ledger.running - len(ledger.over) == sum(call.state == "runs" for call in model.calls)
        assert len(ledger.queue) == self.gate.waiting - sum(call.state == "runs" for call in self.waiting())
        assert [call.ticket for call in model.queue()] == list(ledger.queue)
        assert [each.base for each in ledger.accounts.values()] == model.base
        assert not model.base or [each.held for each in ledger.accounts.values()] == model.held

    @invariant()
    def somebody_goes_on_while_somebody_waits(self) -> None:
        if hasattr(self, "bench") and self.model.queue():
            assert self.model.others(self.model.queue()[0]) > 0

    @invariant()
    def whoever_was_let_in_was_woken(self) -> None:
        for call in self.waiting() if hasattr(self, "bench") else ():
            assert call.ticket is not None
            assert isinstance(call.ticket.spot, Spot)
            if call.state == "waits":
                call.ticket.spot.woken = 0  # it looks, finds nothing and sleeps again
            else:
                assert call.ticket.spot.woken

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        for call in self.waiting():
            assert call.ticket is not None
            call.ticket.withdraw()
        for call in self.running():
            assert call.permit is not None
            self.gate.release(call.permit)
        assert empty(self.bench.ledger)
        assert self.gate.idle()


TestLedger = LedgerMachine.TestCase
# A failure is shrunk in seconds; to find out in addition which values do not matter takes minutes.
TestLedger.settings = settings(phases=set(Phase) - {Phase.explain})
