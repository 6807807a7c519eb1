"""The ledger against a slow model that keeps no sums: it works everything out anew from lists, at every step."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asyncguard._machines.ledger import MOST_PASSES, Reservation
from asyncguard._machines.levels import Level
from asyncguard._machines.memory_ticket import MemoryTicket
from asyncguard.errors import MemoryPressureError
from tests.machines.memory_bench import Bench, empty

LIMITS = (1000, 1500)
THRESHOLD, RESUME = 0.9, 0.8


@dataclass(eq=False)
class Call:
    """A call as the model sees it."""

    need: int
    inside: Call | None
    state: str = "waits"  # waits, runs, over
    lent: int = 0
    passed: int = 0
    forced: bool = False
    ticket: MemoryTicket | None = None
    permit: Reservation | None = None

    def around(self) -> list[Call]:
        return [] if self.inside is None else [self.inside, *self.inside.around()]


@dataclass
class Model:
    """Two levels and the calls; nothing is remembered but the bases and whether the last answer was no."""

    used: list[int] = field(default_factory=lambda: [0, 0])
    base: list[int] = field(default_factory=lambda: [0, 0])
    calls: list[Call] = field(default_factory=list)
    pressed: bool = False

    def lends(self, call: Call) -> int:
        return sum(each.lent for each in self.calls if each.inside is call and self.counts(each))

    def counts(self, call: Call) -> bool:
        """Whether its bytes are still promised: it runs, or calls inside of it still draw on it."""
        drawn_on = any(each.inside is call and each.lent and self.counts(each) for each in self.calls)
        return call.state == "runs" or (call.state == "over" and drawn_on)

    def promised(self) -> int:
        return sum(call.need - call.lent for call in self.calls if self.counts(call))

    def queue(self) -> list[Call]:
        return [call for call in self.calls if call.state == "waits"]

    def others(self, call: Call) -> int:
        waits_for = {id(each) for waiting in [call, *self.queue()] for each in waiting.around()}
        return sum(each.state == "runs" and id(each) not in waits_for for each in self.calls)

    def room(self, fraction: float) -> float:
        return min(fraction * limit - base for limit, base in zip(LIMITS, self.base, strict=True))

    def fits(self, more: int) -> bool:
        held = self.pressed and self.promised() > self.room(RESUME)
        self.pressed = held or self.promised() + more > self.room(THRESHOLD)
        return not self.pressed

    def look(self) -> None:
        for level, used in enumerate(self.used):
            self.base[level] = min(max(self.base[level], used - self.promised()), used)

    def grant(self, call: Call) -> bool:
        parent = call.inside
        spare = parent.need - self.lends(parent) if parent is not None and parent.state == "runs" else 0
        lent = min(call.need, spare)
        fits = lent == call.need or self.fits(call.need - lent)
        if not fits and self.others(call):
            return False
        call.state, call.lent, call.forced = "runs", lent, not fits
        return True

    def settle(self) -> None:
        head: Call | None = None
        for call in self.queue():
            if head is not None and head.passed >= MOST_PASSES:
                return
            if self.grant(call):
                if head is not None:
                    head.passed += 1
            elif head is None:
                head = call

    def arrive(self, call: Call) -> None:
        spare = 0
        if call.inside is not None and call.inside.state == "runs":
            spare = call.inside.need - self.lends(call.inside)
        covered = call.need <= spare
        was_empty = not self.queue()
        self.calls.append(call)
        if not (was_empty or covered):
            self.settle()
            return
        call.state = "arrives"
        if not self.grant(call):
            call.state = "waits"
            self.settle()


class LedgerMachine(RuleBasedStateMachine):
    """Calls come (also inside of others), end, are cancelled; other programs use memory and give it back."""

    @initialize()
    def start(self) -> None:
        self.bench = Bench()
        self.bench.reading([Level("box", LIMITS[0], 0), Level("pod", LIMITS[1], 0)])
        self.gate = self.bench.gate(None, threshold=THRESHOLD, resume=RESUME)
        self.model = Model()

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

    @rule(need=st.integers(901, 5000))
    def arrive_with_what_never_fits(self, need: int) -> None:
        with pytest.raises(MemoryPressureError) as caught:
            self.bench.ask(self.gate, need)
        assert caught.value.permanent

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.running()))
        assert call.permit is not None
        self.gate.release(call.permit)
        call.permit, call.state = None, "over"
        self.model.settle()

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.waiting()))
        assert call.ticket is not None
        call.ticket.withdraw()
        call.ticket, call.state = None, "over"
        self.model.settle()

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def look_at_the_ticket(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.waiting()))
        assert call.ticket is not None
        call.permit = call.ticket.claim(self.bench.now)
        assert (call.permit is not None) == (call.state == "runs")
        if call.permit is not None:
            assert (call.permit.lent, call.permit.forced) == (call.lent, call.forced)
            call.ticket = None

    @rule(box=st.integers(0, 1000), pod=st.integers(0, 500))
    def other_programs_use(self, box: int, pod: int) -> None:
        self.model.used = [box, box + pod]
        self.bench.reading([Level("box", LIMITS[0], box), Level("pod", LIMITS[1], box + pod)])
        self.bench.now += 0.01
        self.bench.ledger.look(self.bench.now)
        self.model.look()
        self.bench.ledger.relieve(0)
        self.model.settle()

    @invariant()
    def both_say_the_same(self) -> None:
        if not hasattr(self, "bench"):
            return
        ledger, model = self.bench.ledger, self.model
        assert ledger.reserved == model.promised()
        assert ledger.running == sum(call.state == "runs" for call in model.calls)
        assert len(ledger.queue) == self.gate.waiting - sum(call.state == "runs" for call in self.waiting())
        assert [call.ticket for call in model.queue()] == list(ledger.queue)
        assert [each.base for each in ledger.accounts.values()] in ([], model.base)

    @invariant()
    def somebody_goes_on_while_somebody_waits(self) -> None:
        if hasattr(self, "bench") and self.model.queue():
            assert self.model.others(self.model.queue()[0]) > 0

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
