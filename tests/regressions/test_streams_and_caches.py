"""Streams that others buffer, repeat or leave alone, and caches that mix, compute twice or keep what is over."""

from __future__ import annotations

import asyncio
import gc
import threading

import anyio
import pytest

import asyncguard as ag
from asyncguard import testing

# --- streams ----------------------------------------------------------------------------------------------------------


def test_the_first_item_is_there_before_the_second_is_made(backend):
    """Collected into a list before anything is given out, a stream is none, and has no bound in memory."""
    made = []

    @ag.retry
    async def stream():
        for number in range(5):
            made.append(number)
            await anyio.sleep(1)
            yield number

    async def main():
        async for number in stream():
            assert made == list(range(number + 1))

    testing.run(main, backend=backend)
    assert made == list(range(5))


def test_an_endless_stream_is_a_stream(backend):
    @ag.retry
    async def stream():
        while True:
            yield 1

    @ag.retry
    def items():
        while True:
            yield 1

    async def main():
        endless = stream()
        got = [await anext(endless) for _ in range(3)]
        await endless.aclose()
        return got

    assert testing.run(main, backend=backend) == [1] * 3
    endless = items()
    assert [next(endless) for _ in range(3)] == [1] * 3
    endless.close()


def test_an_error_after_two_items_repeats_neither(backend):
    """Started anew it gives 0, 1, 0, 1, 0, 1, 2."""
    started, got = [], []

    @ag.retry
    async def stream():
        started.append(1)
        yield 0
        yield 1
        raise ConnectionError

    async def main():
        with pytest.raises(ConnectionError):
            async for item in stream():
                got.append(item)

    testing.run(main, backend=backend)
    assert (got, started) == ([0, 1], [1])


def test_an_error_before_the_first_item_is_retried_and_not_ignored(backend):
    """The call that makes a generator never fails: who looks at that alone retries nothing, silently."""
    started = []

    @ag.retry
    async def stream():
        started.append(1)
        if len(started) < 3:
            raise ConnectionError
        yield "item"

    @ag.retry
    def items():
        started.append(1)
        if len(started) < 3:
            raise ConnectionError
        yield "item"

    async def main():
        return [item async for item in stream()]

    assert testing.run(main, backend=backend) == ["item"]
    assert len(started) == 3
    started.clear()
    with testing.virtual_clock():
        assert list(items()) == ["item"]
    assert len(started) == 3


# --- caches -----------------------------------------------------------------------------------------------------------


def test_one_true_and_one_point_zero_have_entries_of_their_own():
    calls = []

    @ag.cache_result(60)
    def describe(value):
        calls.append(value)
        return f"{value!r} is a {type(value).__name__}"

    for _ in range(2):
        for value in (1, True, 1.0, 0, False, 0.0, -0.0, "1", b"1"):
            assert describe(value) == f"{value!r} is a {type(value).__name__}"
    assert len(calls) == 9


def test_callers_who_come_one_after_the_other_while_it_is_computed_get_that_one_value(backend):
    calls, got = [], []

    @ag.cache_result(60)
    async def compute():
        calls.append(1)
        await anyio.sleep(1)
        return len(calls)

    async def one():
        got.append(await compute())

    async def main():
        async with anyio.create_task_group() as group:
            for _ in range(15):
                group.start_soon(one)
                await anyio.sleep(0.05)

    testing.run(main, backend=backend)
    assert (calls, got) == ([1], [1] * 15)


def test_keys_that_fail_leave_nothing_behind():
    """A lock for each of them, for ever: 2,000 of 2,000."""
    flights = ag.cache_result(60)

    class Key:
        """A thing that can be counted."""

    @flights
    def compute(key):
        raise ConnectionError(key)

    def locks():
        gc.collect()
        return sum(type(each) in (type(threading.Lock()), threading.Condition) for each in gc.get_objects())

    with pytest.raises(ConnectionError):
        compute("the first")
    before, objects = locks(), len(gc.get_objects())
    for key in range(2000):
        with pytest.raises(ConnectionError):
            compute(key)
    assert locks() - before < 10
    assert len(gc.get_objects()) - objects < 1000
    assert (flights.info().in_flight, flights.info().entries) == (0, 0)


def test_the_same_in_async_code():
    calls = ag.cache_result(60)

    @calls
    async def compute(key):
        raise ConnectionError(key)

    async def main():
        for key in range(2000):
            with pytest.raises(ConnectionError):
                await compute(key)
        gc.collect()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    testing.run(main)
    assert (calls.info().in_flight, calls.info().entries) == (0, 0)


# --- fallbacks --------------------------------------------------------------------------------------------------------


def test_a_rejection_that_is_not_named_is_not_answered():
    """`on=` holds for rejections as for errors."""
    slots = ag.bulkhead(1, max_queue=0)

    @ag.guard(ag.fallback("stale", on=ConnectionError), slots)
    def call():
        return "fresh"

    permit = slots.gate.take()
    with pytest.raises(ag.BulkheadFullError):
        call()
    slots.gate.release(permit)
    assert call() == "fresh"
