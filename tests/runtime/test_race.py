"""What a race of attempts is made of: contexts of their own, the mark of an attempt, closing what nobody gets."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
import weakref

import pytest

from asyncguard import testing
from asyncguard._runtime import clock, race, race_threads
from asyncguard._runtime.race_trio import leaf

variable = contextvars.ContextVar("variable", default="outside")


class FirstOf:
    """A referee that starts `most` attempts at once and takes the first success."""

    def __init__(self, most=2):
        self.most = most
        self.begun = 0
        self.over = False
        self.won = self.dropped = None
        self.failures = []

    def begin(self):
        self.begun += 1
        return self.begun

    def pause(self):
        return 0.0 if self.begun < self.most else float("inf")

    def late(self):
        """There is no timer."""

    def granted(self):
        return True

    def succeeded(self, _number, result):
        if self.over:
            return False
        self.over, self.won = True, result
        return True

    def failed(self, _number, error):
        self.failures.append(type(error).__name__)
        self.over = self.over or len(self.failures) == self.most

    def drop(self):
        self.over, self.dropped, self.won = True, self.won, None
        return self.dropped


# --- contexts ---------------------------------------------------------------------------------------------------------


def test_what_is_awaited_in_a_context_of_its_own_writes_nothing_back(backend):
    async def inner():
        assert variable.get() == "caller"
        variable.set("inner")
        await clock.library_sleep(1)
        assert variable.get() == "inner"
        return "result"

    async def main():
        variable.set("caller")
        assert await race.InContext(inner) == "result"
        assert variable.get() == "caller"

    testing.run(main, backend=backend)


def test_it_runs_in_the_same_task():
    async def inner():
        return asyncio.current_task()

    async def main():
        assert await race.InContext(inner) is asyncio.current_task()

    testing.run(main)


def test_a_cancellation_reaches_it_and_what_it_raises_then_has_no_foreign_context():
    async def stubborn():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        await asyncio.sleep(1)
        raise ValueError("afterwards")

    async def main():
        task = asyncio.create_task(_await(race.InContext(stubborn)))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(ValueError, match="afterwards") as caught:
            await task
        assert caught.value.__context__ is None

    testing.run(main)


async def _await(awaitable):
    return await awaitable


def test_it_is_closed_with_its_caller():
    closed = []

    async def inner():
        try:
            await asyncio.sleep(10)
        finally:
            closed.append(variable.get())

    async def main():
        coroutine = _await(race.InContext(inner))
        coroutine.send(None)
        coroutine.close()

    testing.run(main)
    assert closed == ["outside"]


def test_an_error_keeps_no_frame_alive_after_it_was_handled():
    class Tensor:
        pass

    gone = []

    async def inner():
        tensor = Tensor()
        gone.append(weakref.ref(tensor))
        await asyncio.sleep(1)
        raise OSError

    async def main():
        gc.disable()
        try:
            with contextlib.suppress(OSError):
                await race.InContext(inner)
            assert gone[0]() is None
        finally:
            gc.enable()

    testing.run(main)


# --- the mark of an attempt -------------------------------------------------------------------------------------------


def test_code_knows_that_it_is_inside_of_an_attempt_until_that_ends(backend):
    seen, later = [], []

    async def call():
        seen.append(race.inside())
        later.append(contextvars.copy_context())

    async def main():
        assert not race.inside()
        await race.run(FirstOf(1), call)
        assert not race.inside()

    testing.run(main, backend=backend)
    assert seen == [True]
    assert not later[0].run(race.inside)


def test_threads_are_marked_as_well():
    seen = []
    race_threads.run(FirstOf(1), lambda: seen.append(race.inside()), "attempt")
    assert seen == [True]
    assert not race.inside()


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
def test_no_error_leaves_through_an_attempt(error, backend):
    referee = FirstOf()

    async def call():
        raise error

    async def main():
        await race.run(referee, call)

    testing.run(main, backend=backend)
    assert referee.failures == [error.__name__] * 2


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_leaves_through_the_caller(interrupt, backend):
    async def call():
        raise interrupt

    async def main():
        with pytest.raises(interrupt):
            await race.run(FirstOf(1), call)

    testing.run(main, backend=backend)


def test_a_loop_that_refuses_the_task_leaves_no_coroutine_behind():
    async def main():
        def refuse(_loop, coroutine, **_options):
            raise RuntimeError("no more tasks")

        asyncio.get_running_loop().set_task_factory(refuse)
        with pytest.raises(RuntimeError, match="no more tasks"):
            await race.run(FirstOf(), main)
        asyncio.get_running_loop().set_task_factory(None)

    testing.run(main)
    gc.collect()  # a coroutine that was never awaited warns here, and warnings are errors


def test_a_referee_that_fails_ends_the_race(backend):
    class Failing(FirstOf):
        def granted(self):
            raise LookupError("granted")

    running = []

    async def call():
        running.append(1)
        try:
            await clock.library_sleep(10)
        finally:
            running.pop()

    async def main():
        with pytest.raises(LookupError, match="granted"):
            await race.run(Failing(), call)

    testing.run(main, backend=backend)
    assert not running


def test_of_a_group_an_interrupt_leaves_rather_than_a_cancellation():
    """Some versions of trio put what comes while a nursery waits for its children into a group."""
    interrupt, first = KeyboardInterrupt(), asyncio.CancelledError()
    assert leaf(first) is first
    assert leaf(BaseExceptionGroup("nursery", [first, asyncio.CancelledError()])) is first
    assert leaf(BaseExceptionGroup("", [first, BaseExceptionGroup("", [interrupt])])) is interrupt


# --- closing what nobody gets -----------------------------------------------------------------------------------------


class Result:
    def __init__(self, **closers):
        self.__dict__.update(closers)


@pytest.mark.parametrize("result", [None, 3, "text", Result, Result(close=None), Result(close=3)], ids=repr)
def test_what_has_nothing_to_close_is_left_alone(result):
    asyncio.run(race.discard(result))
    race_threads.discard(result)


def test_a_failure_to_close_is_of_no_interest():
    def fail():
        raise OSError("gone")

    asyncio.run(race.discard(Result(close=fail)))
    race_threads.discard(Result(close=fail))


def test_a_sync_caller_cannot_await_a_close_and_does_not_begin_it():
    async def close():
        raise AssertionError("nobody awaits it")

    race_threads.discard(Result(close=close))
    gc.collect()


def test_a_result_that_does_not_close_is_waited_for_five_seconds(backend):
    started = []

    async def forever():
        await clock.library_sleep(1e6)

    async def call():
        started.append(1)
        if len(started) == 2:
            return Result(aclose=forever)
        return "winner"

    async def main():
        before = clock.current().now()
        referee = FirstOf()
        await race.run(referee, call)
        assert clock.current().now() - before <= 5.0

    testing.run(main, backend=backend)


def test_a_result_that_was_won_is_closed_if_the_caller_is_cancelled_before_it_gets_it():
    closed = []

    async def call():
        return Result(close=lambda: closed.append(1))

    async def main():
        task = asyncio.create_task(race.run(FirstOf(1), call))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert closed == [1]

    testing.run(main)


def test_a_thread_that_comes_too_late_is_counted_until_it_ends():
    go, first = threading.Event(), []

    def call():
        if first:
            return "quick"
        first.append(threading.current_thread())
        go.wait(10.0)
        return None

    assert race_threads.run(FirstOf(), call, "attempt") == 1
    assert race_threads._abandoned == 1
    go.set()
    first[0].join(10.0)
    assert race_threads._abandoned == 0
