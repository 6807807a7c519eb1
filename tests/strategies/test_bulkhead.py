"""The bulkhead where calls differ, and where a call comes back to the bulkhead it is in."""

from __future__ import annotations

import asyncio
import sys
import threading

import anyio
import pytest

import asyncguard as ag
from asyncguard import testing
from asyncguard._runtime import clock as clocks


async def nap(seconds):
    await clocks.library_sleep(seconds)


async def together(*calls):
    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(call)
            await anyio.lowlevel.checkpoint()  # one after the other into the queue


def calling(fn, *args):
    async def call():
        await fn(*args)

    return call


def idle(limit):
    return all(gate.idle() for gate in limit.gates())


# --- priority ---------------------------------------------------------------------------------------------------------


def test_the_important_are_served_first(backend):
    limit = ag.bulkhead(1, priority=lambda name, level: level)
    order = []

    @limit
    async def work(name, level):
        order.append(name)
        await nap(0.1)

    async def main():
        await together(*[calling(work, *each) for each in [("a", 0), ("b", 0), ("c", 3), ("d", 9), ("e", 3)]])
        assert idle(limit)

    testing.run(main, backend=backend)
    assert order == ["a", "d", "c", "e", "b"]


def test_waiting_makes_up_for_priority(backend):
    limit = ag.bulkhead(1, priority=lambda name, level: level)
    order = []

    @limit
    async def work(name, level):
        order.append(name)
        await nap(6)

    async def late():
        await nap(5)
        await work("late and important", 4)

    async def main():
        await together(calling(work, "first", 0), calling(work, "patient", 0), late)

    testing.run(main, backend=backend)
    assert order == ["first", "patient", "late and important"]


def test_priority_in_threads():
    limit = ag.bulkhead(1, priority=lambda level: level, max_wait=60)
    order = []

    @limit
    def work(level):
        order.append(level)

    threads = [threading.Thread(target=work, args=(level,)) for level in (1, 30, 20)]
    with limit.permit(0):
        for number, thread in enumerate(threads, 1):
            thread.start()
            while limit.gate.waiting < number:
                threading.Event().wait(0.001)
    for thread in threads:
        thread.join(60)
    assert order == [30, 20, 1]
    assert limit.gate.idle()


@pytest.mark.parametrize("level", ["high", float("nan"), float("inf"), True, None])
def test_a_priority_that_is_no_number_is_an_error_of_the_caller(level):
    @ag.bulkhead(1, priority=lambda: level)
    def work():
        return 1

    with pytest.raises(TypeError, match="what priority= returns must be a finite number"):
        work()


# --- weight -----------------------------------------------------------------------------------------------------------


def test_calls_take_as_many_permits_as_they_weigh(backend):
    limit = ag.bulkhead(4, weight=lambda n: n)
    running, peak = 0, 0

    @limit
    async def work(n):
        nonlocal running, peak
        running += n
        peak = max(peak, running)
        await nap(1)
        running -= n

    async def main():
        await together(*[calling(work, n) for n in (1, 2, 3, 4, 1, 1, 2)])
        assert idle(limit)

    testing.run(main, backend=backend)
    assert peak == 4


def test_a_weight_that_can_never_fit_is_an_error_at_once():
    limit = ag.bulkhead(4, weight=lambda n: n, name="gpu")

    @limit
    def work(n):
        return n

    with pytest.raises(ValueError, match=r"gpu: the weight of a call must be an integer of 1\.\.4"):
        work(5)
    assert work(4) == 4
    assert limit.gate.idle()


def test_a_weight_can_be_given_for_a_block_and_corrected():
    limit = ag.bulkhead(4, weight=1)
    with limit.permit(cost=3) as permit:
        assert limit.describe() == ["3 of 4 permits taken, queue 0/40"]
        permit.reconcile(1)
        assert limit.gate.taken == 1
    with limit.permit():
        assert limit.gate.taken == 1


def test_a_weight_given_for_a_block_needs_no_arguments_of_the_function():
    limit = ag.bulkhead(4, weight=len)
    with limit.permit(cost=3):
        assert limit.gate.taken == 3
    assert limit.gate.idle()


