"""Ledgers of several processes that share one table: in one process, where a list is the shared memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asyncguard._machines.gate import Request
from asyncguard._machines.ledger import Ledger
from asyncguard._machines.levels import PROCESS, Bounds, Level, Reading
from asyncguard._machines.memory_gate import MemoryGate
from asyncguard._machines.memory_reservation import Reservation
from asyncguard._machines.memory_shared import SLICE
from asyncguard._machines.memory_ticket import MemoryTicket
from asyncguard._machines.neighbours import CELLS, COURTESY, HEARTBEAT, MAGIC, ROWS_IN_USE, Neighbours, clear, sound
from tests.machines.memory_bench import LIMIT, Meter, Spot


class Container:
    """A limit, what is used, and a table."""

    def __init__(self) -> None:
        self.now = 100.0
        self.used = 0
        self.cells = [0] * CELLS
        self.cells[0] = MAGIC

    def process(self) -> Process:
        row = self.cells[ROWS_IN_USE]
        self.cells[ROWS_IN_USE] += 1
        return Process(self, row)

    def use(self, used: int) -> None:
        self.used = used
        self.now += 3 * SLICE

    def promised(self) -> int:
        return sum(self.cells[8 : 8 + 2 * self.cells[ROWS_IN_USE] : 2])


class Process:
    """A ledger and a gate; `wait` and `enter` as on the bench."""

    def __init__(self, container: Container, row: int) -> None:
        self.container = container
        self.row = row
        self.near: Neighbours | None = Neighbours(container.cells, row)
        self.held = 0
        self.ledger = Ledger(self.read, lambda: container.now, lambda: self.near)
        self.gate = self.new_gate()
        self.ledger.look(container.now)

    def new_gate(self, size: int | None = None, *, waits: bool = True, limit: int | None = None) -> MemoryGate:
        return MemoryGate(self.ledger, Bounds(0.9, 0.8, limit), size, meter=Meter(), name="guard", waits=waits)

    def read(self) -> Reading:
        levels = (Level("box", LIMIT, self.container.used), Level(PROCESS, None, self.held, own=True))
        return Reading(levels, "cgroup")

    def ask(self, need: int, inside: Reservation | None = None) -> Reservation | MemoryTicket:
        return self.gate.admit(Request(spot=Spot(), cost=need, owner=inside))

    def enter(self, need: int, inside: Reservation | None = None) -> Reservation:
        permit = self.ask(need, inside)
        assert isinstance(permit, Reservation), "the call has to wait"
        return permit

    def wait(self, need: int, inside: Reservation | None = None) -> MemoryTicket:
        ticket = self.ask(need, inside)
        assert isinstance(ticket, MemoryTicket), "the call was let in"
        return ticket

    def die(self) -> None:
        """Be killed: somebody else clears the row."""
        clear(self.container.cells, self.row)


@pytest.fixture
def container() -> Container:
    return Container()


def test_what_other_processes_promise_counts_before_it_is_used(container: Container) -> None:
    one, other = container.process(), container.process()
    one.enter(500)
    assert "500" in repr(container.promised())
    ticket = other.wait(500)
    assert "in other processes" in str(ticket.late(container.now))


def test_the_fast_path_sees_what_was_promised_elsewhere_since_the_last_look(container: Container) -> None:
    one, other = container.process(), container.process()
    quick = other.new_gate(400)
    quick.release(quick.take())
    one.enter(600)
    with pytest.raises(LookupError):
        quick.take()
    assert container.promised() == 600, "what was tried is taken back"


def test_of_two_who_promise_at_the_same_time_one_takes_it_back(container: Container) -> None:
    one, other = container.process(), container.process()
    quick = other.new_gate(500)
    near, theirs = other.near, one.near
    assert near is not None
    assert theirs is not None

    class Racing(list[int]):
        """The other one writes at the moment at which we write."""

        def __setitem__(self, index: Any, value: Any) -> None:
            container.cells[index] = value
            container.cells[theirs.mine] = 500

        def __getitem__(self, index: Any) -> Any:
            return container.cells[index]

    near.cells = Racing()
    with pytest.raises(LookupError):
        quick.take()
    assert container.promised() == 500, "theirs"
    container.cells[theirs.mine] = 0
    ticket = other.wait(500)
    assert container.promised() == 500, "theirs"
    near.cells = container.cells
    container.cells[theirs.mine] = 0
    container.now += 0.05
    assert ticket.claim(container.now) is not None


def test_bytes_given_back_elsewhere_serve_nobody_before_a_reading_shows_that_they_are_free(
    container: Container,
) -> None:
    one, other = container.process(), container.process()
    permit = one.enter(600)
    container.use(600)
    other.ledger.look(container.now)
    one.gate.release(permit)  # its memory stays in its allocator
    ticket = other.ask(500)
    assert isinstance(ticket, Reservation)
    assert ticket.forced, "nothing runs anywhere"
    assert other.ledger.accounts["box"].base == 600


def test_what_was_given_back_elsewhere_counts_until_the_next_look(container: Container) -> None:
    one, other = container.process(), container.process()
    permit = one.enter(600)
    other.enter(100)
    container.use(700)
    other.ledger.look(container.now)
    one.gate.release(permit)
    assert other.ledger.claimed(container.now) == 600
    with pytest.raises(LookupError):
        other.new_gate(300).take()
    container.used = 100
    container.now += 0.05
    other.enter(700)


def test_what_was_promised_elsewhere_and_is_in_use_is_not_counted_twice(container: Container) -> None:
    one, other = container.process(), container.process()
    one.enter(400)
    container.use(400)
    other.ledger.look(container.now)
    assert other.ledger.accounts["box"].base == 0
    assert not other.enter(450).forced


def test_a_call_elsewhere_that_has_just_begun_does_not_explain_what_is_in_use(container: Container) -> None:
    one, other = container.process(), container.process()
    old = one.enter(300)
    container.use(300)
    one.gate.release(old)  # what it had allocated stays in its allocator
    one.enter(300)
    one.ledger.look(container.now + 0.011)
    other.ledger.look(container.now + 0.011)
    account = other.ledger.accounts["box"]
    assert (account.base, account.held) == (0, 300)


def test_growth_of_a_process_is_not_explained_by_what_others_promise(container: Container) -> None:
    one, other = container.process(), container.process()
    one.enter(400)
    other.enter(100)
    other.held = 300
    container.now += 0.05
    other.ledger.look(container.now)
    assert other.ledger.accounts[PROCESS].base == 200


def test_the_limit_of_one_process_is_its_own(container: Container) -> None:
    one, other = container.process(), container.process()
    one.enter(500)
    bounded = other.new_gate(limit=300)
    assert isinstance(bounded.admit(Request(spot=Spot(), cost=200)), Reservation)


def test_only_one_process_forces_a_call_in(container: Container) -> None:
    one, other = container.process(), container.process()
    container.use(880)
    assert one.enter(100).forced
    ticket = other.wait(100)
    assert ticket.claim(container.now) is None


def test_callers_that_only_wait_for_calls_inside_hold_up_nobody_elsewhere(container: Container) -> None:
    one, other = container.process(), container.process()
    outer, foreign = one.enter(400), other.enter(400)
    first = one.wait(800, outer)  # nothing fits; the other caller still runs
    container.now += 0.001
    second = other.wait(800, foreign)
    container.now += 0.05
    permit = first.claim(container.now)
    assert permit is not None
    assert permit.forced, "now both callers only wait"
    assert second.claim(container.now) is None
    for each in (permit, outer):
        one.gate.release(each)
    assert second.claim(container.now) is not None


def test_who_has_waited_longer_elsewhere_goes_first(container: Container) -> None:
    one, other = container.process(), container.process()
    running = [one.enter(300), one.enter(300), one.enter(300)]
    ticket = other.wait(600)
    container.now += COURTESY + 0.01
    ticket.claim(container.now)
    one.gate.release(running[0])
    one.wait(300)
    one.gate.release(running[1])
    container.now += 0.01
    assert ticket.claim(container.now) is not None


def test_nobody_waits_for_a_waiter_that_does_not_look_any_more(container: Container) -> None:
    one, other = container.process(), container.process()
    running = [one.enter(300), one.enter(300), one.enter(300)]
    other.wait(600)
    container.now += max(HEARTBEAT, COURTESY) + 0.01
    one.gate.release(running[0])
    one.enter(300)


def test_the_first_in_the_queue_looks_often_while_others_may_give_back(container: Container) -> None:
    one, other = container.process(), container.process()
    one.enter(600)
    head, second = other.wait(600), other.wait(600)
    assert head.due(container.now) == container.now + SLICE
    assert second.due(container.now) > container.now + SLICE


def test_what_the_dead_promised_is_free_when_their_row_is_cleared(container: Container) -> None:
    one, other = container.process(), container.process()
    one.enter(800)
    ticket = other.wait(600)
    one.die()
    container.now += 0.05
    assert ticket.claim(container.now) is not None


def test_a_ledger_that_loses_its_table_counts_for_itself_and_a_new_one_is_told_all(container: Container) -> None:
    one = container.process()
    permit = one.enter(300)
    one.near = None
    container.now += 1.0
    inner = one.enter(300)
    ends_meanwhile = one.enter(100)
    one.ledger._read = lambda: (one.gate.release(ends_meanwhile), one.read())[1]
    one.near = Neighbours(container.cells, container.process().row)
    one.ledger.fresh_until = 0.0
    one.ledger.look(container.now)
    one.ledger._read = one.read
    assert container.cells[one.near.mine] == 600
    for each in (inner, permit):
        one.gate.release(each)
    assert container.cells[one.near.mine] == 0


def test_a_forked_child_tells_nothing_before_it_has_a_row_of_its_own(container: Container) -> None:
    one = container.process()
    inherited = one.enter(300)
    one.gate.after_fork()
    one.near = None
    one.gate.release(inherited)
    one.gate.release(one.new_gate(100).take())
    assert container.promised() == 300, "the parent's"


def test_calls_inside_and_their_callers_leave_nothing_in_the_table(container: Container) -> None:
    one = container.process()
    outer = one.enter(400)
    inner = one.enter(500, outer)
    assert container.promised() == 500
    one.gate.release(inner)
    assert container.promised() == 400
    one.gate.release(outer)
    assert container.promised() == 0


class Interrupted(deque[Reservation]):
    """The calls that ended, where another thread puts the sums right as soon as one more has."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def append(self, each: Reservation) -> None:
        super().append(each)
        self.ledger.look(self.ledger.clock(), freed=1)


