"""Deadlines give the verdicts of `asyncio.timeout` in every hard case, and bind what is started inside."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

import asyncguard as ag
from asyncguard import events, testing
from asyncguard._runtime import deadlines


def decorated(seconds):
    """Run a coroutine function under the decorator."""

    async def call(fn):
        return await ag.timeout(seconds)(ag.as_async(fn))()

    return call


def block(seconds):
    """Run a coroutine function in the block form."""

    async def call(fn):
        with ag.deadline(seconds):
            return await fn()

    return call


def standard(seconds):
    """The reference."""

    async def call(fn):
        async with asyncio.timeout(seconds):
            return await fn()

    return call


OURS = pytest.mark.parametrize("bounded", [decorated, block, standard], ids=["decorator", "block", "asyncio"])


@OURS
def test_nested_the_inner_fires(bounded):
    async def main():
        with pytest.raises(TimeoutError):
            await bounded(10)(lambda: bounded(1)(lambda: asyncio.sleep(5)))
        assert asyncio.current_task().cancelling() == 0

    testing.run(main)


@OURS
def test_nested_the_outer_fires_and_the_inner_does_not_claim_it(bounded):
    async def main():
        seen = []

        async def inner():
            try:
                await bounded(10)(lambda: asyncio.sleep(50))
            except BaseException as error:
                seen.append(type(error))
                raise

        with pytest.raises(TimeoutError):
            await bounded(1)(inner)
        assert seen == [asyncio.CancelledError]
        assert asyncio.current_task().cancelling() == 0

    testing.run(main)


@OURS
def test_an_outside_cancellation_wins_in_the_same_turn(bounded):
    async def main():
        async def work():
            await bounded(1)(lambda: asyncio.sleep(5))

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_at(asyncio.get_running_loop().time() + 1, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    testing.run(main)


@OURS
def test_a_timeout_error_of_the_function_is_not_ours(bounded):
    async def main():
        async def fn():
            raise TimeoutError("the driver's own")

        with pytest.raises(TimeoutError, match="the driver's own"):
            await bounded(1)(fn)

    testing.run(main)


@OURS
def test_a_swallowed_cancellation_returns_and_leaves_the_task_uncancelled(bounded):
    async def main():
        async def stubborn():
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                return "late"

        assert await bounded(1)(stubborn) == "late"
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(1)  # and nothing of it comes later

    testing.run(main)


@OURS
def test_another_error_in_answer_to_the_cancellation_passes(bounded):
    async def main():
        async def fn():
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                raise KeyError("clean-up failed") from None

        with pytest.raises(KeyError):
            await bounded(1)(fn)
        assert asyncio.current_task().cancelling() == 0

    testing.run(main)


@OURS
def test_a_task_group_inside(bounded):
    async def main():
        async def fn():
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(5))
                group.create_task(asyncio.sleep(6))

        with pytest.raises(TimeoutError):
            await bounded(1)(fn)
        assert asyncio.current_task().cancelling() == 0
        assert len(asyncio.all_tasks()) == 1

    testing.run(main)


@OURS
def test_inside_a_task_that_is_already_being_cancelled(bounded):
    async def main():
        async def work():
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                with pytest.raises(TimeoutError):
                    await bounded(1)(lambda: asyncio.sleep(5))
                raise

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1

    testing.run(main)


@OURS
def test_used_again_and_again_in_one_task(bounded):
    async def main():
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await bounded(1)(lambda: asyncio.sleep(5))
            assert await bounded(1)(lambda: asyncio.sleep(0.5, "ok")) == "ok"
        assert asyncio.current_task().cancelling() == 0

    testing.run(main)


@OURS
def test_the_same_moment_for_inner_and_outer(bounded):
    async def main():
        with pytest.raises(TimeoutError):
            await bounded(1)(lambda: bounded(1)(lambda: asyncio.sleep(5)))
        assert asyncio.current_task().cancelling() == 0

    testing.run(main)


# --- what the decorator adds ------------------------------------------------------------------------------------------


def test_it_works_on_real_time_on_one_timer_for_many_calls():
    @ag.timeout(0.02)
    async def fn(seconds):
        if seconds:  # who never waits is never late, however slow the machine is
            await asyncio.sleep(seconds)
        return seconds

    async def main():
        results = await asyncio.gather(*[fn(0 if i % 2 else 30) for i in range(200)], return_exceptions=True)
        assert [type(result) for result in results[:2]] == [ag.CallTimeoutError, int]
        assert sum(isinstance(result, ag.CallTimeoutError) for result in results) == 100
        timers = [handle for handle in asyncio.get_running_loop()._scheduled if "Expiries" in repr(handle)]
        assert len(timers) <= 1

    asyncio.run(main())


def test_the_error_says_who_and_how_long():
    @ag.timeout(2.5, name="embed deadline")
    async def fn():
        await asyncio.sleep(60)

    async def main():
        with pytest.raises(ag.CallTimeoutError, match=r"fn did not finish within 2\.5 s") as caught:
            await fn()
        assert caught.value.seconds == 2.5
        assert caught.value.strategy == "embed deadline"
        assert isinstance(caught.value, TimeoutError)

    testing.run(main)


def test_nothing_left_to_run_with_is_a_rejection_before_the_call(backend):
    called = []

    @ag.timeout(5)
    async def fn():
        called.append(1)

    async def main():
        with pytest.raises(TimeoutError), ag.deadline(1):
            try:
                await _sleep(2)
            finally:
                with pytest.raises(ag.DeadlineExceededError, match="was not called"):
                    await fn()
        assert not called

    testing.run(main, backend=backend)


async def _sleep(seconds):
    await deadlines.clocks.library_sleep(seconds)


def test_a_deadline_is_inherited_by_tasks_started_inside_while_it_is_open():
    async def main():
        seen = []

        async def child():
            seen.append(ag.remaining())
            await asyncio.sleep(3)
            seen.append(ag.remaining())

        with ag.deadline(10):
            task = asyncio.create_task(child())
            await asyncio.sleep(1)
        await task
        assert seen == [10, None], "a task that outlives the request is not bound by a deadline that is over"

    testing.run(main)


def test_an_earlier_deadline_of_another_task_bounds_a_call_of_ours():
    async def main():
        @ag.timeout(50)
        async def fn():
            await asyncio.sleep(20)

        async def child():
            with pytest.raises(ag.CallTimeoutError, match="before the deadline around it"):
                await fn()
            return asyncio.get_running_loop().time()

        start = asyncio.get_running_loop().time()
        with ag.deadline(5):
            task = asyncio.create_task(child())
            await asyncio.sleep(4)
            # The parent's own block is still open: wait without being cancelled by it.
            ended = await asyncio.shield(task) if task.done() else None
            assert ended is None
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(10)
            asyncio.current_task().uncancel()
        assert await task - start == 5

    testing.run(main)


def test_the_least_of_outer_and_own_is_what_remains(backend):
    async def main():
        assert ag.remaining() is None
        with ag.deadline(10):
            assert ag.remaining() == 10
            with ag.deadline(20):
                assert ag.remaining() == 10
            with ag.deadline(3):
                assert ag.remaining() == 3
                with ag.detached():
                    assert ag.remaining() is None
            assert ag.remaining() == 10
        assert ag.remaining() is None

    testing.run(main, backend=backend)


def test_a_swallowed_cancellation_is_reported(backend):
    async def stubborn():
        try:
            await _sleep(5)
        except BaseException:  # noqa: BLE001 - asyncio's and trio's cancellation
            return "late"

    async def main():
        with testing.record_events() as seen:
            assert await ag.timeout(1)(stubborn)() == "late"
        assert [type(event) for event in seen] == [events.CancellationSwallowed]

    testing.run(main, backend=backend)


def test_observe_reports_and_does_not_cancel(backend):
    @ag.timeout(1, mode="observe")
    async def fn():
        await _sleep(5)
        return "whole"

    async def main():
        with testing.record_events() as seen:
            assert await fn() == "whole"
        assert [(type(event), event.observed) for event in seen] == [(events.CallTimedOut, True)]

    testing.run(main, backend=backend)


def test_a_sync_function_is_checked_on_return_and_its_callees_see_the_deadline():
    with testing.virtual_clock() as clock:

        @ag.timeout(2)
        def fn(seconds):
            assert ag.remaining() == 2
            clock.advance(seconds)
            return "done"

        assert fn(1) == "done"
        with pytest.raises(ag.CallTimeoutError):
            fn(3)
        assert ag.remaining() is None


def test_a_sync_block_is_checked_at_its_end():
    with testing.virtual_clock() as clock:
        with pytest.raises(ag.CallTimeoutError), ag.deadline(2):
            clock.advance(3)
        with ag.deadline(2):
            clock.advance(1)


def test_loops_and_tasks_are_not_kept_alive():
    strategy = ag.timeout(30)

    @strategy
    async def fn(x):
        await asyncio.sleep(0)
        return x

    class Big:
        pass

    refs = []

    async def main():
        big = Big()
        refs.append(weakref.ref(big))
        await fn(big)
        refs.append(weakref.ref(asyncio.get_running_loop()))

    asyncio.run(main())
    gc.collect()
    assert [ref() for ref in refs] == [None, None]


def test_a_timer_does_not_keep_the_context_of_the_first_caller():
    import contextvars

    class Tenant:
        pass

    var = contextvars.ContextVar("tenant")

    @ag.timeout(3600)
    async def fn():
        await asyncio.sleep(0)

    async def main():
        async def with_tenant():
            tenant = Tenant()
            var.set(tenant)
            await fn()
            return weakref.ref(tenant)

        ref = await asyncio.create_task(with_tenant())
        await asyncio.sleep(0)  # the loop itself keeps the last task for one more turn
        gc.collect()
        assert ref() is None

    asyncio.run(main())


# --- thread=True ------------------------------------------------------------------------------------------------------


def test_in_a_thread_the_caller_leaves_and_the_work_keeps_its_permit_until_it_ends():
    go_on, begun, workers = threading.Event(), threading.Event(), []
    limit = ag.bulkhead(1, max_wait=0)

    @ag.guard(limit, ag.timeout(0.01, scope="attempt", thread=True))
    def fn():
        workers.append(threading.current_thread())
        begun.set()
        go_on.wait(60)

    with testing.record_events() as seen, pytest.raises(ag.CallTimeoutError):
        fn()
    assert [event.running for event in seen if isinstance(event, events.WorkAbandoned)] == [1]
    with pytest.raises(ag.BulkheadFullError):
        fn()
    assert begun.wait(60)
    go_on.set()
    workers[0].join(60)
    assert limit.gate.idle()


def test_in_a_thread_the_context_is_there_and_the_error_is_the_users():
    import contextvars

    var = contextvars.ContextVar("tenant", default="none")
    var.set("acme")

    @ag.timeout(30, thread=True)
    def fn(fail):
        if fail:
            raise LookupError("mine")
        return var.get(), ag.remaining() is not None

    assert fn(False) == ("acme", True)
    with pytest.raises(LookupError, match="mine"):
        fn(True)


def test_abandoned_work_still_sees_that_its_deadline_is_over():
    go_on, seen, done = threading.Event(), [], threading.Event()

    @ag.timeout(0.01, thread=True)
    def fn():
        go_on.wait(30)
        seen.append(ag.remaining())
        done.set()

    with pytest.raises(ag.CallTimeoutError):
        fn()
    go_on.set()
    assert done.wait(30)
    assert seen == [0.0]


# --- options and generators -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "3", None])
def test_bad_seconds_are_refused_at_decoration(seconds):
    with pytest.raises(ValueError, match="seconds must be a duration"):
        ag.timeout(seconds)


def test_other_bad_options_are_refused_at_decoration():
    with pytest.raises(ValueError, match="scope must be one of"):
        ag.timeout(1, scope="both")
    with pytest.raises(ValueError, match="idle must be a duration"):
        ag.timeout(1, idle=0)
    with pytest.raises(TypeError, match="first_item= bounds the items"):

        @ag.timeout(1, first_item=1)
        async def fn():
            """One result."""

    with pytest.raises(TypeError, match="thread=True runs a sync function"):

        @ag.timeout(1, thread=True)
        async def gn():
            """Async."""


@pytest.mark.parametrize(
    ("options", "pauses", "match"),
    [
        ({}, [1, 1, 1], None),
        ({}, [4, 4, 4], "did not finish within 10 s"),
        ({"first_item": 2}, [3, 0, 0], "gave no first item within 2 s"),
        ({"idle": 2}, [3, 1, 3], "gave no item within 2 s"),
        ({"idle": 2}, [3, 1, 1], None),
    ],
)
def test_an_async_generator_is_bounded_in_all_and_per_item(backend, options, pauses, match):
    closed = []

    @ag.timeout(10, **options)
    async def items():
        try:
            for pause in pauses:
                await _sleep(pause)
                yield pause
        finally:
            closed.append(True)

    async def main():
        got = []
        if match is None:
            async for item in items():
                got.append(item)
            assert got == pauses
        else:
            with pytest.raises(ag.CallTimeoutError, match=match):
                async for item in items():
                    got.append(item)
        assert closed == [True]
        assert ag.remaining() is None

    testing.run(main, backend=backend)


def test_the_time_of_the_consumer_counts_but_is_not_cut():
    @ag.timeout(10)
    async def items():
        yield 1
        yield 2

    async def main():
        with pytest.raises(ag.CallTimeoutError):
            async for _ in items():
                await asyncio.sleep(20)  # no cancellation reaches the consumer

    testing.run(main)
