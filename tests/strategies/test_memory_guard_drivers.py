"""The quick way through `memory_guard`, on real loops and in real time: virtual time takes the other way."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import trio

import asyncguard as ag
from asyncguard import events, testing
from asyncguard._machines import estimate
from asyncguard._passage import permits
from asyncguard.errors import MemoryPressureError
from tests.strategies.memory_machine import Machine, machine

__all__ = ["machine"]  # a fixture

Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    return (lambda main: asyncio.run(main())) if request.param == "asyncio" else trio.run


def standing(guard: Any) -> tuple[int, int]:
    return guard.gate.ledger.standing()


def test_a_call_holds_its_bytes_while_it_runs(machine: Machine, run: Run) -> None:
    guard = ag.memory_guard(estimate=300)

    @guard
    async def call(x: int) -> tuple[int, tuple[int, int]]:
        return x, standing(guard)

    async def main() -> None:
        assert await call(5) == (5, (300, 1))
        assert standing(guard) == (0, 0)

    run(main)


@pytest.mark.parametrize("error", [ValueError, MemoryError, KeyboardInterrupt, asyncio.CancelledError, SystemExit])
def test_whatever_leaves_the_function_leaves_nothing_behind(machine: Machine, error: type[BaseException]) -> None:
    guard = ag.memory_guard(estimate=300)

    @guard
    async def call() -> None:
        raise error

    @guard
    def call_sync() -> None:
        raise error

    coroutine = call()
    with pytest.raises(error):
        coroutine.send(None)
    with pytest.raises(error):
        call_sync()
    assert standing(guard) == (0, 0)
    assert permits.get() == ()
    assert guard.gate.idle()


def test_a_sync_call_holds_its_bytes_while_it_runs(machine: Machine) -> None:
    guard = ag.memory_guard(estimate=300)
    inside = guard(lambda: standing(guard))

    @guard
    def outside() -> tuple[tuple[int, int], tuple[int, int]]:
        return standing(guard), inside()

    assert outside() == ((300, 1), (300, 2)), "the call inside draws on what the one around it has reserved"
    assert standing(guard) == (0, 0)


def test_who_waits_is_woken_by_the_release_of_another(machine: Machine) -> None:
    guard = ag.memory_guard(estimate=500, max_wait=600.0)
    go_on = asyncio.Event

    async def main() -> None:
        leave = go_on()

        @guard
        async def first() -> None:
            await leave.wait()

        @guard
        async def second() -> tuple[int, int]:
            return standing(guard)

        one = asyncio.ensure_future(first())
        await asyncio.sleep(0)
        other = asyncio.ensure_future(second())
        await asyncio.sleep(0)
        assert len(guard.gate.ledger.queue) == 1
        leave.set()
        assert await other == (500, 1)
        await one

    asyncio.run(main())
    assert standing(guard) == (0, 0)


def test_a_coroutine_that_is_thrown_away_while_it_runs_gives_its_bytes_back(machine: Machine) -> None:
    guard = ag.memory_guard(estimate=300)

    @guard
    async def call() -> None:
        await asyncio.sleep(3600)

    async def main() -> None:
        running = call()
        contextvars.Context().run(running.send, None)
        assert standing(guard) == (300, 1)
        running.close()
        assert standing(guard) == (0, 0)
        del running
        gc.collect()

    asyncio.run(main())


def test_the_first_calls_are_measured_and_the_next_ones_are_not(
    machine: Machine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("SOON", "FIRST_PAUSE", "LONGEST_PAUSE"):  # seconds may pass on a machine that stands still
        monkeypatch.setattr(estimate, pause, 3600.0)
    machine.limit = 1 << 40
    guard = ag.memory_guard()
    measured: list[bool] = []

    @guard
    async def call() -> None:
        measured.append(machine.measuring)

    call_sync = guard(lambda: measured.append(machine.measuring))

    async def main() -> None:
        for _ in range(7):
            await call()

    run(main)
    call_sync()
    assert measured == [True] * 6 + [False] * 2
    assert guard.gate.learner.estimator.measured == 6


def test_a_measured_sync_call_teaches_the_guard(machine: Machine) -> None:
    machine.limit, machine.measured = 1 << 40, 100 << 20
    guard = ag.memory_guard()
    guard(lambda: None)()
    assert guard.gate.learner.need == 120 << 20


def test_a_memory_error_is_noticed(machine: Machine) -> None:
    guard = ag.memory_guard(initial_estimate=100)

    @guard
    def call() -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        call()
    assert guard.gate.learner.need == 200


def test_a_refusal_comes_the_quick_way_too(machine: Machine) -> None:
    guard = ag.memory_guard(estimate=5000)
    with pytest.raises(MemoryPressureError):
        guard(lambda: None)()

    @guard
    async def call() -> None:
        """Never runs."""

    with pytest.raises(MemoryPressureError):
        asyncio.run(call())


def test_somebody_who_listens_hears_of_every_call(machine: Machine, run: Run) -> None:
    guard = ag.memory_guard(estimate=300, name="listened")

    @guard
    async def call() -> None:
        """Do nothing."""

    async def main() -> None:
        for _ in range(50):
            await call()
            guard(lambda: None)()

    with testing.record_events() as recorded:
        run(main)
    decided = recorded.of(events.MemoryDecided)
    assert len(decided) == 100
    assert {(event.decision, event.reserved, event.need, event.limit) for event in decided} == {
        ("admitted", 300, 300, 1000)
    }


def test_a_call_that_ends_in_another_context_than_it_began_in_gives_its_bytes_back(machine: Machine) -> None:
    guard = ag.memory_guard(estimate=300)

    class Pause:
        def __await__(self) -> Iterator[None]:
            yield

    @guard
    async def call() -> int:
        await Pause()
        return 7

    coroutine = call()
    contextvars.copy_context().run(coroutine.send, None)
    assert standing(guard) == (300, 1)
    with pytest.raises(StopIteration) as ended:
        contextvars.copy_context().run(coroutine.send, None)
    assert ended.value.value == 7
    assert standing(guard) == (0, 0)