def test_a_look_in_another_thread_at_the_moment_of_an_end_does_not_count_it_twice(container: Container) -> None:
    a = container.process()
    held, ended = a.enter(10), a.enter(20)
    a.ledger.over = Interrupted(a.ledger)
    a.ledger.close(ended)
    assert container.promised() == a.ledger.told == 10
    a.ledger.close(held)
    assert container.promised() == a.ledger.told == 0


@pytest.mark.parametrize("spoil", [(0, 5), (ROWS_IN_USE, 10**6), (8, 1 << 60)])
def test_garbage_is_recognized(container: Container, spoil: tuple[int, int]) -> None:
    container.process()
    assert sound(container.cells)
    container.cells[spoil[0]] = spoil[1]
    assert not sound(container.cells)


class Processes(RuleBasedStateMachine):
    """Calls come to three processes, end, are cancelled, and processes are killed while they hold and wait."""

    @initialize()
    def start(self) -> None:
        self.container = Container()
        self.processes = [self.container.process() for _ in range(3)]
        self.calls: list[tuple[Process, Reservation | MemoryTicket]] = []
        self.forced: list[tuple[Process, Any]] = []

    def running(self) -> list[tuple[Process, Reservation | MemoryTicket]]:
        return [call for call in self.calls if isinstance(call[1], Reservation)]

    def replace(self, call: tuple[Process, Any], now: Any) -> None:
        self.calls.remove(call)
        if now is not None:
            self.calls.append((call[0], now))

    def draw(self, data: st.DataObject, chosen: Callable[[Any], bool] = lambda _: True) -> Any:
        return data.draw(st.sampled_from([call for call in self.calls if chosen(call[1])]))

    @rule(data=st.data(), need=st.integers(1, 900))
    def arrive(self, data: st.DataObject, need: int) -> None:
        process = data.draw(st.sampled_from(self.processes))
        around = [each for owner, each in self.running() if owner is process]
        self.calls.append((process, process.ask(need, data.draw(st.sampled_from([None, *around])))))

    @rule(data=st.data(), need=st.integers(1, 900))
    def arrive_the_quick_way(self, data: st.DataObject, need: int) -> None:
        process = data.draw(st.sampled_from(self.processes))
        try:
            self.calls.append((process, process.new_gate(need).take()))
        except LookupError:
            return

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def end_or_cancel(self, data: st.DataObject) -> None:
        call = self.draw(data)
        held = call[1]
        if isinstance(held, MemoryTicket):
            held.withdraw()
        else:
            held.door.release(held)  # type: ignore[attr-defined]
        self.replace(call, None)

    @precondition(lambda self: len(self.calls) > len(self.running()))
    @rule(data=st.data())
    def look_again(self, data: st.DataObject) -> None:
        call = self.draw(data, lambda each: isinstance(each, MemoryTicket))
        permit = call[1].claim(self.container.now)
        if permit is not None:
            self.replace(call, permit)

    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, 2))
        dead = self.processes[index]
        dead.die()
        self.calls = [call for call in self.calls if call[0] is not dead]
        self.processes[index] = Process(self.container, dead.row)

    @rule(seconds=st.sampled_from([0.001, 0.011, 0.026, 0.3, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.container.now += seconds

    @invariant()
    def the_table_says_what_is_held(self) -> None:
        for process in self.processes if hasattr(self, "calls") else ():
            assert process.near is not None
            said = self.container.cells[process.near.mine]
            assert said == process.ledger.standing()[0] == process.ledger.told

    @invariant()
    def no_more_is_promised_than_there_is_but_for_one_call_that_was_forced(self) -> None:
        if not hasattr(self, "calls"):
            return
        granted = [(process, each._permit if isinstance(each, MemoryTicket) else each) for process, each in self.calls]
        self.forced += [each for each in granted if each[1] is not None and each[1].forced and each not in self.forced]
        # a forced call that is over keeps its bytes as long as calls inside draw on them
        self.forced = [
            each for each in self.forced if each[0] in self.processes and not (each[1].ended and not each[1].drawn)
        ]
        if not self.forced:
            assert self.container.promised() <= 0.9 * LIMIT

    def teardown(self) -> None:
        for process, held in getattr(self, "calls", ()):
            if isinstance(held, MemoryTicket):
                held.withdraw()
            else:
                process.gate.release(held)
        for process in getattr(self, "processes", ()):
            process.ledger.look(self.container.now + 1.0, anew=True)
            assert empty_at(process.ledger, self.container.now + 1.0)
        if hasattr(self, "container"):
            assert self.container.promised() == 0
            assert not any(self.container.cells[9 : 9 + 2 * 3 : 2]), "nobody waits"


def empty_at(ledger: Ledger, now: float) -> bool:
    ledger.look(now, anew=True)
    return (ledger.reserved, ledger.running, ledger._stalled, len(ledger.over)) == (0, 0, 0, 0) and not ledger.queue


TestProcesses = Processes.TestCase
TestProcesses.settings = settings(phases=set(Phase) - {Phase.explain})
