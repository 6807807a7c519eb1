"""The corners of running flights: loops that end, threads that are not to be had, works in other loops."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest
import trio

import asyncguard as ag
from asyncguard._machines.flight import Flights, State, Work
from asyncguard._runtime import deadlines, flight_tasks, flights, flights_sync, holds
from asyncguard._runtime.flights_sync import Background, ThreadHandle
from asyncguard._runtime.parking import ThreadSpot


def until(condition):
    late = time.monotonic() + 60
    while time.monotonic() < late:
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError("it never came true")


def in_thread(target):
    thread = threading.Thread(target=target)
    thread.start()
    return thread


def test_a_task_that_cannot_be_started_leaves_its_flight_lost():
    ended = []

    async def run():
        raise AssertionError("never runs")

    async def main():
        loop = asyncio.get_running_loop()

        def refuse(loop, coroutine, **options):
            raise RuntimeError("no more tasks")

        loop.set_task_factory(refuse)
        try:
            with pytest.raises(RuntimeError, match="no more tasks"):
                flights.start(Work(), run, ended.append)
        finally:
            loop.set_task_factory(None)

    asyncio.run(main())
    assert ended == [None]


@pytest.mark.parametrize("run", [asyncio.run, lambda main: trio.run(lambda: main)], ids=["asyncio", "trio"])
def test_the_work_of_a_flight_holds_no_permits_of_its_starter_and_is_not_bound_by_its_deadline(run):
    found = []

    @ag.cache_result(60)
    async def fn(x):
        found.append((holds.acquire(), ag.remaining()))

    async def main():
        scope = holds.Holds()
        scope.enter()
        deadlines.Deadline(600.0, time.monotonic()).set()
        await fn(1)
        assert ag.remaining() is not None
        scope.leave(lambda: found.append("left"))

    run(main())
    assert found == [(None, None), "left"]


def test_a_work_remembers_what_it_waits_for_only_while_it_does():
    waits = []

    @ag.cache_result(60)
    async def fn(x):
        if x:
            await fn(x - 1)
            waits.append(flights.inside().waits_for)
        else:
            await asyncio.sleep(0)

    asyncio.run(fn(2))
    assert waits == [[], []]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_asyncio_does_not_complain_about_an_interrupt_that_has_left_through_the_loop(kind):
    said = []

    @ag.cache_result(60)
    async def fn(x):
        raise kind

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, context: said.append(context["message"]))
    task = loop.create_task(fn(1))
    with pytest.raises(kind):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    gc.collect()
    loop.close()
    assert said == []


def test_stopping_a_work_that_has_not_begun_does_nothing():
    asyncio.run(flights.stop(Work()))


class Both:
    """One cached function, for asyncio and trio at once."""

    def __init__(self):
        self.calls, self.go = 0, threading.Event()
        self.cache = ag.cache_result(60)
        self.ended = []
        self.fn = self.cache(self.make())

    def make(self):
        async def fn(x: int) -> int:
            self.calls += 1
            sleep = trio.sleep if trio.lowlevel.in_trio_task() else asyncio.sleep
            try:
                while not self.go.is_set():
                    await sleep(0.001)
            finally:
                self.ended.append(sleep)
            return x

        return fn


def test_the_last_waiter_on_asyncio_cancels_the_work_on_trio():
    both, left = Both(), threading.Event()

    async def leads():
        with trio.move_on_after(60) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(both.fn, 1)
                await trio.to_thread.run_sync(until, lambda: both.cache.info().joined == 1)
                nursery.cancel_scope.cancel()
            left.set()
            await trio.to_thread.run_sync(until, lambda: both.ended)
        assert not scope.cancelled_caught

    async def follows():
        await asyncio.to_thread(until, lambda: both.calls == 1)
        task = asyncio.create_task(both.fn(1))
        await asyncio.to_thread(left.wait, 60)
        assert not both.ended
        task.cancel()
        await asyncio.wait([task])

    thread = in_thread(lambda: trio.run(leads))
    asyncio.run(follows())
    thread.join()
    assert both.ended == [trio.sleep]


def test_a_follower_of_a_trio_run_that_has_ended_leads_itself():
    both = Both()

    async def leads():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both.fn, 1)
            await trio.to_thread.run_sync(until, lambda: both.cache.info().joined == 1)
            nursery.cancel_scope.cancel()

    async def follows():
        await asyncio.to_thread(until, lambda: both.calls == 1)
        task = asyncio.create_task(both.fn(1))
        await asyncio.to_thread(until, lambda: both.calls == 2)
        both.go.set()
        return await task

    thread = in_thread(lambda: trio.run(leads))
    assert asyncio.run(follows()) == 1
    thread.join()


def test_a_trio_handle_of_a_run_that_is_over_is_dead_and_cannot_be_cancelled():
    handles = []

    async def main():
        handles.append(flight_tasks.TrioHandle(trio))

    trio.run(main)
    assert not handles[0].alive()
    handles[0].cancel()
    assert not handles[0].here()


def test_a_task_handle_of_a_closed_loop_cannot_be_cancelled_and_that_is_fine():
    async def main():
        handle = flight_tasks.TaskHandle(asyncio.get_running_loop(), lambda _error: None)
        handle.watch(asyncio.current_task())
        return handle

    handle = asyncio.run(main())
    handle.cancel()
    assert not handle.alive()


def test_a_waiter_looks_now_and_then_whether_the_work_in_another_loop_is_alive(monkeypatch):
    monkeypatch.setattr(flights, "_FOREIGN", 0.01)
    table, work = Flights(), Work()

    class Handle:
        looks = 0

        def cancel(self):
            pass

        def alive(self):
            self.looks += 1
            return self.looks < 3

    work.handle = Handle()
    from asyncguard._runtime.parking import async_spot

    async def main():
        spot = async_spot()
        flight, _ = table.join("k", spot, work=work)
        await flights.wait(table, [flight], spot)
        return flight.state

    assert asyncio.run(main()) is State.LOST
    work.handle.looks = 0


def test_a_thread_does_not_wait_for_a_dead_one(monkeypatch):
    table, work = Flights(), Work()
    spot = ThreadSpot()
    flight, _ = table.join("k", spot, work=work)

    def leader():
        work.handle = ThreadHandle(threading.current_thread())

    in_thread(leader).join()
    spot.wake()  # whatever woke it: it looks
    assert flights_sync.wait(table, [flight], spot)
    assert flight.state is State.LOST
    work.handle.cancel()


# --- refreshes in threads ---------------------------------------------------------------------------------------------


def test_refreshes_run_in_few_threads_and_too_many_are_lost_at_once():
    background, go, ran, ended = Background(), threading.Event(), [], []

    def run():
        go.wait(60)
        ran.append(threading.current_thread())

    for _ in range(100):
        background.submit(Work(), run, ended.append, 600.0)
    until(lambda: len(background._jobs) <= 60 or len(ended) > 30)
    go.set()
    until(lambda: len(ran) + len(ended) == 100)
    assert len(set(ran)) <= 4
    assert 0 < len(ended) < 40
    asyncio.run(background.aclose())
    assert not background._threads


def test_a_refresh_that_is_interrupted_does_not_end_its_thread():
    background, ran, ended = Background(), [], []

    def interrupted():
        raise SystemExit

    background.submit(Work(), interrupted, ended.append, 600.0)
    background.submit(Work(), lambda: ran.append(1), ended.append, 600.0)
    until(lambda: ran)
    assert ended == [None]
    asyncio.run(background.aclose())


def test_closing_drops_what_waits_and_says_so():
    background, go, ended = Background(), threading.Event(), []
    for _ in range(10):
        background.submit(Work(), lambda: go.wait(60), ended.append, 600.0)
    until(lambda: len(background._jobs) == 6)
    closer = in_thread(lambda: asyncio.run(background.aclose()))
    until(lambda: len(ended) == 6)
    go.set()
    closer.join()


def test_where_no_thread_is_to_be_had_the_refresh_is_lost(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    ended = []
    Background().submit(Work(), lambda: None, ended.append, 600.0)
    assert ended == [None]


def test_a_refresh_in_a_thread_that_hangs_is_not_counted_on_for_ever():
    assert ThreadHandle(threading.current_thread()).alive()
    assert ThreadHandle(None, 60.0).alive()
    assert not ThreadHandle(threading.current_thread(), 0.0).alive()


@pytest.mark.parametrize("hang", [1, 9], ids=["it hangs", "it waits behind others that hang"])
def test_who_waits_for_a_refresh_that_hangs_asks_anew_when_its_time_is_over(hang):
    background, go, table, ended = Background(), threading.Event(), Flights(), []
    for _ in range(hang):
        work, spot = Work(kept=True), ThreadSpot()
        flight, _ = table.join(object(), spot, work=work)
        background.submit(work, lambda: go.wait(60), ended.append, 0.01)
    try:
        assert flights_sync.wait(table, [flight], spot)
        assert flight.state is State.LOST
    finally:
        go.set()
        asyncio.run(background.aclose())


def test_closing_lets_the_loop_go_on_which_a_refresh_may_need(backend):
    background, begun, ended = Background(), threading.Event(), []

    async def main():
        send = call_soon(backend)
        go = threading.Event()

        def refresh():
            begun.set()
            send(go.set)
            assert go.wait(60)

        background.submit(Work(), refresh, ended.append, 60.0)
        begun.wait(60)
        await background.aclose()
        assert go.is_set()
        assert not background._threads

    asyncio.run(main()) if backend == "asyncio" else trio.run(main)
    assert not ended


def call_soon(backend):
    if backend == "asyncio":
        return asyncio.get_running_loop().call_soon_threadsafe
    return trio.lowlevel.current_trio_token().run_sync_soon
