"""One object, many tasks and threads: what others mix up between its users."""

from __future__ import annotations

import functools
import threading
from itertools import pairwise

import anyio
import pytest

import asyncguard as ag
from asyncguard import events, testing


def in_threads(count, work):
    """Run `work(number)` in threads at once; return what it raised."""
    together, raised = threading.Barrier(count, timeout=60), []

    def run(number):
        together.wait()
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    return raised


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_five_tasks_on_one_function_each_get_their_own_error_after_their_own_attempts(backend):
    tried, caught = {}, {}

    @ag.retry(max_retries=2, budget=None)
    async def call(name):
        tried.setdefault(name, []).append(ag.current_attempt())
        await anyio.sleep(0.1)
        raise ConnectionError(name)

    async def one(name):
        try:
            await call(name)
        except ConnectionError as error:
            caught[name] = error.args

    async def main():
        async with anyio.create_task_group() as group:
            for name in range(5):
                group.start_soon(one, name)

    testing.run(main, backend=backend)
    assert tried == {name: [1, 2, 3] for name in range(5)}
    assert caught == {name: (name,) for name in range(5)}


@pytest.mark.parametrize(("jitter", "most"), [("none", [1, 2, 4]), ("decorrelated", [3, 9, 20])])
def test_calls_at_once_have_delays_of_their_own(backend, jitter, most):
    """A shared iterator of delays gives the fifth caller the delays of a fifteenth attempt."""
    times = {}

    @ag.retry(max_retries=3, initial_delay=1, jitter=jitter, budget=None)
    async def call(name):
        times.setdefault(name, []).append(anyio.current_time())
        raise ConnectionError

    async def one(name):
        with pytest.raises(ConnectionError):
            await call(name)

    async def main():
        async with anyio.create_task_group() as group:
            for name in range(5):
                group.start_soon(one, name)

    testing.run(main, backend=backend)
    for started in times.values():
        pauses = [later - earlier for earlier, later in pairwise(started)]
        assert all(1 - 1e-9 <= pause <= limit + 1e-9 for pause, limit in zip(pauses, most, strict=True))
        if jitter == "none":
            assert pauses == pytest.approx(most)


def test_what_is_told_of_calls_at_once_is_each_its_own(backend):
    """Hooks that calls share are ended by other calls, and not at all when one is cancelled in its backoff."""
    told = {}

    def hook(event):
        if not isinstance(event, events.AttemptStarted):
            told.setdefault(event.error.args[0], []).append(type(event))

    @ag.retry(max_retries=1, initial_delay=1, jitter="none", budget=None, on_event=hook)
    async def call(name):
        await anyio.sleep(1)
        raise ConnectionError(name)

    async def one(name, seconds):
        with anyio.move_on_after(seconds), pytest.raises(ConnectionError, match=name):
            await call(name)

    async def main():
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(one, f"call {number}", 60)
                group.start_soon(one, f"cancelled {number}", 1.5)

    testing.run(main, backend=backend)
    assert told == {
        **{f"call {number}": [events.RetryScheduled, events.RetryGaveUp] for number in range(4)},
        **{f"cancelled {number}": [events.RetryScheduled] for number in range(4)},
    }


def test_every_request_of_a_client_begins_with_the_first_delay(backend):
    """A Fibonacci sequence that is shared moves on with every request of the client."""
    pauses = []
    client = ag.retry(max_retries=1, initial_delay=1, jitter="none", budget=None)

    @client
    async def request():
        pauses.append(anyio.current_time())
        raise ConnectionError

    async def main():
        for _ in range(5):
            with pytest.raises(ConnectionError):
                await request()

    testing.run(main, backend=backend)
    assert [later - earlier for earlier, later in zip(pauses[::2], pauses[1::2], strict=True)] == pytest.approx([1] * 5)


# --- threads ----------------------------------------------------------------------------------------------------------


def test_eight_threads_call_and_ask_for_the_numbers_and_nothing_is_lost_or_raised():
    """Others throw a KeyError of their own statistics at the caller."""
    retry = ag.retry(max_retries=1, initial_delay=0, max_delay=0, budget=None, partition=lambda number: number % 5)
    breaker = ag.circuit_breaker(window=10_000, minimum_calls=10_000, consecutive_failures=None)
    slots, rate = ag.bulkhead(8), ag.rate_limit("1000000/s burst 1000000", partition=lambda number: number % 7)

    def function(number):
        if number % 3 == 0:
            raise ConnectionError
        return number

    guarded = ag.Pipeline(retry, breaker, slots, rate, name="statistics")(function)

    def work(thread):
        for number in range(200):
            if thread % 2:
                str(ag.status())
                breaker.describe()
                rate.describe()
            try:
                assert guarded(number) == number
            except ConnectionError:
                assert number % 3 == 0

    assert in_threads(8, work) == []
    failed = 8 * len(range(0, 200, 3))
    calls = 8 * 200 + failed  # every failing call was tried twice
    assert breaker.describe()[0].startswith(f"CLOSED, {2 * failed} of {calls} failed")
    assert slots.gate.idle()


def test_a_budget_that_three_functions_share_is_one_budget(backend):
    """Documented as shared and counted per function: three functions, three times the retries."""
    budget = ag.RetryBudget(ratio=0, min_per_second=0.6)  # six retries in ten seconds
    calls = []

    def failing(name):
        @ag.retry(budget=budget, max_retries=5, initial_delay=0, max_delay=0)
        async def call():
            calls.append(name)
            raise ConnectionError

        return call

    async def main():
        for name in "abc":
            with pytest.raises(ConnectionError):
                await failing(name)()

    testing.run(main, backend=backend)
    assert len(calls) == 3 + 6


def test_three_functions_of_one_retry_share_its_default_budget():
    retry = ag.retry(max_retries=100, initial_delay=0, max_delay=0)
    calls = []

    def failing():
        calls.append(1)
        raise ConnectionError

    functions = [retry(functools.partial(failing)) for _ in range(3)]
    with testing.virtual_clock():
        for function in functions:
            with pytest.raises(ConnectionError):
                function()
    assert len(calls) == pytest.approx(100 + 3, abs=2), "ten retries a second for ten seconds, for all three together"
