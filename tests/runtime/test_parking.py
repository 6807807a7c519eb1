"""Parked callers are woken from anywhere, at most once too often, never not at all."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest

from asyncguard import testing
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import parking


def test_a_wake_before_the_wait_is_not_lost(backend):
    async def main():
        spot = parking.async_spot()
        spot.wake()
        spot.wake()
        await spot.wait(math.inf)

    testing.run(main, backend=backend)


def test_a_wait_ends_by_itself_after_its_time(backend):
    async def main():
        spot = parking.async_spot()
        start = clocks.current().now()
        await spot.wait(5)
        assert clocks.current().now() - start == pytest.approx(5)
        await spot.wait(-1)

    testing.run(main, backend=backend)


@pytest.mark.parametrize("kind", ["asyncio", "trio"])
def test_it_is_woken_from_another_thread(kind):
    async def main():
        spot = parking.async_spot()
        threading.Thread(target=spot.wake).start()
        await spot.wait(30)
        return spot

    if kind == "asyncio":
        spot = asyncio.run(main())
    else:
        import trio

        spot = trio.run(main)
    assert not spot.alive()
    spot.wake()  # the loop is gone: nothing happens


def test_a_cancelled_wait_leaves_no_timer():
    async def main():
        spot = parking.async_spot()
        task = asyncio.create_task(spot.wait(60))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all(handle.cancelled() for handle in asyncio.get_running_loop()._scheduled)

    asyncio.run(main())


def test_a_thread_waits_and_is_woken():
    spot = parking.ThreadSpot()
    assert spot.alive()
    threading.Thread(target=spot.wake).start()
    spot.wait(30)
    spot.wait(0)
    spot.wake()
    spot.wait(math.inf)


def test_a_thread_that_ended_is_not_alive():
    spots = []
    thread = threading.Thread(target=lambda: spots.append(parking.ThreadSpot()))
    thread.start()
    thread.join()
    assert not spots[0].alive()


def test_on_a_virtual_clock_a_waiting_thread_moves_the_time():
    with testing.virtual_clock() as clock:
        spot = parking.ThreadSpot()
        start = clock.now()
        spot.wait(7)
        assert clock.now() - start == 7
        spot.wake()
        spot.wait(7)
        assert clock.now() - start == 7


def test_the_owner_is_the_task_or_the_thread(backend):
    assert parking.current_owner() == threading.get_ident()

    async def main():
        assert parking.current_owner() is parking.current_owner()
        assert parking.current_owner() != threading.get_ident()

    testing.run(main, backend=backend)


def test_a_stopped_loop_is_told_once_however_often_its_task_is_woken():
    loop = asyncio.new_event_loop()
    spots = []

    async def main():
        spots.append(parking.async_spot())

    loop.run_until_complete(main())
    before = len(loop._ready)
    for _ in range(100):
        spots[0].wake()
    assert len(loop._ready) == before + 1
    loop.close()