def test_without_weights_a_cost_above_one_is_an_error():
    limit = ag.bulkhead(4)
    with pytest.raises(TypeError, match=r"cost=3 needs weighted permits: bulkhead\(..., weight=1\)"):
        limit.permit(cost=3)


def test_the_weight_is_corrected_from_inside_of_the_call():
    limit = ag.bulkhead(4, weight=4)

    @limit
    def work():
        ag.current_permit(limit).reconcile(2)
        return limit.gate.taken

    assert work() == 2
    assert limit.gate.idle()


def test_weights_of_generators_are_held_to_the_end_of_the_iteration(backend):
    limit = ag.bulkhead(4, weight=lambda n: n)

    @limit
    async def letters(n):
        yield "a"
        yield "b"

    async def main():
        seen = []
        async for _ in letters(3):
            seen.append(limit.core_here().single.taken)
        assert seen == [3, 3]
        assert idle(limit)

    testing.run(main, backend=backend)


def test_partitions_have_their_own_weights():
    limit = ag.bulkhead(2, weight=lambda model, n: n, partition=lambda model, n: model)

    @limit
    def work(model, n):
        return sorted(gate.taken for gate in limit.gates())

    with limit.permit("a", 2):
        assert work("b", 1) == [0, 1, 2]
    assert idle(limit)


def test_observe_lets_every_weight_in():
    limit = ag.bulkhead(2, weight=lambda n: n, mode="observe")

    @limit
    def work(n):
        return n

    with limit.permit(2):
        assert work(2) == 2
    assert work(99) == 99
    assert limit.gate.idle()


@pytest.mark.parametrize("steps", range(6))
def test_cancellation_of_a_waiter_at_every_step_loses_no_permit(steps):
    limit = ag.bulkhead(3, weight=lambda n: n, priority=lambda n: n)

    @limit
    async def work(n):
        await asyncio.sleep(1)

    async def main():
        tasks = [asyncio.create_task(work(n)) for n in (3, 2, 1, 3, 2)]
        await asyncio.sleep(0.5)
        asyncio.get_running_loop().call_later(0.5, tasks[1].cancel)
        for _ in range(steps):
            await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert tasks[3].exception() is tasks[4].exception() is None
        assert idle(limit)

    testing.run(main)


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0, 5, True, 1.5])
def test_a_weight_out_of_range_is_refused_at_decoration(weight):
    with pytest.raises(ValueError, match="weight must be an integer at least 1 and at most 4"):
        ag.bulkhead(4, weight=weight)


def test_an_async_option_is_refused_at_decoration():
    async def level(*args):
        return 1

    for option in ("priority", "weight"):
        with pytest.raises(TypeError, match=f"{option} must be a plain function"):
            ag.bulkhead(4, **{option: level})
    with pytest.raises(TypeError, match="priority must be a callable"):
        ag.bulkhead(4, priority=3)


def test_weights_are_not_switched_on_while_it_runs():
    limit = ag.bulkhead(4)
    with pytest.raises(ValueError, match="give one of them from the start"):
        limit.configure(weight=2)
    assert limit.options.weight is None
    weighted = ag.bulkhead(4, weight=1)
    weighted.configure(weight=3, max_concurrent=8)
    with weighted.permit(), weighted.override(weight=4), weighted.permit():
        assert weighted.describe() == ["7 of 8 permits taken, queue 0/80"]


# --- the same task again ----------------------------------------------------------------------------------------------

MESSAGE = "made from inside of a call that holds one: it would wait for itself"


def recursive(limit):
    @limit
    async def fn(depth):
        await nap(0.1)
        return 0 if depth == 0 else 1 + await fn(depth - 1)

    return fn


STRATEGIES = {
    "plain": lambda: ag.bulkhead(1, max_wait=600),
    "weighted": lambda: ag.bulkhead(2, weight=2, max_wait=600),
    "partition": lambda: ag.bulkhead(1, partition=lambda *args: "all", max_wait=600),
    "block": lambda: ag.guard(ag.bulkhead(1, max_wait=600), ag.circuit_breaker()),
    "judged": lambda: ag.guard(ag.circuit_breaker(), ag.timeout(900), ag.bulkhead(1, max_wait=600)),
    "stream": lambda: ag.guard(ag.bulkhead(1, max_wait=600), stream=True),
}


