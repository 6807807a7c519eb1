"""One computation for all who ask at once, and what happens to it when they are cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings
import weakref
from contextvars import ContextVar

import anyio
import anyio.lowlevel
import pytest
import trio

import asyncguard as ag
from asyncguard import testing
from asyncguard.strategies.cache_result import CacheResult

CALLERS = 1000


class Work:
    """A slow function that knows how often it was called, finished and cancelled."""

    def __init__(self, error=None, seconds=1.0):
        self.started = self.finished = self.cancelled = 0
        self.error, self.seconds = error, seconds

    async def __call__(self, key: int) -> list[int]:
        self.started += 1
        try:
            await anyio.sleep(self.seconds)
        except BaseException:
            self.cancelled += 1
            raise
        self.finished += 1
        if self.error is not None:
            raise self.error
        return [key]


def cached(work, ttl=60.0, **options):
    cache = ag.cache_result(ttl, **options)

    async def slow(key: int) -> list[int]:
        return await work(key)

    return cache, cache(slow)


async def callers(fn, number=CALLERS, *, cancel=(), after=0.5):
    """Call `fn(1)` in many tasks at once, cancel some of them, return what each got."""
    outcomes = [None] * number
    scopes = [anyio.CancelScope() for _ in range(number)]

    async def one(at):
        with scopes[at]:
            try:
                outcomes[at] = await fn(1)
            except Exception as error:  # noqa: BLE001 - looked at by the test
                outcomes[at] = error
        if scopes[at].cancelled_caught:
            outcomes[at] = "cancelled"

    async with anyio.create_task_group() as group:
        for at in range(number):
            group.start_soon(one, at)
        await anyio.sleep(after)
        for at in cancel:
            scopes[at].cancel()
    return outcomes


def test_a_thousand_callers_of_one_cold_key_call_the_function_once(backend):
    work = Work()
    _, fn = cached(work)
    outcomes = testing.run(lambda: callers(fn), backend=backend)
    assert outcomes == [[1]] * CALLERS
    assert work.started == 1
    assert len({id(outcome) for outcome in outcomes}) == CALLERS  # a list of its own for each


@pytest.mark.parametrize("who", [0, 500, 999])
def test_cancelling_any_caller_costs_the_others_nothing(backend, who):
    work = Work()
    _, fn = cached(work)
    outcomes = testing.run(lambda: callers(fn, cancel=[who]), backend=backend)
    assert outcomes.pop(who) == "cancelled"
    assert outcomes == [[1]] * (CALLERS - 1)
    assert (work.started, work.cancelled) == (1, 0)


def test_cancelling_all_callers_cancels_the_work_and_poisons_nothing(backend):
    work = Work()
    cache, fn = cached(work)

    async def main():
        outcomes = await callers(fn, cancel=range(CALLERS))
        assert cache.info().in_flight == 0
        await anyio.lowlevel.checkpoint()
        cancelled = work.cancelled
        return outcomes, cancelled, await fn(1)

    outcomes, cancelled, after = testing.run(main, backend=backend)
    assert outcomes == ["cancelled"] * CALLERS
    assert (cancelled, work.started, after) == (1, 2, [1])


def test_with_on_abandon_finish_the_work_goes_on_for_nobody_and_is_stored(backend):
    work = Work()
    _, fn = cached(work, on_abandon="finish")

    async def main():
        await callers(fn, 3, cancel=range(3))
        await anyio.sleep(2)
        return await fn(1)

    assert testing.run(main, backend=backend) == [1]
    assert (work.started, work.finished, work.cancelled) == (1, 1, 0)


def test_an_error_goes_to_all_who_wait_is_not_stored_and_the_next_caller_starts_anew(backend):
    error = ValueError("no")
    work = Work(error)
    _, fn = cached(work)

    async def main():
        first = await callers(fn)
        second = await callers(fn, 2)
        return first, second

    first, second = testing.run(main, backend=backend)
    assert all(outcome is error for outcome in [*first, *second])
    assert work.started == 2
    depth, frame = 0, error.__traceback__
    while frame is not None:
        depth, frame = depth + 1, frame.tb_next
    assert depth < 30  # not a frame more for each of the thousand


def test_one_callers_timeout_does_not_bind_the_others(backend):
    work = Work(seconds=10.0)
    _, fn = cached(work)

    async def main():
        results = []

        async def patient():
            results.append(await fn(1))

        async with anyio.create_task_group() as group:
            with anyio.move_on_after(1):
                group.start_soon(patient)
                await fn(1)
        return results

    assert testing.run(main, backend=backend) == [[1]]
    assert work.started == 1


def test_the_flight_does_not_inherit_the_deadline_of_its_starter(backend):
    seen = []

    @ag.cache_result(60)
    async def fn(x):
        seen.append(ag.remaining())
        await anyio.sleep(3)
        return x

    hurried = ag.timeout(1)(fn)

    async def main():
        results = []

        async def patient():
            await anyio.sleep(0.5)
            results.append(await fn(1))

        async with anyio.create_task_group() as group:
            group.start_soon(patient)
            with pytest.raises(ag.CallTimeoutError):
                await hurried(1)
        return results

    assert testing.run(main, backend=backend) == [1]
    assert seen == [None]


def test_the_flight_runs_in_a_copy_of_the_context_of_its_starter(backend):
    variable: ContextVar[str] = ContextVar("variable", default="")

    @ag.cache_result(60)
    async def fn(x):
        seen = variable.get()
        variable.set("inside")
        return seen

    async def main():
        variable.set("outside")
        return await fn(1), variable.get()

    assert testing.run(main, backend=backend) == ("outside", "outside")


def test_recursion_on_the_own_key_is_an_error_and_not_a_deadlock(backend):
    @ag.cache_result(60)
    async def fn(x):
        await anyio.sleep(0.1)
        return await fn(x if x < 3 else 1)

    async def main():
        with pytest.raises(RecursionError, match="inside of its own computation"):
            await fn(1)

    testing.run(main, backend=backend)


def test_a_circle_round_a_corner_is_an_error_and_not_a_deadlock(backend):
    @ag.cache_result(60)
    async def fn(x):
        await anyio.sleep(0.1)
        return await fn(3 - x)

    async def main():
        errors = []

        async def call(x):
            with pytest.raises(RecursionError):
                await fn(x)
            errors.append(x)

        async with anyio.create_task_group() as group:
            group.start_soon(call, 1)
            group.start_soon(call, 2)
        return sorted(errors)

    assert testing.run(main, backend=backend) == [1, 2]


def test_recursion_to_other_keys_works(backend):
    @ag.cache_result(60)
    async def fibonacci(n):
        await anyio.lowlevel.checkpoint()
        return n if n < 2 else await fibonacci(n - 1) + await fibonacci(n - 2)

    assert testing.run(lambda: fibonacci(20), backend=backend) == 6765


def test_a_flight_that_started_before_an_invalidation_does_not_store(backend):
    work = Work()
    cache, fn = cached(work)

    async def main():
        async with anyio.create_task_group() as group:
            got = []

            async def call():
                got.append(await fn(1))

            group.start_soon(call)
            await anyio.sleep(0.5)
            cache.invalidate(1)
            group.start_soon(call)  # does not join what began before
            await anyio.sleep(0.1)
            assert work.started == 2
            await anyio.sleep(0.5)
            assert cache.get(1) is None  # the first has ended, and was not stored
        return got, cache.get(1)

    got, entry = testing.run(main, backend=backend)
    assert got == [[1], [1]]
    assert entry is not None


@pytest.mark.parametrize("how", ["clear", "tag"])
def test_clear_and_tags_also_void_what_is_in_flight(backend, how):
    work = Work()
    cache, fn = cached(work, tags="t")

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(fn, 1)
            await anyio.sleep(0.5)
            cache.clear() if how == "clear" else cache.invalidate_tag("t")
        return cache.get(1)

    assert testing.run(main, backend=backend) is None


def test_a_refresh_supersedes_what_is_in_flight(backend):
    versions = iter(["old", "new"])

    @ag.cache_result(60)
    async def fn(x):
        version = next(versions)
        await anyio.sleep(2 if version == "old" else 1)
        return version

    cache = ag.pipeline_of(fn)[CacheResult]

    async def main():
        got = []

        async def call():
            got.append(await fn(1))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await anyio.sleep(0.1)
            got.append(await cache.refresh(1))
        return got, await fn(1)

    assert testing.run(main, backend=backend) == (["new", "old"], "new")


def test_an_asyncio_caller_that_is_the_last_to_leave_waits_for_the_clean_up_of_the_work():
    order = []

    @ag.cache_result(60)
    async def fn(x):
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(1)
            order.append("cleaned up")

    async def main():
        task = asyncio.create_task(fn(1))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        order.append("left")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    testing.run(main)
    assert order == ["cleaned up", "left"]


def test_a_second_cancellation_ends_the_wait_for_the_clean_up():
    @ag.cache_result(60)
    async def fn(x):
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(1000)

    async def main():
        task = asyncio.create_task(fn(1))
        for _ in range(2):
            await asyncio.sleep(0.1)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return asyncio.get_running_loop().time()

    start = 1000.0
    assert testing.run(main) < start + 5


def test_a_function_that_raises_cancelled_error_by_itself_fails_like_the_bare_call():
    calls = []

    @ag.cache_result(60)
    async def fn(x):
        calls.append(x)
        raise asyncio.CancelledError

    async def main():
        with pytest.raises(asyncio.CancelledError):
            await fn(1)
        return asyncio.current_task().cancelling()

    assert testing.run(main) == 0
    assert calls == [1]


def test_a_flight_cancelled_by_a_third_party_is_asked_for_anew():
    calls = []

    @ag.cache_result(60)
    async def fn(x):
        calls.append(x)
        await asyncio.sleep(1)
        return x

    async def main():
        task = asyncio.create_task(fn(1))
        await asyncio.sleep(0.5)
        for other in asyncio.all_tasks() - {asyncio.current_task(), task}:
            other.cancel()
        return await task

    assert testing.run(main) == 1
    assert calls == [1, 1]


def test_a_flight_cancelled_by_a_third_party_before_its_first_step_is_asked_for_anew():
    calls = []

    @ag.cache_result(60)
    async def fn(x):
        calls.append(x)
        return x

    async def main():
        task = asyncio.create_task(fn(1))
        await asyncio.sleep(0)  # the flight has its task, which has not run yet
        (flight,) = asyncio.all_tasks() - {asyncio.current_task(), task}
        flight.cancel()
        return await task

    assert testing.run(main) == 1
    assert calls == [1]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_the_work_leaves_through_the_loop_and_nothing_is_said_about_it(kind):
    @ag.cache_result(60)
    async def fn(x):
        raise kind

    async def main():
        await fn(1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(kind):
            testing.run(main)
        gc.collect()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_the_work_reaches_the_caller_on_trio(kind):
    @ag.cache_result(60)
    async def fn(x):
        raise kind

    async def main():
        with pytest.raises(kind):
            await fn(1)

    trio.run(main)


def test_other_base_exceptions_reach_all_who_wait(backend):
    class Stop(BaseException):
        pass

    @ag.cache_result(60)
    async def fn(x):
        await anyio.sleep(1)
        raise Stop

    async def main():
        with pytest.raises(Stop):
            await fn(1)

    testing.run(main, backend=backend)


def test_a_loop_that_ends_with_a_flight_leaves_no_warning_and_no_poison(backend):
    @ag.cache_result(60, stale_while_revalidate=60)
    async def fn(x):
        await anyio.sleep(5 if cache.info().misses else 0)
        return x

    cache = ag.pipeline_of(fn)[CacheResult]

    async def leave_a_refresh():
        await fn(1)
        await anyio.sleep(70)
        assert await fn(1) == 1  # stale, and refreshed behind
        await anyio.sleep(0.1)
        assert cache.info().in_flight == 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        testing.run(leave_a_refresh, backend=backend)
        gc.collect()
    assert testing.run(lambda: fn(1), backend=backend) == 1


def test_a_cancellation_and_the_value_in_one_turn_cost_no_more_than_another_call():
    calls = []

    @ag.cache_result(60)
    async def fn(x):
        calls.append(x)
        await asyncio.sleep(1)
        return x

    async def main():
        task = asyncio.create_task(fn(1))
        await asyncio.sleep(0.5)
        loop = asyncio.get_running_loop()
        loop.call_at(loop.time() + 0.5, task.cancel)
        await asyncio.wait([task])
        return await fn(1)

    assert testing.run(main) == 1
    assert len(calls) <= 2


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12")
def test_it_works_with_eager_tasks():
    _, fn = cached(Work(seconds=0))

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        return await asyncio.gather(*[fn(1) for _ in range(10)])

    assert testing.run(main) == [[1]] * 10


class Tensor:
    """Something large that must not outlive the error it was part of."""


@pytest.mark.parametrize("suspends", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_a_miss_leaves_nothing_for_the_garbage_collector(fails, suspends):
    @ag.cache_result(60, max_entries=1)
    async def fn(x):
        if suspends:
            await asyncio.sleep(0)
        if fails:
            raise ValueError(x)
        return x

    async def misses(number):
        for x in range(number):
            with contextlib.suppress(ValueError):
                await fn(x)

    async def main():
        await misses(3)
        gc.collect()
        gc.disable()
        try:
            await misses(20)
            await asyncio.sleep(0)  # what is called when a task ends
            return gc.collect()
        finally:
            gc.enable()

    assert asyncio.run(main()) < 20  # not one thing for each miss


@pytest.mark.parametrize("kind", ["result", "items"])
@pytest.mark.parametrize("colour", ["asyncio", "trio", "sync"])
def test_an_error_that_was_dealt_with_keeps_nothing_of_the_function_alive(colour, kind):
    seen = []

    def fails(x):
        tensor = Tensor()
        seen.append(weakref.ref(tensor))
        raise ValueError(x)

    async def asynchronous(x):
        await anyio.lowlevel.checkpoint()
        return fails(x)

    cache = ag.cache_result(60) if kind == "result" else ag.cache_items(60, over="x")
    fn = cache(fails if colour == "sync" else asynchronous)

    async def main():
        for _ in range(2):
            with contextlib.suppress(ValueError):
                _ = fn([1]) if colour == "sync" else await fn([1])
        await anyio.lowlevel.checkpoint()
        return [ref() for ref in seen]

    gc.collect()
    gc.disable()
    try:
        assert testing.run(main, backend="trio" if colour == "trio" else "asyncio") == [None, None]
    finally:
        gc.enable()


def test_the_traceback_of_an_error_shows_the_function_and_not_the_flight(backend):
    @ag.cache_result(60)
    async def fn(x):
        raise ValueError(x)

    with pytest.raises(ValueError, match="1") as caught:
        testing.run(lambda: fn(1), backend=backend)
    assert caught.traceback[-1].name == "fn"
    ours = [entry.name for entry in caught.traceback if entry.path.name in {"calls.py", "flight_tasks.py"}]
    assert ours == ["fetch", "result"]


@pytest.mark.parametrize("then", ["nothing", "invalidate", "another call"])
def test_what_an_abandoned_work_brings_in_spite_of_its_cancellation_is_not_stored(backend, then):
    calls = []

    @ag.cache_result(600)
    async def fn(x):
        calls.append(x)
        mine = len(calls)
        if mine > 1:
            return mine
        try:
            await anyio.sleep(10)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)
            return "half of it"  # noqa: B012 - it swallows its own cancellation

    async def main():
        handle = ag.pipeline_of(fn)[CacheResult]
        async with anyio.create_task_group() as group:
            group.start_soon(leave)
            await anyio.sleep(2)
            if then == "invalidate":
                handle.invalidate(1)
            if then == "another call":
                assert await fn(1) == 2
        await anyio.sleep(20)
        return handle.get(1)

    async def leave():
        with anyio.move_on_after(0.5):
            await fn(1)

    found = testing.run(main, backend=backend)
    assert calls
    assert found.value == 2 if then == "another call" else found is None


def test_a_stale_value_answers_inside_of_its_own_refresh_since_nobody_would_wait(backend):
    inner = []

    @ag.cache_result(10, stale_while_revalidate=100)
    async def fn(x):
        await anyio.lowlevel.checkpoint()
        if inner:
            inner.append(await fn(x))
        return x

    async def main():
        await fn(1)
        await anyio.sleep(20)
        inner.append("refresh")
        assert await fn(1) == 1
        await anyio.sleep(1)

    testing.run(main, backend=backend)
    assert inner == ["refresh", 1]
