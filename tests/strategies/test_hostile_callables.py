"""Callables of the user in the wrong place: async where nobody awaits, listeners that call back or are interrupted."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

import asyncguard as ag
from asyncguard._machines import circles
from asyncguard.strategies import _retry_scope


async def coroutine(*_args, **_kwargs):
    return False


class CallableObject:
    async def __call__(self, *_args):
        return False


ASYNC_OPTIONS = {
    "retry on": lambda hook: ag.retry(on=hook),
    "retry on_result": lambda hook: ag.retry(on_result=hook),
    "retry jitter": lambda hook: ag.retry(jitter=hook),
    "retry partition": lambda hook: ag.retry(partition=hook),
    "breaker on": lambda hook: ag.circuit_breaker(on=hook),
    "fallback on": lambda hook: ag.fallback(1, on=hook),
    "bulkhead partition": lambda hook: ag.bulkhead(1, partition=hook),
    "rate cost": lambda hook: ag.Rate("1/s", cost=hook),
    "estimate": lambda hook: ag.memory_guard(estimate=hook),
    "cache_if": lambda hook: ag.cache_result(1, cache_if=hook),
    "ttl": ag.cache_result,
    "key": lambda hook: ag.cache_result(1, key=hook),
    "tags": lambda hook: ag.cache_result(1, tags=hook),
    "items key": lambda hook: ag.cache_items(1, key=hook),
    "classifier": ag.register_classifier,
    "on_event": lambda hook: ag.retry(on_event=hook),
}


@pytest.mark.parametrize("hook", [coroutine, CallableObject()], ids=["function", "object"])
@pytest.mark.parametrize("option", ASYNC_OPTIONS)
def test_a_coroutine_function_where_nobody_awaits_is_refused(option, hook):
    """A coroutine is true whatever it would return: an async `on=` would retry everything."""
    with pytest.raises(TypeError, match="plain function"):
        ASYNC_OPTIONS[option](hook)


# --- listeners --------------------------------------------------------------------------------------------------------


class Once:
    """A listener that does something at the first event."""

    def __init__(self, act):
        self._act = act
        self.raised = []

    def __call__(self, _event):
        act, self._act = self._act, None
        if act is not None:
            try:
                act()
            except Exception as error:
                self.raised.append(type(error).__name__)
                raise


def within(seconds, call):
    """Run `call` in a thread; fail instead of waiting for ever."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, "it waits for ever"
    return results[0]


@pytest.mark.parametrize("items", [False, True])
def test_a_listener_that_asks_for_the_value_being_computed_does_not_wait_for_itself(items):
    listener = Once(lambda: fn([1]))
    make = ag.cache_items(60, over="xs", on_event=listener) if items else ag.cache_result(60, on_event=listener)

    @make
    def fn(xs):
        return list(xs)

    assert within(60, lambda: fn([1])) == [1]
    assert listener.raised == ["CircularWaitError"]


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("items", [False, True])
def test_an_interrupted_listener_leaves_no_flight_for_which_the_next_caller_waits(items):
    listener = Once(interrupt)
    strategy = ag.cache_items(60, over="xs", on_event=listener) if items else ag.cache_result(60, on_event=listener)

    @strategy
    def fn(xs):
        return list(xs)

    with pytest.raises(KeyboardInterrupt):
        fn([1])
    assert strategy.info().in_flight == 0
    assert within(60, lambda: fn([1])) == [1]


@pytest.mark.parametrize("items", [False, True])
def test_an_interrupted_listener_of_an_async_function_leaves_no_flight(items):
    listener = Once(interrupt)
    strategy = ag.cache_items(60, over="xs", on_event=listener) if items else ag.cache_result(60, on_event=listener)

    @strategy
    async def fn(xs):
        return list(xs)

    async def main():
        with pytest.raises(KeyboardInterrupt):
            await fn([1])
        assert strategy.info().in_flight == 0
        return await asyncio.wait_for(fn([1]), 60)

    assert asyncio.run(main()) == [1]


def test_an_interrupted_listener_costs_no_memory_reservation():
    strategy = ag.memory_guard(estimate=1024, on_event=Once(interrupt))
    fn = strategy(lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        fn()
    assert all(gate.idle() for gate in strategy.gates())
    assert fn() == 1


# --- coroutines that nobody finishes, and forks -----------------------------------------------------------------------


def test_a_coroutine_closed_in_another_context_ends_its_attempt():
    """What runs in a second attempt is known to the whole process: if it stayed, every call would take the long way."""
    attempts = []

    @ag.retry(initial_delay=0, jitter="none")
    async def fn():
        attempts.append(ag.current_attempt())
        if len(attempts) == 1:
            raise ConnectionError
        await asyncio.Event().wait()

    async def main():
        coroutine = fn()
        task = asyncio.create_task(step(coroutine))
        await task
        assert attempts == [1, 2]
        coroutine.close()  # here, in another context than that of the task

    async def step(coroutine):
        coroutine.send(None)

    asyncio.run(main())
    assert not _retry_scope.running


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_nested_flights_work_in_a_child_forked_while_another_thread_starts_one():
    inner = ag.cache_result(60)(lambda x: x)
    outer = ag.cache_result(60)(lambda x: [inner(x)])
    with circles._edges:  # as if another thread were in the middle of it
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(0 if outer(1) == [1] else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_an_error_that_many_waited_for_does_not_show_what_one_of_them_was_handling():
    @ag.cache_result(60)
    async def fn():
        await asyncio.sleep(0.01)
        raise LookupError("for all")

    async def handling():
        try:
            raise ValueError("what another request was about")  # noqa: TRY301 - what is handled when the other error comes
        except ValueError:
            with pytest.raises(LookupError) as caught:
                await fn()
            return caught.value

    async def plain():
        with pytest.raises(LookupError) as caught:
            await fn()
        return caught.value

    async def main():
        return await asyncio.gather(handling(), plain(), handling())

    errors = asyncio.run(main())
    assert [error.__context__ for error in errors] == [None, None, None]
