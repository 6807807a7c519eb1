"""One computation for threads, for several event loops, and for loops that end in the middle of it."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import trio

import asyncguard as ag
from asyncguard.strategies.cache_result import CacheResult


def in_threads(number, target):
    """Run `target(at)` in threads; return what each returned or raised."""
    outcomes = [None] * number
    start = threading.Barrier(number)

    def run(at):
        start.wait()
        try:
            outcomes[at] = target(at)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            outcomes[at] = error

    threads = [threading.Thread(target=run, args=(at,)) for at in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return outcomes


def until(condition):
    late = time.monotonic() + 60
    while time.monotonic() < late:
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError("it never came true")


class Gate:
    """A plain function that waits until all callers have come, and counts its calls."""

    def __init__(self, callers, error=None):
        self.calls, self.callers, self.error = 0, callers, error
        self.cache = ag.cache_result(60)
        self.fn = self.cache(self.slow)

    def slow(self, key: int) -> list[int]:
        self.calls += 1
        until(lambda: self.cache.info().joined >= self.callers - 1)
        if self.error is not None:
            raise self.error
        return [key]


def test_many_threads_on_one_cold_key_call_the_function_once():
    gate = Gate(50)
    assert in_threads(50, lambda _: gate.fn(1)) == [[1]] * 50
    assert gate.calls == 1


def test_an_error_in_the_leading_thread_goes_to_all_and_the_next_caller_starts_anew():
    gate = Gate(20, ValueError("no"))
    assert in_threads(20, lambda _: gate.fn(1)) == [gate.error] * 20
    gate.callers, gate.error = 0, None
    assert gate.fn(1) == [1]
    assert gate.calls == 2


def test_an_interrupted_leading_thread_is_followed_by_another():
    gate = Gate(10)
    gate.error = KeyboardInterrupt()
    first = threading.Event()

    def slow(key):
        if first.is_set():
            return [key]
        first.set()
        return gate.slow(key)

    fn = gate.cache(slow)
    outcomes = in_threads(10, lambda _: fn(1))
    assert [outcome for outcome in outcomes if outcome != [1]] == [gate.error]


def test_recursion_of_a_plain_function_on_its_own_key_is_an_error():
    @ag.cache_result(60)
    def fn(x):
        return fn(x)

    with pytest.raises(RecursionError, match="inside of its own computation"):
        fn(1)


def test_recursion_of_a_plain_function_on_other_keys_works():
    @ag.cache_result(60)
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(30) == 832040


def test_a_thread_that_waits_for_another_gives_up_at_its_own_deadline():
    go = threading.Event()

    @ag.cache_result(60)
    def slow(x):
        go.wait(60)
        return x

    hurried = ag.timeout(0.05)(slow)
    leader = threading.Thread(target=slow, args=(1,))
    leader.start()
    until(lambda: ag.pipeline_of(slow)[CacheResult].info().in_flight == 1)
    try:
        with pytest.raises(ag.CallTimeoutError):
            hurried(1)
    finally:
        go.set()
        leader.join()


def test_a_thread_that_runs_a_loop_computes_for_itself_instead_of_blocking_it():
    calls = []
    go = threading.Event()

    @ag.cache_result(60)
    def slow(x):
        calls.append(threading.current_thread())
        if len(calls) == 1:
            go.wait(60)
        return x

    cache = ag.pipeline_of(slow)[CacheResult]

    async def main():
        waiting = asyncio.create_task(asyncio.to_thread(slow, 1))
        while not calls:  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.001)
        here = slow(1)
        go.set()
        return here, await waiting

    assert asyncio.run(main()) == (1, 1)
    assert len(calls) == 2
    assert cache.get(1) is not None


# --- several loops ----------------------------------------------------------------------------------------------------


def slow_async(event):
    calls = []
    cache = ag.cache_result(60)

    @cache
    async def fn(x: int) -> int:
        calls.append(x)
        while not event.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.001)
        return x

    return cache, fn, calls


def test_two_loops_in_two_threads_share_one_computation_and_its_value():
    go = threading.Event()
    cache, fn, calls = slow_async(go)

    def run(at):
        if at == 2:
            until(lambda: cache.info().joined == 1)
            go.set()
            return 1
        return asyncio.run(fn(1))

    assert in_threads(3, run) == [1, 1, 1]
    assert calls == [1]


def test_a_loop_and_a_trio_run_share_one_computation():
    calls = []
    cache = ag.cache_result(60)
    go = threading.Event()

    @cache
    async def fn(x: int) -> int:
        calls.append(x)
        sleep = trio.sleep if trio.lowlevel.in_trio_task() else asyncio.sleep
        while not go.is_set():
            await sleep(0.001)
        return x

    def run(at):
        if at == 2:
            until(lambda: cache.info().joined == 1)
            go.set()
            return 1
        return trio.run(fn, 1) if at else asyncio.run(fn(1))

    assert in_threads(3, run) == [1, 1, 1]
    assert calls == [1]


def test_the_last_waiter_in_another_loop_cancels_the_work_in_its_own():
    cache, fn, calls = slow_async(threading.Event())
    ended = threading.Event()

    left = threading.Event()

    async def leads_and_leaves():
        task = asyncio.create_task(fn(1))
        until_joined = asyncio.to_thread(until, lambda: cache.info().joined == 1)
        await until_joined
        task.cancel()
        await asyncio.wait([task])
        left.set()
        async with asyncio.timeout(60):
            while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - the work goes on until the other loop leaves
                await asyncio.sleep(0.001)
        ended.set()

    async def joins_and_leaves():
        await asyncio.to_thread(until, lambda: bool(calls))
        task = asyncio.create_task(fn(1))
        await asyncio.to_thread(left.wait, 60)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    assert in_threads(2, lambda at: asyncio.run(joins_and_leaves() if at else leads_and_leaves())) == [None, None]
    assert ended.is_set()
    assert cache.info().in_flight == 0


def test_a_follower_whose_leaders_loop_has_ended_leads_itself():
    go = threading.Event()
    cache, fn, calls = slow_async(go)

    async def leads_and_goes():
        task = asyncio.create_task(fn(1))
        await asyncio.to_thread(until, lambda: cache.info().joined == 1)
        del task

    async def follows():
        await asyncio.to_thread(until, lambda: bool(calls))
        task = asyncio.create_task(fn(1))
        await asyncio.to_thread(until, lambda: len(calls) == 2)
        go.set()
        return await task

    assert in_threads(2, lambda at: asyncio.run(follows() if at else leads_and_goes())) == [None, 1]
    assert calls == [1, 1]


def test_a_follower_whose_leaders_loop_was_stopped_without_a_word_leads_itself():
    go = threading.Event()
    _, fn, calls = slow_async(go)
    loop = asyncio.new_event_loop()
    task = loop.create_task(fn(1))

    async def begun():
        while not calls:  # noqa: ASYNC110 - the function runs in a task of its own
            await asyncio.sleep(0.001)

    loop.run_until_complete(begun())  # stopped now, with the work pending
    assert calls == [1]
    go.set()
    assert asyncio.run(fn(1)) == 1
    assert calls == [1, 1]
    loop.run_until_complete(task)  # whoever waited for the old flight gets its value
    assert task.result() == 1
    loop.close()


def test_entries_survive_the_loop_in_which_they_were_made():
    go = threading.Event()
    go.set()
    _, fn, calls = slow_async(go)
    assert [asyncio.run(fn(1)), asyncio.run(fn(1)), trio.run(fn, 1)] == [1, 1, 1]
    assert calls == [1]


def test_threads_and_loops_hammering_few_keys_never_see_a_wrong_value():
    @ag.cache_result(0.002, max_entries=3)
    async def double(x):
        await asyncio.sleep(0)
        return 2 * x

    @ag.cache_result(0.002, max_entries=3)
    def triple(x):
        return 3 * x

    async def loop(at):
        for round_ in range(60):
            got = await asyncio.gather(*[double(x) for x in range(6)])
            assert got == [0, 2, 4, 6, 8, 10], (at, round_)

    def run(at):
        if at % 2:
            asyncio.run(loop(at))
        else:
            for _ in range(300):
                assert [triple(x) for x in range(5)] == [0, 3, 6, 9, 12]

    assert in_threads(6, run) == [None] * 6
