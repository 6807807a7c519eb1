"""Cancelled and interrupted calls: what others retry, count, swallow or leak."""

from __future__ import annotations

import asyncio
import math

import anyio
import pytest

import asyncguard as ag
from asyncguard import testing
from asyncguard._machines import classify
from asyncguard._runtime import clock as clocks

INTERRUPTS = [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError]


def never_asked(_error):
    raise AssertionError("a predicate saw what is no Exception")


def every_error(_error):
    return True


def all_but_value_errors(error):
    return not isinstance(error, ValueError)


def test_all_but_value_errors_does_not_mean_cancellation(backend):
    """A deadline around it, and the predicate that makes others try again when that one fires."""
    calls = []

    @ag.retry(on=all_but_value_errors, initial_delay=0, max_delay=0)
    async def call():
        calls.append(1)
        await anyio.sleep(0.15)
        return "done"

    async def main():
        start = anyio.current_time()
        with pytest.raises(TimeoutError), anyio.fail_after(0.05):
            await call()
        return anyio.current_time() - start

    assert testing.run(main, backend=backend) == pytest.approx(0.05)
    assert calls == [1]


def test_wait_for_around_a_retry_times_out():
    @ag.retry(on=all_but_value_errors)
    async def call():
        await asyncio.sleep(0.15)
        return "done"

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(), 0.05)

    testing.run(main)


PREDICATES = [
    pytest.param(lambda: ag.retry(on=never_asked), id="retry"),
    pytest.param(lambda: ag.circuit_breaker(on=never_asked, consecutive_failures=1), id="circuit_breaker"),
    pytest.param(lambda: ag.fallback("fallback", on=never_asked), id="fallback"),
    pytest.param(lambda: ag.cache_result(60, stale_if_error=60), id="cache_result"),
    pytest.param(ag.adaptive_concurrency, id="adaptive_concurrency"),
    pytest.param(lambda: ag.hedge(delay=0, max_extra_load=1.0), id="hedge"),
]


@pytest.mark.parametrize("error", INTERRUPTS)
@pytest.mark.parametrize("make", PREDICATES)
def test_neither_predicates_nor_classifiers_see_an_interrupt(make, error):
    calls = []

    @make()
    def call():
        calls.append(1)
        raise error

    forget = classify.register_classifier(never_asked)
    try:
        with pytest.raises(error):
            call()
    finally:
        forget()
    assert calls == [1]


@pytest.mark.parametrize("error", INTERRUPTS)
def test_the_interrupt_that_leaves_an_open_minded_breaker_is_the_interrupt(error):
    """Others count it and raise their own error in its place."""
    breaker = ag.circuit_breaker(on=every_error, consecutive_failures=1)

    @breaker
    def call():
        raise error

    for _ in range(3):
        with pytest.raises(error):
            call()
    assert breaker.describe() == ["CLOSED, 0 of 0 failed"]


def test_cancelled_calls_open_no_circuit(backend):
    breaker = ag.circuit_breaker(on=every_error, consecutive_failures=1)

    @breaker
    async def call():
        await anyio.sleep(60)

    async def main():
        for _ in range(5):
            with anyio.move_on_after(1) as scope:
                await call()
            assert scope.cancelled_caught
        assert breaker.describe() == ["CLOSED, 0 of 0 failed"]

    testing.run(main, backend=backend)


# --- one stack, cancelled wherever it may be --------------------------------------------------------------------------


