"""The shared drivers of admission strategies: waiting, passing on, blocks, several loops, holds."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import threading
import time

import pytest

import asyncguard as ag
from asyncguard import events, testing
from asyncguard._machines.slots import Slots
from asyncguard._permits import HeldPermit
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import holds


async def nap(seconds):
    await clocks.library_sleep(seconds)


@contextlib.contextmanager
def taken(limit):
    """A permit that somebody else holds: a caller inside of its own permit would not even wait."""
    gate = limit.core_here().single
    permit = gate.take()
    try:
        yield
    finally:
        for spot in gate.release(permit):
            spot.wake()


def test_waiters_get_in_as_slots_come_free(backend):
    limit = ag.bulkhead(2)
    running, peak = 0, 0

    @limit
    async def work():
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await nap(1)
        running -= 1

    async def main():
        start = clocks.current().now()
        await _together([work] * 8)
        assert clocks.current().now() - start == pytest.approx(4)

    testing.run(main, backend=backend)
    assert peak == 2
    assert limit.gate.idle()


async def _together(fns):
    import anyio

    async with anyio.create_task_group() as group:
        for fn in fns:
            group.start_soon(fn)


def test_a_wait_ends_at_max_wait_with_the_numbers(backend):
    limit = ag.bulkhead(1, max_wait=2, name="embedder")

    async def main():
        with taken(limit):
            start = clocks.current().now()
            with pytest.raises(ag.BulkheadFullError, match="embedder: no permit came free in time") as caught:
                async with limit.permit():
                    """Never."""
            assert clocks.current().now() - start == pytest.approx(2)
            assert caught.value.strategy == "embedder"

    testing.run(main, backend=backend)
    assert limit.gate.idle()


def test_a_wait_ends_at_the_deadline_if_that_is_earlier(backend):
    limit = ag.bulkhead(1, max_wait=60)

    async def main():
        with taken(limit):
            start = clocks.current().now()
            with pytest.raises((ag.BulkheadFullError, ag.CallTimeoutError)), ag.deadline(3):
                async with limit.permit():
                    """Never."""
            assert clocks.current().now() - start == pytest.approx(3)

    testing.run(main, backend=backend)
    assert limit.gate.idle()


def test_waiting_is_reported(backend):
    limit = ag.bulkhead(1)

    @limit
    async def work():
        await nap(1)

    async def main():
        with testing.record_events() as seen:
            await _together([work, work])
        queued, admitted = seen
        assert (type(queued), queued.ahead) == (events.CallQueued, 0)
        assert (type(admitted), admitted.waited) == (events.CallAdmitted, pytest.approx(1))

    testing.run(main, backend=backend)


@pytest.mark.parametrize("steps", range(7))
def test_cancellation_of_a_waiter_at_every_step_loses_no_slot(steps):
    limit = ag.bulkhead(1)

    @limit
    async def work():
        await asyncio.sleep(1)

    async def main():
        tasks = [asyncio.create_task(work()) for _ in range(4)]
        await asyncio.sleep(0.5)
        asyncio.get_running_loop().call_later(0.5, tasks[1].cancel)  # in the turn in which it is granted the slot
        for _ in range(steps):
            await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert tasks[3].exception() is None

    testing.run(main)
    assert limit.gate.idle()


def test_a_sync_caller_waits_for_a_thread(backend):
    del backend
    limit = ag.bulkhead(1, max_wait=30)
    entered, go_on, order = threading.Event(), threading.Event(), []

    @limit
    def work(name):
        order.append(name)
        entered.set()
        go_on.wait(30)

    first = threading.Thread(target=work, args=("first",))
    first.start()
    assert entered.wait(30)
    second = threading.Thread(target=work, args=("second",))
    second.start()
    while not limit.gate.waiting:
        time.sleep(0.001)
    go_on.set()
    first.join(30)
    second.join(30)
    assert order == ["first", "second"]
    assert limit.gate.idle()


def test_a_sync_caller_on_the_thread_of_a_loop_gets_an_error_and_no_deadlock(backend):
    limit = ag.bulkhead(1)

    async def main():
        # On real time: on a virtual clock waiting is instant and blocks nothing.
        with taken(limit), pytest.raises(ag.BlockingWaitError, match="would block the event loop"), limit.permit():
            """Never."""

    if backend == "asyncio":
        asyncio.run(main())
    else:
        import trio

        trio.run(main)
    assert limit.gate.idle()


def test_four_loops_in_four_threads_share_one_bulkhead_with_cancellations():
    limit = ag.bulkhead(3, max_queue=2_000, max_wait=120)
    lock = threading.Lock()
    running, peak, done = 0, 0, 0

    @limit
    async def work():
        nonlocal running, peak, done
        with lock:
            running += 1
            peak = max(peak, running)
        try:
            await asyncio.sleep(0)
            with lock:
                done += 1
        finally:
            with lock:
                running -= 1

    async def loop_main(seed):
        rng = random.Random(seed)
        tasks = [asyncio.create_task(work()) for _ in range(400)]
        await asyncio.sleep(0)
        for task in tasks:
            if rng.random() < 0.3:
                task.cancel()
            if rng.random() < 0.1:
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)

    threads = [threading.Thread(target=asyncio.run, args=(loop_main(seed),)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a waiter was forgotten"
    assert peak == 3
    assert done >= 1_000
    assert limit.gate.idle()


def test_a_loop_that_stops_while_it_waits_swallows_nothing():
    limit = ag.bulkhead(1, max_wait=30)
    stopped = asyncio.new_event_loop()

    async def wait_for_ever():
        await limit.permit().__aenter__()

    async def main():
        block = limit.permit()
        await block.__aenter__()
        # The other loop queues first, and stops before it is served.
        thread = threading.Thread(target=_run_once, args=(stopped, wait_for_ever()))
        thread.start()
        thread.join(30)
        assert limit.gate.waiting == 1
        waiter = asyncio.create_task(limit.permit().__aenter__())
        await asyncio.sleep(0)
        await block.__aexit__(None, None, None)
        assert isinstance(await waiter, HeldPermit)

    asyncio.run(main())
    for task in asyncio.all_tasks(stopped):
        task.cancel()
    stopped.run_until_complete(asyncio.sleep(0))
    stopped.close()


def _run_once(loop, coroutine):
    loop.create_task(coroutine)
    loop.call_soon(lambda: loop.call_soon(lambda: loop.call_soon(loop.stop)))
    loop.run_forever()


def test_a_refused_block_gives_back_what_the_first_gate_gave():
    outer, inner = ag.bulkhead(5, name="outer"), ag.bulkhead(1, max_queue=0, name="inner")

    @outer
    @inner
    async def work():
        with pytest.raises(ag.BulkheadFullError, match="inner"):
            await work()
        return outer.gate.taken

    assert asyncio.run(work()) == 1
    assert outer.gate.idle()
    assert inner.gate.idle()


def test_a_partition_can_come_from_a_context_variable():
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant")
    limit = ag.bulkhead(1, max_queue=0, partition=tenant)

    with limit.permit():  # no value: a partition of its own
        tenant.set("a")
        with limit.permit(), pytest.raises(ag.BulkheadFullError), limit.permit():
            """Never."""
    assert all(gate.idle() for gate in limit.gates())


def test_observe_reports_and_lets_in():
    limit = ag.bulkhead(1, max_queue=0, mode="observe")
    with testing.record_events() as seen, limit.permit(), limit.permit():
        assert limit.gate.taken == 1
    assert [(type(event), event.observed) for event in seen] == [(events.CallRejected, True)]
    assert limit.gate.idle()


def test_a_hold_keeps_the_slot_after_the_call_has_returned():
    limit = ag.bulkhead(1, max_queue=0)

    @ag.guard(limit, stream=True)
    async def open_stream():
        return holds.acquire()

    async def main():
        hold = await open_stream()
        assert limit.gate.taken == 1
        hold.close()
        hold.close()
        assert limit.gate.idle()

    asyncio.run(main())
    assert holds.acquire() is None


def test_cost_of_a_block_without_a_cost_is_one():
    limit = ag.bulkhead(2)
    with limit.permit(cost=1):
        assert limit.gate.taken == 1
    assert limit.gate.idle()


def test_each_virtual_clock_has_a_state_of_its_own():
    limit = ag.bulkhead(1, max_queue=0)
    with limit.permit():
        with testing.virtual_clock(), limit.permit():
            assert limit.core_here() is not limit.core
        with pytest.raises(ag.BulkheadFullError), limit.permit():
            """Refused."""


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_concurrent": 0}, "max_concurrent must be an integer at least 1, got 0"),
        ({"max_concurrent": True}, "max_concurrent must be an integer"),
        ({"max_concurrent": 1.5}, "max_concurrent must be an integer"),
        ({"max_concurrent": 1, "max_queue": -1}, "max_queue must be an integer at least 0, got -1"),
        ({"max_concurrent": 1, "max_wait": -1}, "max_wait must be a duration"),
        ({"max_concurrent": 1, "max_wait": float("nan")}, "max_wait must be a duration"),
        ({"max_concurrent": 1, "mode": "maybe"}, "mode must be one of 'enforce', 'observe', 'off', got 'maybe'"),
    ],
)
def test_bad_options_are_refused_at_decoration(options, match):
    with pytest.raises(ValueError, match=match):
        ag.bulkhead(**options)


def test_options_of_the_wrong_type_are_refused_at_decoration():
    for options, match in [
        ({"partition": "host"}, "partition must be a callable"),
        ({"on_event": 3}, "on_event must be a callable"),
        ({"name": 3}, "name must be a non-empty string"),
    ]:
        with pytest.raises(TypeError, match=match):
            ag.bulkhead(1, **options)


def test_resizing_lets_waiters_in():
    limit = ag.bulkhead(1)

    async def main():
        async with limit.permit():
            waiter = asyncio.create_task(limit.permit().__aenter__())
            await asyncio.sleep(0)
            limit.configure(max_concurrent=2)
            await asyncio.wait_for(waiter, 30)

    asyncio.run(main())
    assert isinstance(limit.gate, Slots)
    assert limit.gate.size == 2
