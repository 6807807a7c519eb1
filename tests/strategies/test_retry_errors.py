"""What leaves a `retry`: the user's own error with one line, no growing traceback, no frames of earlier attempts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import pickle
import sys
import traceback
import weakref

import anyio
import pytest

from asyncguard import RetryBudget, current_attempt, guard, retry, testing, timeout


class Tensor:
    """Something large in a local variable of an attempt."""


@pytest.fixture(params=["asyncio", "trio", "sync"])
def colour(request):
    return request.param


def run(strategy, fn, colour):
    """Guard plain `fn` in a colour and call it."""
    if colour == "sync":
        with testing.virtual_clock():
            return strategy(fn)()

    @strategy
    async def call():
        return fn()

    return testing.run(call, backend=colour)


def raising(error):
    def call():
        raise error

    return call


# --- the note ---------------------------------------------------------------------------------------------------------


def test_it_is_the_users_own_error_with_one_line(colour):
    error = ConnectionError("mine")
    with pytest.raises(ConnectionError) as raised:
        run(retry(max_retries=2, initial_delay=1, jitter="none"), raising(error), colour)
    assert raised.value is error
    assert error.__notes__ == ["asyncguard.retry: 3 attempts in 3.00 s, gave up: max_retries"]
    assert error.__cause__ is error.__context__ is None


def test_an_error_that_is_raised_again_and_again_has_one_line(colour):
    error = ConnectionError("always the same")
    error.add_note("of the user")
    for max_retries in (1, 2, 3):
        with pytest.raises(ConnectionError):
            run(retry(max_retries=max_retries, initial_delay=1, jitter="none"), raising(error), colour)
        elapsed = {1: "2 attempts in 1.00 s", 2: "3 attempts in 3.00 s", 3: "4 attempts in 7.00 s"}[max_retries]
        assert error.__notes__ == ["of the user", f"asyncguard.retry: {elapsed}, gave up: max_retries"]


def test_a_line_of_another_time_does_not_stay_on_an_error_that_is_not_retried(colour):
    error = ConnectionError("always the same")
    with pytest.raises(ConnectionError):
        run(retry(max_retries=1), raising(error), colour)
    with pytest.raises(ConnectionError):
        run(retry(on=KeyError), raising(error), colour)
    assert error.__notes__ == []


def test_the_error_pickles_with_its_line():
    with pytest.raises(ConnectionError) as raised:
        run(retry(max_retries=1, jitter="none"), raising(ConnectionError("mine")), "sync")
    again = pickle.loads(pickle.dumps(raised.value))
    assert again.__notes__ == ["asyncguard.retry: 2 attempts in 0.20 s, gave up: max_retries"]


def test_the_time_is_exact_from_the_second_failing_call_on_and_a_lower_bound_before():
    """Off the virtual clock the first call that fails was not timed: the clock costs too much for the others."""
    calls = []

    @retry(max_retries=1, initial_delay=0, max_delay=0)
    def call():
        calls.append(1)
        if len(calls) > 1:
            raise ConnectionError

    call()
    notes = []
    for _ in range(2):
        with pytest.raises(ConnectionError) as raised:
            call()
        notes += raised.value.__notes__
    assert ["in more than" in line for line in notes] == [True, False]


# --- tracebacks and frames --------------------------------------------------------------------------------------------


def test_the_traceback_of_one_instance_does_not_grow_over_two_hundred_attempts(colour):
    error = ConnectionError("always the same")
    with pytest.raises(ConnectionError) as raised:
        run(retry(max_retries=200, budget=None, max_delay=0.2), raising(error), colour)
    lines = traceback.extract_tb(raised.value.__traceback__)
    assert len([line for line in lines if line.name == "call" and line.line == "raise error"]) == 1
    assert len(lines) < 20


def test_errors_are_not_chained_over_the_attempts(colour):
    numbers = iter(range(100))

    def call():
        raise ConnectionError(next(numbers))

    with pytest.raises(ConnectionError) as raised:
        run(retry(max_retries=4), call, colour)
    assert raised.value.args == (4,)
    assert raised.value.__context__ is None


def test_while_it_sleeps_and_tries_again_no_earlier_attempt_is_kept_alive(colour):
    alive, seen = [], []

    def call():
        seen.append([reference() is not None for reference in alive])
        tensor = Tensor()
        alive.append(weakref.ref(tensor))
        try:
            raise OSError(5, "low level")  # noqa: TRY301 - its frame is the point
        except OSError as error:
            if len(alive) < 4:
                raise ConnectionError from error
        return "ok"

    gc.disable()
    try:
        assert run(retry(), call, colour) == "ok"
    finally:
        gc.enable()
    assert seen == [[], [False], [False] * 2, [False] * 3]


def test_neither_is_one_whose_error_may_still_leave():
    """A rejection after it would let it leave: it is kept, its frames are not."""
    from asyncguard import CircuitOpenError

    alive, seen = [], []

    @retry
    async def call():
        seen.append([reference() is not None for reference in alive])
        tensor = Tensor()
        alive.append(weakref.ref(tensor))
        raise ConnectionError("real") if len(alive) < 3 else CircuitOpenError("open")

    gc.disable()
    try:
        with pytest.raises(ConnectionError, match="real"):
            testing.run(call)
    finally:
        gc.enable()
    assert seen == [[], [False], [False] * 2]


def test_an_error_that_left_makes_no_cycle_with_its_frames(colour):
    """A cycle would keep the last attempt's tensors until the next garbage collection."""
    references = []

    def call():
        tensor = Tensor()
        references.append(weakref.ref(tensor))
        raise ConnectionError

    gc.collect()
    gc.disable()
    try:
        try:
            run(retry(max_retries=2), call, colour)
        except ConnectionError as error:
            left = error.with_traceback(None)
        assert [reference() for reference in references] == [None] * 3
        assert left.__notes__
    finally:
        gc.enable()