class Stack:
    """Every strategy that waits, around a function that fails or takes long as it is told."""

    def __init__(self):
        self.retry = ag.retry(initial_delay=10, jitter="none", max_delay=10)
        self.breaker = ag.circuit_breaker(consecutive_failures=100, half_open_calls=1, open_for=30)
        self.slots = ag.bulkhead(1, max_wait=600)
        self.rate = ag.rate_limit("1/min burst 1", max_wait=600)
        self.calls = 0
        self.permit = None  # of somebody else
        self.work = lambda: anyio.sleep(600)

    async def function(self):
        self.calls += 1
        await self.work()

    async def fails(self):
        raise ConnectionError

    async def answers(self):
        return None

    async def in_the_call(self):
        return self.guarded(), 1

    async def in_the_backoff(self):
        self.work = self.fails
        return self.guarded(), 1

    async def in_the_queue(self):
        gate = self.slots.core_here().single
        self.permit = gate.take()
        return self.guarded(), 0

    async def waiting_for_the_rate(self):
        async with self.rate.permit():
            """Taken by somebody else."""
        return self.guarded(), 0

    async def in_the_half_open_probe(self):
        self.breaker.open()
        await anyio.sleep(31)
        return self.guarded(), 1

    async def hedged(self):
        return self.raced(), 2

    async def guarded(self):
        await ag.guard(self.retry, self.breaker, self.slots, self.rate, ag.timeout(3600))(self.function)()

    async def raced(self):
        hedge = ag.hedge(delay=1, max_extra_load=1.0)
        await ag.guard(self.retry, hedge, self.breaker, ag.timeout(3600))(self.function)()

    def check(self):
        if self.permit is not None:
            self.slots.core_here().single.release(self.permit)
        assert "; 0 waiting" in self.rate.describe()[0], "a waiter was left behind"
        assert self.slots.core_here().single.idle(), "a permit was left behind"
        assert self.breaker.state != "open", "a cancelled call is no failure"


PLACES = [
    "in_the_call",
    "in_the_backoff",
    "in_the_queue",
    "waiting_for_the_rate",
    "in_the_half_open_probe",
    "hedged",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_call_that_is_cancelled_leaves_at_once_and_starts_nothing(place, backend):
    async def main():
        stack = Stack()
        call, expected = await getattr(stack, place)()
        start = anyio.current_time()
        with anyio.move_on_after(5) as scope:
            await call
        assert scope.cancelled_caught
        assert anyio.current_time() - start == pytest.approx(5)
        stack.check()
        await anyio.sleep(1000)
        assert stack.calls == expected, "something went on after the caller had left"

    testing.run(main, backend=backend)


@pytest.mark.parametrize("place", PLACES)
def test_a_cancelled_task_counts_one_cancellation_and_a_timeout_around_it_none(place):
    async def main():
        call, _ = await getattr(Stack(), place)()
        task = asyncio.create_task(call)
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1

        call, _ = await getattr(Stack(), place)()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await call
        assert asyncio.current_task().cancelling() == 0

        call, _ = await getattr(Stack(), place)()
        # Who knows of the deadline does not wait for it where nothing can happen before.
        with pytest.raises((TimeoutError, ConnectionError, ag.RateLimitedError)), ag.deadline(5):
            await call
        assert asyncio.current_task().cancelling() == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"

    testing.run(main)


def test_a_cancelled_probe_lets_the_next_one_in_and_decides_nothing(backend):
    """One counts it as a success and closes, another keeps the place for ever."""
    breaker = ag.circuit_breaker(consecutive_failures=1, half_open_calls=1, open_for=30)
    call = breaker(anyio.sleep)

    async def main():
        breaker.open()
        await anyio.sleep(31)
        for _ in range(3):
            with anyio.move_on_after(1):
                await call(math.inf)
            assert breaker.state == "half_open"
        await call(0)
        assert breaker.state == "closed"

    testing.run(main, backend=backend)


def test_a_cancelled_waiter_of_a_bulkhead_costs_no_permit(backend):
    slots = ag.bulkhead(1, max_wait=600)
    done = []

    @slots
    async def call(name):
        await clocks.library_sleep(10)
        done.append(name)

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(call, "first")
            await anyio.sleep(1)
            for _ in range(20):
                with anyio.move_on_after(0.1):
                    await call("cancelled")
            await call("last")

    testing.run(main, backend=backend)
    assert done == ["first", "last"]
    assert slots.gate.idle()