@pytest.mark.parametrize("kind", STRATEGIES)
@pytest.mark.parametrize("virtual", [True, False])
def test_a_call_from_inside_of_itself_is_refused_at_once(kind, virtual, backend):
    fn = recursive(STRATEGIES[kind]())

    async def main():
        assert await fn(0) == 0
        with pytest.raises(ag.BulkheadFullError, match=MESSAGE):
            await fn(1)
        assert await fn(0) == 0

    if virtual:
        testing.run(main, backend=backend)
    else:
        anyio.run(main, backend=backend)


def test_a_sync_call_from_inside_of_itself_is_refused_at_once():
    limit = ag.bulkhead(1, max_wait=600)

    @limit
    def fn(depth):
        return 0 if depth == 0 else 1 + fn(depth - 1)

    @limit
    def letters(depth):
        yield "a"
        yield from letters(depth - 1)

    with pytest.raises(ag.BulkheadFullError, match=MESSAGE):
        fn(1)
    with pytest.raises(ag.BulkheadFullError, match=MESSAGE):
        list(letters(2))
    with testing.virtual_clock(), pytest.raises(ag.BulkheadFullError, match=MESSAGE):
        fn(1)
    assert fn(0) == 0
    assert limit.gate.idle()


def test_a_block_inside_of_a_block_and_of_a_call_is_refused_at_once(backend):
    limit = ag.bulkhead(1, max_wait=600)

    @limit
    async def fn(then=None):
        if then is not None:
            async with then:
                """Never."""

    async def main():
        with pytest.raises(ag.BulkheadFullError, match=MESSAGE):
            await fn(limit.permit())
        async with limit.permit():
            with pytest.raises(ag.BulkheadFullError, match=MESSAGE):
                await fn()
            with pytest.raises(ag.BulkheadFullError, match=MESSAGE):
                async with limit.permit():
                    """Never."""
        await fn()
        assert not limit._blocks

    testing.run(main, backend=backend)


def test_with_a_free_permit_a_call_may_come_back(backend):
    fn = recursive(ag.bulkhead(3))

    async def main():
        assert await fn(2) == 2
        with pytest.raises(ag.BulkheadFullError, match=MESSAGE):
            await fn(3)

    testing.run(main, backend=backend)


def test_another_partition_is_another_bulkhead(backend):
    limit = ag.bulkhead(1, partition=lambda name: name, max_wait=5)

    @limit
    async def fn(name):
        return await fn("inner") if name == "outer" else name

    async def main():
        assert await fn("outer") == "inner"

        @limit
        async def once_more(name):
            return await once_more(name)

        with pytest.raises(ag.BulkheadFullError, match=MESSAGE):
            await once_more("outer")

    testing.run(main, backend=backend)


def test_a_task_that_was_started_inside_waits_for_its_turn(backend):
    limit = ag.bulkhead(1)
    done = []

    @limit
    async def inner():
        done.append("inner")

    @limit
    async def outer(group):
        group.start_soon(inner)
        await nap(1)
        done.append("outer")

    async def main():
        async with anyio.create_task_group() as group:
            await outer(group)

    testing.run(main, backend=backend)
    assert done == ["outer", "inner"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks start eagerly since 3.12")
def test_a_task_that_was_started_eagerly_is_another_task():
    limit = ag.bulkhead(1)
    done = []

    @limit
    async def inner():
        done.append("inner")

    @limit
    async def outer():
        task = asyncio.create_task(inner())
        await nap(1)
        done.append("outer")
        return task

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        await (await outer())

    testing.run(main)
    assert done == ["outer", "inner"]


def test_a_stream_that_is_still_open_is_no_caller():
    """Whoever reads it may be another task: the call waits, as long as it may."""
    limit = ag.bulkhead(1, max_wait=5)

    @limit
    async def letters():
        yield "a"
        yield "b"

    async def main():
        items = letters()
        assert await anext(items) == "a"
        asyncio.get_running_loop().call_later(2, lambda: asyncio.ensure_future(items.aclose()))
        async with limit.permit():
            """Let in when the stream is closed."""

    testing.run(main)


def test_observe_reports_a_call_from_inside_of_itself_as_any_other():
    fn = recursive(ag.bulkhead(1, mode="observe"))
    assert testing.run(lambda: fn(3)) == 3