def test_an_error_that_the_caller_handles_keeps_its_traceback(colour):
    try:
        raise KeyError("of the caller")  # noqa: TRY301 - its traceback is the point
    except KeyError as error:
        mine = error
        with pytest.raises(ConnectionError):
            run(retry(max_retries=2), raising(ConnectionError()), colour)
        assert sys.exception() is mine
        assert [line.name for line in traceback.extract_tb(mine.__traceback__)] == [
            "test_an_error_that_the_caller_handles_keeps_its_traceback"
        ]


# --- retries inside retries -------------------------------------------------------------------------------------------


def nested(calls, colour, *, outer=None, inner=None, wrap=None):
    """Two retries around a function that always fails, in a colour; returns the error that leaves."""
    inner, outer = inner or retry(max_retries=3, name="inner"), outer or retry(max_retries=3, name="outer")

    def fail():
        calls.append(1)
        raise ConnectionError("down")

    if colour == "sync":
        guarded_sync = inner(fail)

        @outer
        def whole():
            wrap(guarded_sync) if wrap else guarded_sync()

        with testing.virtual_clock(), pytest.raises(Exception) as raised:  # noqa: PT011 - any
            whole()
        return raised.value

    @inner
    async def guarded():
        fail()

    @outer
    async def whole_async():
        try:
            await guarded()
        except ConnectionError as error:
            if wrap:
                wrap(raising(error))
            raise

    with pytest.raises(Exception) as raised:  # noqa: PT011 - any
        testing.run(whole_async, backend=colour)
    return raised.value


def test_what_an_inner_retry_gave_up_on_is_not_retried_by_an_outer_one(colour):
    calls = []
    error = nested(calls, colour)
    assert len(calls) == 4, "4, and not 4 x 4"
    [line] = error.__notes__
    assert "4 attempts" in line


def test_it_is_retried_if_asked_for(colour):
    calls = []
    nested(calls, colour, outer=retry(max_retries=3, retry_exhausted=True))
    assert len(calls) == 16


class DomainError(ConnectionError):
    """What a client of our own makes of the error of its library."""


def test_wrapping_the_error_does_not_hide_that_it_was_given_up_on(colour):
    def wrap(call):
        try:
            call()
        except ConnectionError as error:
            raise DomainError from error

    calls = []
    assert isinstance(nested(calls, colour, wrap=wrap), DomainError)
    assert len(calls) == 4


def test_three_retries_deep_is_still_one(colour):
    calls = []

    @retry
    @guard(retry(max_retries=2))
    def inner():
        calls.append(1)
        raise ConnectionError

    @retry
    def outer():
        inner()

    with testing.virtual_clock(), pytest.raises(ConnectionError):
        outer()
    assert len(calls) == 3


def test_a_task_group_full_of_calls_that_were_given_up_on_is_not_retried(backend):
    calls = []

    @retry(max_retries=1)
    async def one():
        calls.append(1)
        raise ConnectionError

    @retry(max_retries=3)
    async def batch():
        async with anyio.create_task_group() as group:
            group.start_soon(one)
            group.start_soon(one)

    with pytest.raises(ExceptionGroup):
        testing.run(batch, backend=backend)
    assert len(calls) <= 4, "the first to fail cancels the other; nobody starts the batch again"


def test_an_error_that_the_inner_retry_did_not_try_again_is_retried_by_the_outer_one(colour):
    calls = []
    nested(calls, colour, inner=retry(on=KeyError), outer=retry(max_retries=2))
    assert len(calls) == 3


def test_an_inner_retry_that_failed_and_was_caught_does_not_count(colour):
    calls = []

    @retry(max_retries=1, budget=None)
    def inner():
        raise ConnectionError("inner")

    def call():
        calls.append(1)
        with contextlib.suppress(ConnectionError):
            inner()
        raise TimeoutError("something else")

    with pytest.raises(TimeoutError):
        run(retry(max_retries=3), call, colour)
    assert len(calls) == 4


def test_an_instance_given_up_on_long_ago_is_retried_like_a_new_one(colour):
    """Libraries keep error instances; what was decided about one the last time is no verdict about this time."""
    error = ConnectionError("always the same")
    with pytest.raises(ConnectionError):
        run(retry(max_retries=1), raising(error), colour)
    calls = []

    def call():
        calls.append(1)
        raise error

    with pytest.raises(ConnectionError):
        run(retry(max_retries=3), call, colour)
    assert len(calls) == 4


def test_calls_of_one_function_that_share_an_instance_do_not_end_each_other():
    error = ConnectionError("one for all")
    calls = []

    @retry(max_retries=3, budget=None, jitter="none")
    async def call(pause):
        calls.append(1)
        await asyncio.sleep(pause)
        raise error

    async def main():
        return await asyncio.gather(*(call(pause) for pause in (0.1, 0.3, 0.7, 1.9)), return_exceptions=True)

    assert testing.run(main) == [error] * 4
    assert len(calls) == 16


def test_an_inner_attempt_that_timed_out_and_was_retried_inside_is_not_retried_outside():
    calls = []

    @guard(retry(max_retries=1), timeout(1, scope="attempt"))
    async def inner():
        calls.append(current_attempt())
        await asyncio.sleep(10)

    @retry
    async def outer():
        await inner()

    with pytest.raises(TimeoutError):
        testing.run(outer)
    assert calls == [1, 2]


def test_an_empty_budget_inside_is_a_verdict_too(colour):
    calls = []
    nested(calls, colour, inner=retry(budget=RetryBudget(0, 0)))
    assert len(calls) == 1
