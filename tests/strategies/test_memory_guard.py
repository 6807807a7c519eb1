"""`memory_guard` around functions, on a machine whose memory the test decides."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import pickle
import random
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import trio

import asyncguard as ag
from asyncguard import events, testing
from asyncguard._machines.levels import PROCESS, Level
from asyncguard._machines.neighbours import CELLS, ROWS_IN_USE, Neighbours
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import notices, reclaim, shared_ledger
from asyncguard.errors import BlockingWaitError, MemoryPressureError
from asyncguard.strategies._argument_bytes import argument_bytes
from tests.strategies.memory_machine import LIMIT, Machine, machine

__all__ = ["machine"]  # a fixture


async def sleep(seconds: float) -> None:
    await clocks.library_sleep(seconds)


async def together(*functions: Any) -> None:
    """Run async functions at the same time, on either library."""
    if not clocks.in_trio():
        await asyncio.gather(*(function() for function in functions))
        return
    async with trio.open_nursery() as nursery:
        for function in functions:
            nursery.start_soon(function)


def in_use(guard: Any) -> tuple[int, int, int]:
    ledger = guard.core_here().single.ledger
    return *ledger.standing(), len(ledger.queue)


# --- what it is for ---


@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_calls_that_allocate_late_stay_below_the_limit_and_without_the_guard_they_do_not(
    machine: Machine, backend: str, mode: Any
) -> None:
    guard = ag.memory_guard(0.9, estimate=200, mode=mode)

    @guard
    async def embed() -> None:
        await sleep(0.05)
        machine.allocate(200)
        await sleep(0.05)
        machine.used -= 200

    async def main() -> None:
        machine.allocate(100)
        await together(*[embed] * 30)
        assert in_use(guard) == (0, 0, 0)

    testing.run(main, backend=backend)
    assert (machine.peak <= LIMIT) == (mode == "enforce")


def test_learned_sizes_keep_below_the_limit_too(machine: Machine, backend: str) -> None:
    guard = ag.memory_guard(0.9)
    machine.measured = 160 << 20
    machine.limit = 1 << 30

    @guard
    async def embed() -> None:
        await sleep(0.05)
        machine.allocate(160 << 20)
        await sleep(0.05)
        machine.used -= 160 << 20

    testing.run(lambda: together(*[embed] * 30), backend=backend)
    assert machine.peak == 4 * 160 << 20  # 192 MiB each, with the margin, of the 922 that may be used


def test_a_machine_that_is_full_of_something_else_lets_calls_in_one_at_a_time(machine: Machine, backend: str) -> None:
    machine.used = 950
    running: list[int] = []
    most = 0
    guard = ag.memory_guard(estimate=100, max_wait=100.0)

    @guard
    async def call() -> None:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        await sleep(1.0)
        running.pop()

    with testing.record_events() as recorded:
        testing.run(lambda: together(*[call] * 20), backend=backend)
    assert most == 1
    assert {event.decision for event in recorded.of(events.MemoryDecided)} == {"forced"}


# --- waiting and refusing ---


def test_a_caller_that_waited_as_long_as_it_may_is_refused_with_the_numbers(machine: Machine, backend: str) -> None:
    machine.used = 100
    guard = ag.memory_guard(estimate=500, max_wait=2.0)
    late: list[MemoryPressureError] = []

    @guard
    async def call(seconds: float) -> None:
        await sleep(seconds)

    async def second() -> None:
        await sleep(0.1)
        try:
            await call(0.0)
        except MemoryPressureError as error:
            late.append(error)

    testing.run(lambda: together(lambda: call(60.0), second), backend=backend)
    [error] = late
    assert (error.used, error.limit, error.reserved, error.need, error.permanent) == (100, 1000, 500, 500, False)
    assert error.strategy == "memory_guard"
    assert str(error).startswith("memory_guard: no room for")
    assert pickle.loads(pickle.dumps(error)).need == 500


def test_a_call_that_can_never_fit_is_refused_at_once(machine: Machine, backend: str) -> None:
    @ag.memory_guard(estimate=lambda size: size)
    async def call(size: int) -> int:
        return size

    async def main() -> None:
        assert await call(850) == 850
        with pytest.raises(MemoryPressureError, match="can never fit") as caught:
            await call(851)
        assert caught.value.permanent
        assert clocks.current().now() < 1001.0

    testing.run(main, backend=backend)


def test_on_pressure_raise_refuses_at_once(machine: Machine, backend: str) -> None:
    guard = ag.memory_guard(estimate=500, on_pressure="raise")
    waited: list[float] = []

    @guard
    async def call() -> None:
        await sleep(1.0)

    async def second() -> None:
        await sleep(0.1)
        begun = clocks.current().now()
        with pytest.raises(MemoryPressureError):
            await call()
        waited.append(clocks.current().now() - begun)

    testing.run(lambda: together(call, second), backend=backend)
    assert waited == [0.0]


def test_who_waits_looks_again_when_another_program_gives_memory_back(machine: Machine, backend: str) -> None:
    guard = ag.memory_guard(estimate=100)

    @guard
    async def call(seconds: float) -> None:
        await sleep(seconds)

    async def main() -> None:
        async def second() -> None:
            await sleep(0.1)
            machine.used = 900
            await call(0.0)
            assert clocks.current().now() < begun + 6.0

        async def other_program() -> None:
            await sleep(4.0)
            machine.used = 100

        begun = clocks.current().now()
        await together(lambda: call(9.0), second, other_program)

    testing.run(main, backend=backend)


def test_a_deadline_bounds_the_wait(machine: Machine, backend: str) -> None:
    guard = ag.memory_guard(estimate=500, max_wait=100.0)

    @guard
    async def call(seconds: float) -> None:
        await sleep(seconds)

    async def main() -> None:
        async def second() -> None:
            await sleep(0.1)
            begun = clocks.current().now()
            with pytest.raises((MemoryPressureError, TimeoutError)), ag.deadline(1.0):
                await call(0.0)
            assert clocks.current().now() == pytest.approx(begun + 1.0)

        await together(lambda: call(10.0), second)
        assert in_use(guard) == (0, 0, 0)

    testing.run(main, backend=backend)


def test_a_thousand_callers_cancelled_at_random_leave_nothing_behind(machine: Machine) -> None:
    guard = ag.memory_guard(estimate=lambda size: size, max_wait=1000.0)
    rng = random.Random(1)

    @guard
    async def call(size: int) -> None:
        await asyncio.sleep(rng.random())

    async def main() -> None:
        tasks = [asyncio.ensure_future(call(rng.randrange(850))) for _ in range(1000)]
        for _ in range(50):
            await asyncio.sleep(0.01)
            for task in rng.sample(tasks, 19):
                task.cancel()
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert in_use(guard) == (0, 0, 0)
        assert all(gate.idle() for gate in guard.gates())

    testing.run(main)


# --- calls inside of calls ---


def test_a_guarded_call_inside_of_another_reserves_nothing_again(machine: Machine, backend: str) -> None:
    guard = ag.memory_guard(estimate=lambda size, then=None: size)
    seen: list[int] = []

    @guard
    async def call(size: int, then: Any = None) -> None:
        seen.append(in_use(guard)[0])
        if then is not None:
            await then()
            seen.append(in_use(guard)[0])

    testing.run(lambda: call(600, lambda: call(500)), backend=backend)
    assert seen == [600, 600, 600]


@pytest.mark.parametrize("blocked", [False, True], ids=["alone", "in a block with a bulkhead"])
def test_a_parent_that_gathers_guarded_children_finishes(machine: Machine, backend: str, blocked: bool) -> None:
    guard = ag.memory_guard(estimate=lambda size, *_: size, max_wait=1000.0)
    pipeline = ag.guard(ag.bulkhead(100), guard) if blocked else ag.guard(guard)
    done: list[int] = []
    most = 0

    @pipeline
    async def child(size: int) -> None:
        nonlocal most
        most = max(most, in_use(guard)[1])
        await sleep(1.0)
        done.append(size)

    @pipeline
    async def parent(size: int, children: int) -> None:
        await together(*[lambda: child(400)] * children)

    testing.run(lambda: together(*[lambda: parent(400, 5)] * 3), backend=backend)
    assert len(done) == 15
    assert most <= 4


def test_a_call_after_a_guarded_one_is_not_inside_of_it(machine: Machine, backend: str) -> None:
    guard = ag.memory_guard(estimate=500)

    @guard
    async def call() -> int:
        return in_use(guard)[0]

    async def main() -> None:
        assert [await call(), await call()] == [500, 500]
        with contextlib.suppress(ZeroDivisionError):
            await guard(fails)()
        assert await call() == 500

    async def fails() -> None:
        raise ZeroDivisionError

    testing.run(main, backend=backend)


# --- other colours ---


def test_an_async_generator_holds_its_reservation_from_the_first_item_to_its_close(
    machine: Machine, backend: str
) -> None:
    guard = ag.memory_guard(estimate=300)

    @guard
    async def stream() -> Any:
        for item in range(10):
            yield item

    @guard
    async def call() -> int:
        return in_use(guard)[0]

    async def main() -> None:
        items = stream()
        assert in_use(guard)[0] == 0
        assert await anext(items) == 0
        assert in_use(guard)[0] == 300
        assert await call() == 600, "what the consumer calls between items is not inside of the stream"
        await items.aclose()
        assert in_use(guard) == (0, 0, 0)

    testing.run(main, backend=backend)


def test_a_sync_generator_holds_its_reservation_until_it_ends(machine: Machine) -> None:
    guard = ag.memory_guard(estimate=300)

    @guard
    def items() -> Iterator[int]:
        yield from range(3)

    with testing.virtual_clock():
        seen = [in_use(guard)[0] for _ in items()]
        assert seen == [300, 300, 300]
        assert in_use(guard) == (0, 0, 0)


def test_threads_share_the_ledger_and_wait_for_each_other(machine: Machine) -> None:
    guard = ag.memory_guard(estimate=300, max_wait=30.0)
    lock, running, most = threading.Lock(), 0, 0

    @guard
    def call() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        arrived.wait(0.01)
        with lock:
            running -= 1

    arrived = threading.Event()
    threads = [threading.Thread(target=call) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most <= 2
    assert in_use(guard) == (0, 0, 0)


def test_a_sync_caller_on_the_thread_of_a_loop_does_not_block_the_loop(machine: Machine) -> None:
    guard = ag.memory_guard(estimate=500)

    async def main() -> None:
        async with guard.permit():
            with pytest.raises(BlockingWaitError, match="worker thread"):
                _elsewhere(guard(lambda: None))

    asyncio.run(main())
    assert in_use(guard) == (0, 0, 0)


def test_one_that_must_not_wait_is_refused_there_and_told_why(machine: Machine) -> None:
    guard = ag.memory_guard(estimate=500, max_wait=0.0)

    async def main() -> None:
        async with guard.permit():
            with pytest.raises(MemoryPressureError, match="no room"):
                _elsewhere(guard(lambda: None))

    asyncio.run(main())
    assert in_use(guard) == (0, 0, 0)


def test_the_block_form_reserves_what_it_is_told_and_can_be_corrected(machine: Machine, backend: str) -> None:
    guard = ag.memory_guard(estimate=100)

    async def main() -> None:
        async with guard.permit(cost=400) as permit:
            assert in_use(guard)[0] == 400
            permit.reconcile(250)
            assert in_use(guard)[0] == 250
            assert ag.current_permit(guard) is not None
        async with guard.permit():
            assert in_use(guard)[0] == 100
        assert in_use(guard) == (0, 0, 0)

    testing.run(main, backend=backend)


@pytest.mark.parametrize("cost", [-1, float("nan"), float("inf"), "400", True])
def test_a_block_whose_cost_is_no_size_is_refused(machine: Machine, cost: Any) -> None:
    guard = ag.memory_guard(estimate=100)
    with pytest.raises(TypeError, match="cost must be bytes, a number of at least 0"):
        guard.permit(cost=cost)
    with guard.permit(cost=0.5) as permit:
        assert permit.permit.need == 1


def test_a_block_that_says_what_it_takes_needs_no_arguments_of_the_estimate(machine: Machine) -> None:
    guard = ag.memory_guard(estimate=lambda texts: 100 * len(texts))
    with guard.permit(cost=40):
        assert in_use(guard)[0] == 40
    with guard.permit(["a"]):
        assert in_use(guard)[0] == 100


# --- sizes ---


def test_the_estimate_may_be_computed_from_the_arguments(machine: Machine, backend: str) -> None:
    guard = ag.memory_guard(estimate=lambda texts, *, copies=1: len(texts) * copies * 10.5)

    @guard
    async def embed(texts: list[str], *, copies: int = 1) -> int:
        return in_use(guard)[0]

    async def main() -> None:
        assert await embed(["a"] * 3) == 32
        assert await embed(["a"] * 3, copies=2) == 63

    testing.run(main, backend=backend)


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), 10**400, 1j, "big", None, True])
def test_an_estimate_that_is_no_size_is_a_type_error_of_the_call(machine: Machine, wrong: Any) -> None:
    @ag.memory_guard(estimate=lambda: wrong)
    def call() -> None:
        """Never runs."""

    with pytest.raises(TypeError, match="what estimate= returns must be bytes"), testing.virtual_clock():
        call()


@pytest.mark.parametrize("number", ["int64", "float32", "float64", "uint8"])
def test_the_estimate_may_be_a_number_of_numpy(machine: Machine, number: str) -> None:
    numpy = pytest.importorskip("numpy")
    guard = ag.memory_guard(estimate=lambda: getattr(numpy, number)(42))
    with testing.virtual_clock():
        assert guard(lambda: in_use(guard))()[0] == 42


def test_an_error_in_the_estimate_leaves_as_it_is_and_leaves_nothing_behind(machine: Machine) -> None:
    guard = ag.memory_guard(estimate=lambda: 1 // 0)
    with testing.virtual_clock():
        with pytest.raises(ZeroDivisionError):
            guard(lambda: None)()
        assert in_use(guard) == (0, 0, 0)


def test_while_nothing_is_known_the_size_of_the_arguments_is_a_hint(machine: Machine, backend: str) -> None:
    machine.limit = 1 << 40
    guard = ag.memory_guard()

    @guard
    async def embed(*arguments: Any) -> int:
        return in_use(guard)[0]

    assert testing.run(lambda: embed(memoryview(bytes(4 << 20))), backend=backend) == 32 << 20


class Odd:
    @property
    def nbytes(self) -> int:
        raise RuntimeError


def test_the_size_of_arguments_is_seen_through_lists_and_never_fails() -> None:
    array = memoryview(bytes(1000))
    assert argument_bytes((array, [array] * 3, "ab"), {"x": {"y": b"abc"}}) == 4005
    assert argument_bytes((["a" * 10] * 100_000,), {}) == 1_000_000
    assert argument_bytes((Odd(), 5, None, object(), []), {}) == 0
    nested: list[Any] = []
    nested.append(nested)
    assert argument_bytes((nested,), {}) == 0


def test_a_memory_error_makes_the_next_call_reserve_twice_as_much(machine: Machine, backend: str) -> None:
    guard = ag.memory_guard(initial_estimate=100)

    @guard
    async def call(*, fail: bool) -> int:
        if fail:
            raise MemoryError
        return in_use(guard)[0]

    async def main() -> None:
        with pytest.raises(MemoryError):
            await call(fail=True)
        assert await call(fail=False) == 200

    testing.run(main, backend=backend)


def test_each_partition_learns_its_own_size(machine: Machine) -> None:
    guard = ag.memory_guard(partition=lambda model: model)
    machine.levels = [Level("box", 1 << 40, 0)]

    @guard
    async def call(model: str) -> None:
        machine.measured = {"small": 20 << 20, "big": 200 << 20}[model]

    async def main() -> None:
        for model in ("small", "big"):
            await call(model)
        assert [gate.learner.need >> 20 for gate in guard.gates()[1:]] == [24, 240]

    testing.run(main)


def test_this_process_is_measured_for_real() -> None:
    guard = ag.memory_guard(name="real")

    @guard
    def call() -> None:
        ballast = bytearray(48 << 20)
        del ballast

    call()
    need = guard.gate.learner.need
    assert 48 << 20 <= need < 200 << 20
    assert guard.gate.ledger.standing() == (0, 0)


# --- modes, options in place ---


def test_observe_reports_and_never_waits_or_refuses(machine: Machine, backend: str) -> None:
    guard = ag.memory_guard(estimate=500, mode="observe")
    running = 0
    most = 0

    @guard
    async def call() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await sleep(1.0)
        running -= 1

    with testing.record_events() as recorded:
        testing.run(lambda: together(*[call] * 4), backend=backend)
    assert most == 4
    assert all(event.observed for event in recorded)
    assert len(recorded.of(events.CallQueued)) >= 3


def test_off_does_nothing(machine: Machine, backend: str) -> None:
    guard = ag.memory_guard(estimate=5000, mode="off")

    @guard
    async def call() -> int:
        return in_use(guard)[0]

    async def main() -> None:
        assert await call() == 0

    testing.run(main, backend=backend)


def test_other_options_can_be_put_in_force_while_running(machine: Machine) -> None:
    guard = ag.memory_guard(estimate=100)

    @guard
    def call() -> int:
        return in_use(guard)[0]

    with testing.virtual_clock():
        assert call() == 100
        with guard.override(estimate=300):
            assert call() == 300
        guard.configure(estimate=200)
        assert call() == 200
        with pytest.raises(ValueError, match="threshold must be"):
            guard.configure(threshold=2.0)
        assert call() == 200
        guard.configure(estimate="auto")
        machine.measured = 50
        call()
        assert guard.core_here().single.learner.need is not None


# --- telemetry ---


def test_every_decision_is_an_event_with_the_numbers(machine: Machine, backend: str) -> None:
    machine.used = 100
    guard = ag.memory_guard(estimate=400, max_wait=1.5)
    seen: list[Any] = []
    guard.configure(on_event=seen.append)

    @guard
    async def call(seconds: float) -> None:
        await sleep(seconds)

    async def suppressed(after: float, seconds: float) -> None:
        await sleep(after)
        with contextlib.suppress(MemoryPressureError):
            await call(seconds)

    testing.run(
        lambda: together(lambda: call(1.0), lambda: suppressed(0.1, 10.0), lambda: suppressed(0.2, 0.0)),
        backend=backend,
    )
    decided = [event for event in seen if isinstance(event, events.MemoryDecided)]
    assert [event.decision for event in decided] == ["admitted", "waited", "rejected"]
    assert [event.need for event in decided] == [400, 400, 400]
    assert {(event.used, event.limit) for event in decided} == {(100, 1000)}
    assert [round(event.waited, 1) for event in decided][1:] == [0.9, 1.5]
    assert [event.reason for event in seen if isinstance(event, events.CallRejected)] == ["memory"]


def test_another_thread_may_tell_what_was_decided(machine: Machine) -> None:
    guard = ag.memory_guard(estimate=100)

    class Raced(deque[Any]):
        def __bool__(self) -> bool:  # whoever is told that there is news finds none
            there_was = len(self) > 0
            self.clear()
            return there_was

    with testing.virtual_clock():
        gate = guard.gate
        gate.news = Raced([100, 200])
        guard.announce(guard.own_site(), gate, "")
        assert len(gate.news) == 0


def test_a_refusal_is_logged(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    notices.clear()

    @ag.memory_guard(estimate=5000, name="guard of this test")
    def call() -> None:
        """Never runs."""

    with caplog.at_level(logging.WARNING, "asyncguard"), testing.virtual_clock(), pytest.raises(MemoryPressureError):
        call()
    assert "memory refused" in caplog.text


def test_status_says_what_is_used_promised_and_learned(machine: Machine) -> None:
    machine.used = 100 << 20
    machine.levels = [Level("cgroup /app", 1000 << 20, 100 << 20), Level(PROCESS, None, 50 << 20)]
    stated, learned = ag.memory_guard(estimate=64 << 20), ag.memory_guard()
    by_call = ag.memory_guard(estimate=lambda: 1)
    with testing.virtual_clock():
        for guard in (stated, learned, by_call):
            guard.gates()[0].ledger.look(clocks.current().now())
        text = "used 100.0 MiB, promised 0.0 MiB to 0 running calls, 850.0 MiB of 1000.0 MiB may be used (cgroup /app)"
        text += "; source system"
        assert stated.describe() == [text + "; a call takes 64.0 MiB"]
        assert learned.describe() == [text + "; a call takes what is still to be learned"]
        assert by_call.describe() == [text + "; a call takes what it states"]
        machine.measured = 100 << 20
        learned(lambda: None)()
        window = ", trusted for 2 calls at once so far"
        assert learned.describe() == [text + f"; a call takes 120.0 MiB, learned from 1 call{window}"]
        for _ in range(5):
            learned(lambda: None)()
        assert learned.describe() == [text + "; a call takes 120.0 MiB, learned from 6 calls"]


def test_status_does_not_say_that_nothing_is_limited_before_anybody_has_looked(machine: Machine) -> None:
    guard = ag.memory_guard()
    with testing.virtual_clock():
        said = "no call has asked yet, so no limit was read; a call takes what is still to be learned"
        assert guard.describe() == [said]
        guard(lambda: None)()
        assert guard.describe()[0].startswith("used ")


def test_guards_count_with_the_other_processes_unless_all_of_them_are_told_not_to(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [0] * CELLS
    cells[ROWS_IN_USE] = 2
    theirs = Neighbours(cells, 1).mine
    cells[theirs] = 700

    class Table:
        def connect(self) -> Neighbours:
            return Neighbours(cells, 0)

    monkeypatch.setattr(shared_ledger, "_shared", Table())
    alone = ag.memory_guard(estimate=300, share="process", on_pressure="raise")
    assert alone(lambda: 1)() == 1
    together = ag.memory_guard(estimate=300, on_pressure="raise")
    with pytest.raises(MemoryPressureError, match=r"and 0\.0 MiB in other processes"):
        together(lambda: 1)()
    with pytest.raises(MemoryPressureError):
        alone(lambda: 1)()
    cells[theirs] = 0
    together.gate.ledger.fresh_until = 0.0
    assert together(lambda: cells[8])() == 300, "what runs is told"
    assert cells[8] == 0


def test_without_shared_memory_calls_go_on_with_one_warning(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    table = shared_ledger.SharedLedger(lambda: "box", tmp_path / "missing")
    monkeypatch.setattr(shared_ledger, "_shared", table)
    call = ag.memory_guard(estimate=300)(lambda: 1)
    for _ in range(3):
        assert call() == 1
    [record] = caplog.records
    assert "each process counts for itself" in record.getMessage()


def test_with_nothing_to_be_read_calls_go_on_and_only_reservations_count(machine: Machine, backend: str) -> None:
    machine.levels = [Level(PROCESS, None, 0)]
    free, bound = ag.memory_guard(estimate=10**12), ag.memory_guard(estimate=300, limit=1000, on_pressure="raise")

    async def main() -> None:
        async with free.permit():
            pass
        async with bound.permit(), bound.permit():
            pass
        with pytest.raises(MemoryPressureError):
            await ag.memory_guard(estimate=900, limit=1000).permit().__aenter__()

    testing.run(main, backend=backend)


# --- giving memory back ---


def test_under_pressure_memory_is_given_back_and_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    class Reclaimer:
        busy = False

        def ask(self, report: Any, done: Any, *, full: bool) -> bool:
            asked.append(full)
            report("cache", 600, 0.1)
            machine.used -= 600
            done(600)
            return True

        def tidy(self, mark: Any, done: Any) -> bool:
            return False

    monkeypatch.setattr(reclaim, "_shared", Reclaimer())
    machine.used = 700
    guards = [ag.memory_guard(estimate=100, on_pressure="raise", reclaim=how) for how in (False, True, "full")]
    with testing.record_events() as recorded, guards[0].permit():
        for guard in guards:
            with contextlib.suppress(MemoryPressureError):
                _elsewhere(guard(lambda: None))
            machine.used = 800
            guard.gate.ledger.fresh_until = 0.0
    assert asked == [False, True]
    assert [(event.method, event.freed) for event in recorded.of(events.MemoryReclaimed)] == [("cache", 600)] * 2


def test_after_a_measured_call_the_allocator_is_emptied_so_that_the_next_measurement_is_good(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[bool] = []

    class Reclaimer:
        busy = False

        def prepare(self) -> None:
            prepared.append(True)

        def tidy(self, mark: Any, done: Any) -> bool:
            done(mark())
            return True

    monkeypatch.setattr(reclaim, "_shared", Reclaimer())
    machine.limit = 1 << 40
    guard, untidy = ag.memory_guard(), ag.memory_guard(reclaim=False)
    for each, expected in ((untidy, 16 << 20), (guard, 120)):
        each(lambda: None)()
        assert each.gate.learner.need == 16 << 20, "the heap was not known to be clean: no less than the guess"
        assert bool(prepared) == (each is guard)
        each.gate.learner.measure_at = 0.0
        each(lambda: None)()
        assert each.gate.learner.need == expected


def test_closing_waits_for_memory_that_is_being_given_back(
    machine: Machine, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter([True, True, False])

    class Reclaimer:
        @property
        def busy(self) -> bool:
            return next(asked)

    monkeypatch.setattr(reclaim, "_shared", Reclaimer())
    testing.run(ag.memory_guard().aclose, backend=backend)
    assert list(asked) == []


def _elsewhere(function: Any) -> None:
    """Call as if from somewhere else: not inside of the guarded call that is open here."""
    contextvars.Context().run(function)


# --- options ---

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"threshold": 0.0}, ValueError, "threshold"),
    ({"threshold": 1.01}, ValueError, "threshold"),
    ({"threshold": float("nan")}, ValueError, "threshold"),
    ({"threshold": True}, ValueError, "threshold"),
    ({"threshold": len}, TypeError, "parentheses"),
    ({"resume": 0.9}, ValueError, "resume must be at most the threshold, 0.85"),
    ({"resume": -0.1}, ValueError, "resume"),
    ({"estimate": -1}, ValueError, "estimate"),
    ({"estimate": 1.5}, ValueError, "estimate"),
    ({"estimate": True}, ValueError, "estimate"),
    ({"estimate": "big"}, ValueError, "estimate"),
    ({"initial_estimate": -1}, ValueError, "initial_estimate"),
    ({"initial_estimate": 5, "estimate": 5}, ValueError, "initial_estimate"),
    ({"on_pressure": "warn"}, ValueError, "on_pressure"),
    ({"max_wait": -1}, ValueError, "max_wait"),
    ({"limit": 0}, ValueError, "limit"),
    ({"limit": 1.5}, ValueError, "limit"),
    ({"min_free": -1}, ValueError, "min_free"),
    ({"reclaim": "some"}, ValueError, "reclaim"),
    ({"share": "everybody"}, ValueError, "share"),
    ({"device": "gpu"}, ValueError, "device"),
    ({"device": 0}, ValueError, "device"),
    ({"device": "cuda:"}, ValueError, "device"),
]


@pytest.mark.parametrize(("options", "error", "text"), BAD, ids=[str(row[0]) for row in BAD])
def test_a_bad_option_is_refused_when_it_is_given(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ag.memory_guard(**options)


def test_resume_follows_the_threshold_unless_it_is_given() -> None:
    assert ag.memory_guard().options.bounds.resume == pytest.approx(0.80)
    assert ag.memory_guard(0.5).options.bounds.resume == pytest.approx(0.45)
    assert ag.memory_guard(0.03).options.bounds.resume == 0.0
    assert ag.memory_guard(resume=0.6).options.bounds.resume == 0.6


def test_it_pickles_as_its_options() -> None:
    guard = ag.memory_guard(0.7, estimate=5, name="mine")
    copy = pickle.loads(pickle.dumps(guard))
    assert (copy.options, copy.name) == (guard.options, "mine")
    assert copy.gate.ledger is guard.gate.ledger, "there is one ledger in a process"


def test_a_guarded_function_survives_cloudpickle(machine: Machine) -> None:
    @ag.memory_guard(estimate=5)
    def double(x: int) -> int:
        return 2 * x

    copy = cloudpickle.loads(cloudpickle.dumps(double))
    with testing.virtual_clock():
        assert copy(4) == 8
