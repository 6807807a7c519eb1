"""What another thread, or the garbage collector, does in the midst of what the ledger does: at exactly that point.

A call ends without the ledger's lock, so wherever the ledger makes a call of its own another thread may end one.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asyncguard._machines.estimate import Learner
from asyncguard._machines.ledger import FRESH
from asyncguard._machines.levels import Bounds, Level, Reading
from asyncguard._machines.memory_reservation import Reservation
from asyncguard._machines.memory_ticket import MemoryTicket
from asyncguard._machines.neighbours import ROWS_IN_USE, Neighbours
from tests.machines.memory_bench import LIMIT, Bench, empty
from tests.machines.test_ledger_shared import Container, empty_at


class Once:
    """Does something at the first call, and nothing after that."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.work: Callable[[], object] | None = work

    def __call__(self) -> None:
        work, self.work = self.work, None
        if work is not None:
            work()


def before(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, work: Callable[[], object]) -> None:
    """Let another thread do some work right before a method goes on, once."""
    really, interrupt = getattr(owner, name), Once(work)

    def method(*args: Any, **kwargs: Any) -> Any:
        interrupt()
        return really(*args, **kwargs)

    monkeypatch.setattr(owner, name, method)


def watched(permit: Reservation, name: str, work: Callable[[], object]) -> None:
    """Let another thread do some work at the moment at which a fact of this reservation is asked for, once."""
    value, interrupt = getattr(permit, name), Once(work)

    def ask(_: Reservation) -> Any:
        interrupt()
        return value

    permit.__class__ = type("Watched", (Reservation,), {name: property(ask, lambda *_: None)})


@pytest.fixture
def container() -> Container:
    return Container()


# --- what the other processes are told --------------------------------------------------------------------------------


