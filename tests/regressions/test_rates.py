"""Rate limiters: who waits for whom, how often they look, and what is refused at once."""

from __future__ import annotations

import asyncio

import anyio
import pytest

import asyncguard as ag
from asyncguard import testing


async def nothing(*_args, **_kwargs):
    """Be called."""


def test_the_big_call_that_came_first_starts_first(backend):
    """In a heap by size a stream of small calls keeps it waiting for ever."""
    limit = ag.rate_limit(ag.Rate("10/s burst 10", cost=lambda cost, _name: cost), max_wait=60)
    order = []

    @limit
    async def call(_cost, name):
        order.append(name)

    async def main():
        await call(10, "emptied")
        async with anyio.create_task_group() as group:
            group.start_soon(call, 8, "big")
            await anyio.sleep(0.01)
            for number in range(12):
                group.start_soon(call, 1, f"small {number}")

    testing.run(main, backend=backend)
    assert order[:2] == ["emptied", "big"]
    assert len(order) == 14


def test_a_caller_who_does_not_want_to_wait_does_not_wait_behind_those_who_do(backend):
    """One lock held while waiting: 0.83 s for a call that must not block."""
    limit = ag.rate_limit("1/s burst 1", max_wait=60, partition=lambda key: key)
    call = limit(nothing)

    async def main():
        await call("a")
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(call, "a")
            await anyio.sleep(0.5)
            start = anyio.current_time()
            with limit.override(max_wait=0):
                await call("b")
                with pytest.raises(ag.RateLimitedError):
                    await call("a")
            assert anyio.current_time() == start

    testing.run(main, backend=backend)


def test_waiting_is_one_timer_each_and_no_polling():
    limit = ag.rate_limit("20/s burst 1", max_wait=60)
    call = limit(nothing)

    async def main():
        loop = asyncio.get_running_loop()
        timers, call_at = [], loop.call_at
        loop.call_at = lambda when, *args, **kwargs: timers.append(when) or call_at(when, *args, **kwargs)
        await call()
        await asyncio.gather(*(call() for _ in range(30)))
        return len(timers)

    assert testing.run(main) <= 30 + 5


def test_a_refusal_says_when_and_never_now(backend):
    """An error with a wait of zero makes its caller spin."""
    limit = ag.rate_limit("3/s burst 1", max_wait=0)
    call = limit(nothing)

    async def main():
        waits = []
        for _ in range(300):
            try:
                await call()
            except ag.RateLimitedError as error:
                waits.append(error.retry_after)
                await anyio.sleep(error.retry_after)
                await call()
        return waits

    waits = testing.run(main, backend=backend)
    assert len(waits) == 299
    assert all(0 < wait <= 1 / 3 + 1e-6 for wait in waits)


def test_refused_calls_take_nothing_however_many_they_are(backend):
    """Deducted on refusal, the balance goes below zero and everybody waits for it to come back."""
    limit = ag.rate_limit("1/s burst 1", max_wait=0)
    call = limit(nothing)

    async def main():
        await call()
        for _ in range(1000):
            with pytest.raises(ag.RateLimitedError):
                await call()
        assert limit.peek() == pytest.approx(1.0)

    testing.run(main, backend=backend)


def test_a_cost_that_never_fits_is_refused_before_any_waiting(backend):
    limit = ag.rate_limit(ag.Rate("10/s burst 10", cost=lambda cost: cost), max_wait=3600)
    call = limit(nothing)

    async def main():
        start = anyio.current_time()
        with pytest.raises(ValueError, match="at most 10, got 11"):
            await call(11)
        assert anyio.current_time() == start
        await call(10)
        assert anyio.current_time() == start, "the refused call took something"

    testing.run(main, backend=backend)


def test_a_waiter_that_is_interrupted_gives_its_turn_back(backend):
    """Elsewhere the reservation of an interrupted waiter stays spent."""
    limit = ag.rate_limit("1/min burst 1", max_wait=3600)
    call = limit(nothing)

    async def main():
        await call()
        for _ in range(5):
            with anyio.move_on_after(1):
                await call()
        assert limit.peek() == pytest.approx(55.0)

    testing.run(main, backend=backend)