def test_a_call_that_ends_while_the_others_are_told_of_it_is_not_told_for_ever(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = container.process()
    last = one.enter(300)
    before(monkeypatch, Neighbours, "tell_idle", lambda: one.gate.release(last))
    one.ledger.announce()
    assert container.promised() == 0


def test_a_call_that_ends_while_the_table_is_met_is_not_told(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = container.process()
    near, one.near = one.near, None
    container.now += 1.0
    first, last = one.enter(200), one.enter(100)
    assert one.ledger.near is None

    def connect() -> Neighbours | None:
        one.gate.release(first)
        before(monkeypatch, one.ledger, "announce", lambda: one.gate.release(last))
        return near

    one.ledger.connect = connect
    container.now += 1.0
    one.ledger.look(container.now)
    assert one.ledger.near is near
    assert container.promised() == one.ledger.told == 0


def test_a_size_corrected_at_the_moment_of_the_end_changes_nothing(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = container.process()
    permit, other = one.enter(100), one.enter(50)
    told: list[int] = []
    watched(permit, "lent", lambda: one.gate.release(permit))
    before(monkeypatch, one.ledger, "look", lambda: told.append(one.ledger.told))
    one.gate.reconcile(permit, 10)
    assert told in ([], [50]), "who comes now, before anybody looks, adds to this"
    assert container.promised() == 50
    one.gate.release(other)
    assert empty_at(one.ledger, container.now + 1.0)


@pytest.mark.parametrize("wrong", [10**30, float("inf")])
def test_a_size_that_cannot_be_does_not_spoil_the_table(container: Container, wrong: float) -> None:
    one, other = container.process(), container.process()
    permit = one.enter(100)
    one.gate.reconcile(permit, wrong)
    assert 0 <= container.promised() < 1 << 50
    one.gate.release(permit)
    assert container.promised() == 0
    other.enter(100)
    assert empty_at(one.ledger, container.now + 1.0)


def test_a_size_that_is_no_number_is_refused_and_changes_nothing(container: Container) -> None:
    one = container.process()
    permit = one.enter(100)
    with pytest.raises(ValueError, match="actual must be the bytes of the call, got nan"):
        one.gate.reconcile(permit, float("nan"))
    assert container.promised() == 100


# --- calls that end while those that ended are counted ----------------------------------------------------------------


def test_calls_may_end_while_it_is_counted_what_is_promised() -> None:
    bench = Bench()
    gate = bench.gate(100)
    first, second, last = (gate.take() for _ in range(3))
    gate.release(first)
    gate.release(second)
    watched(first, "nested", lambda: gate.release(last))
    assert bench.ledger.standing() in {(100, 1), (0, 0)}
    assert bench.ledger.standing() == (0, 0)


def test_calls_may_end_while_it_is_asked_whether_a_gate_is_idle() -> None:
    bench = Bench()
    gate = bench.gate(100)
    first, second, last = (gate.take() for _ in range(3))
    gate.release(first)
    gate.release(second)
    watched(first, "door", lambda: gate.release(last))
    assert not gate.idle()
    assert gate.idle()


def test_who_waits_may_leave_while_another_asks_when_to_look_again() -> None:
    bench = Bench()
    gate = bench.gate(600)
    running = bench.enter(gate)
    first, second = bench.wait(gate), bench.wait(gate)

    class Interrupted(dict[MemoryTicket, bool]):
        def __iter__(self) -> Iterator[MemoryTicket]:
            found = super().__iter__()
            if not bench.ledger.inside():
                first.withdraw()
            return found

    bench.ledger.queue = Interrupted(bench.ledger.queue)  # type: ignore[assignment]
    assert second.due(bench.now) > bench.now
    for each in (first, second):
        each.withdraw()
    gate.release(running)
    assert empty(bench.ledger)


# --- readings ---------------------------------------------------------------------------------------------------------


def test_what_has_just_been_given_back_serves_nobody_while_it_is_read_whether_it_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    gate = bench.gate(500, threshold=0.9)
    permit = gate.take()
    bench.use(500)
    gate.release(permit)  # and its caller keeps what it returned
    slow = bench.gate(500, threshold=0.9)

    def look_around() -> None:
        with pytest.raises(LookupError):
            gate.take()
        with bench.ledger.lock:
            assert not slow.fits(500, bench.now)

    before(monkeypatch, bench.ledger, "_read", look_around)
    bench.ledger.look(bench.now + 1.0, anew=True)
    gate.release(gate.take(400))


def test_what_a_running_call_turns_out_not_to_need_serves_nobody_before_it_is_read_whether_it_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    gate = bench.gate(500, threshold=0.9)
    permit = gate.take()
    bench.use(500)

    def look_around() -> None:
        with pytest.raises(LookupError):
            gate.take(450)

    before(monkeypatch, bench.ledger, "_read", look_around)
    gate.reconcile(permit, 100)
    gate.release(gate.take(400))


def test_who_comes_while_it_is_read_whether_bytes_are_free_reads_too(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    gate = bench.gate(500, threshold=0.9)
    permit = gate.take()
    bench.use(500)
    gate.release(permit)
    bench.levels = [Level("box", LIMIT, 0)]
    before(monkeypatch, bench.ledger, "_read", lambda: bench.enter(gate))
    bench.ledger.look(bench.now, anew=True)
    assert bench.ledger.standing() == (500, 1)
    assert "forced" not in {getattr(each, "decision", "") for each in gate.news}


def test_a_reading_that_took_longer_than_one_begun_later_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    gate = bench.gate(500)
    bench.ledger.look(bench.now)
    old = Reading((Level("box", LIMIT, 0),), "system")

    def slow() -> Reading:
        monkeypatch.setattr(bench.ledger, "_read", bench.read)
        bench.use(800)
        bench.ledger.look(bench.now)  # in another thread
        return old

    monkeypatch.setattr(bench.ledger, "_read", slow)
    bench.now += FRESH
    bench.ledger.look(bench.now)
    with pytest.raises(LookupError):
        gate.take()


# --- the garbage collector --------------------------------------------------------------------------------------------


def test_a_caller_that_is_taken_out_while_the_call_inside_is_let_in_is_not_given_back_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    gate = bench.gate()
    outer = bench.enter(gate, 300)

    def end_and_look() -> None:  # a finalizer ends the one, and another makes a guarded call
        gate.release(outer)
        bench.ledger.look(bench.now + 1.0)

    before(monkeypatch, gate, "fits", end_and_look)
    inner = bench.enter(gate, 400, inside=outer)
    assert bench.ledger.standing() == (400, 1)
    gate.release(inner)
    assert empty(bench.ledger)


@pytest.mark.parametrize("learned", [False, True])
def test_a_call_made_by_the_garbage_collector_within_the_ledger_waits_for_nobody(*, learned: bool) -> None:
    bench = Bench()
    gate = bench.gate(800)
    running = bench.enter(gate)
    ticket = bench.wait(gate)
    finalizer = bench.gate(Learner() if learned else 700)
    made: list[Reservation] = []

    def collect() -> None:
        with bench.ledger.lock:
            made.append(bench.enter(finalizer))

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(60.0)
    assert not thread.is_alive()
    assert made[0].forced
    assert not made[0].measured
    for each in (running, made[0]):
        (finalizer if each is made[0] else gate).release(each)
    taken = ticket.claim(bench.now)
    assert taken is not None
    gate.release(taken)
    assert empty(bench.ledger)


# --- other options and other processes --------------------------------------------------------------------------------


def test_who_waits_while_sizes_stop_being_learned_reserves_a_guess_and_not_nothing() -> None:
    bench = Bench(limit=1 << 30)
    bench.levels = [Level("box", 1 << 30, 0)]
    big = bench.gate((1 << 30) - (200 << 20), threshold=1.0)
    learning = bench.gate(Learner(300 << 20), threshold=1.0)
    held = bench.enter(big)
    tickets = [bench.ask(learning, arguments=10 << 20) for _ in range(3)]
    assert all(isinstance(each, MemoryTicket) for each in tickets)
    learning.configure(Bounds(1.0, 0.95), None, waits=True)
    big.release(held)
    permits = [each.claim(bench.now) for each in tickets if isinstance(each, MemoryTicket)]
    assert [each and each.need for each in permits] == [80 << 20] * 3


def test_who_waited_in_the_parent_of_a_fork_leaves_no_trace_in_the_child() -> None:
    bench = Bench()
    gate = bench.gate(600)
    bench.enter(gate)
    ticket = bench.wait(gate)
    gate.after_fork()
    ticket.withdraw()
    assert gate.waiting == 0
    assert gate.idle()


# --- all at once ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def switching_often() -> Iterator[None]:
    """Let threads take turns a thousand times as often."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


class Storm:
    """Threads that do with one ledger whatever calls do, in any order."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.process = container.process()
        self.quick = self.process.new_gate(3)
        self.failed: list[BaseException] = []

    def work(self, seed: int) -> None:
        dice = random.Random(seed)
        try:
            for _ in range(200):
                dice.choice((self.pass_quickly, self.pass_quickly, self.wait, self.look))(dice)
        except BaseException as error:
            self.failed.append(error)
            raise

    def pass_quickly(self, dice: random.Random) -> None:
        taken: list[Reservation] = []
        with contextlib.suppress(LookupError):
            for _ in range(dice.randint(1, 12)):
                taken.append(self.quick.take())
        inner = self.process.ask(dice.randint(1, 20), inside=taken[0]) if taken and dice.random() < 0.3 else None
        if taken and dice.random() < 0.2:
            self.quick.reconcile(taken[-1], dice.randint(0, 10))
        for each in taken:
            self.quick.release(each)
        if inner is not None:
            self.leave(inner)

    def wait(self, dice: random.Random) -> None:
        self.leave(self.process.ask(dice.randint(1, 700)))

    def leave(self, call: Reservation | MemoryTicket) -> None:
        if isinstance(call, MemoryTicket):
            call.due(self.container.now)
            permit = call.claim(self.container.now)
            if permit is None:
                call.withdraw()
                return
            call = permit
        self.process.gate.release(call)

    def look(self, dice: random.Random) -> None:
        self.process.ledger.standing()
        self.quick.idle()
        self.container.now += FRESH * dice.random()
        self.process.ledger.look(self.container.now, anew=True)


def test_threads_that_end_calls_while_others_look_leave_nothing(container: Container) -> None:
    storm = Storm(container)
    container.cells[ROWS_IN_USE] = 2
    threads = [threading.Thread(target=storm.work, args=(seed,)) for seed in range(4)]
    with switching_often():
        for each in threads:
            each.start()
        for each in threads:
            each.join(120.0)
    assert not storm.failed
    assert container.promised() == 0, "before anybody looks again"
    ledger = storm.process.ledger
    assert empty_at(ledger, container.now + 1.0)
    assert (ledger.told, sum(ledger.young), ledger.unread) == (0, 0, 0)
    assert (storm.quick.running, storm.process.gate.running, storm.process.gate.waiting) == (0, 0, 0)
