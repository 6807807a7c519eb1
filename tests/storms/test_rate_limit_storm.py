"""One rate for many loops, threads and waiters: nothing is sold twice, nothing is lost, nobody is overtaken.

Real threads where the point is threads, virtual time where the point is time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

import anyio
import pytest

import asyncguard as ag
from asyncguard import testing
from asyncguard._runtime import clock as clocks
from tests.storms.arena import CANCELLED, DONE, in_threads, on_asyncio, on_trio, on_uvloop

JOBS, SHARE = 400, 0.3
LOOPS = {"asyncio": [on_asyncio] * 4, "uvloop": [on_uvloop] * 4, "mixed": [on_asyncio, on_asyncio, on_trio, on_uvloop]}


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize(("rate", "burst", "share"), [(100, 1000, 0.9), (20, 200, 1.0)])
def test_a_storm_loses_no_job_and_no_slot(kind, rate, burst, share):
    """As much is taken as a fresh limiter says that saw the calls that were made, to the nanosecond.

    Ten seconds' worth is taken before, so that it does not come to rest where the machine stands still for a while.
    """
    limit = ag.rate_limit(f"{rate}/s burst {burst}", max_wait=600.0)
    made = []

    @limit
    async def job(number):
        made.append(number)
        return DONE

    for _ in range(burst):
        limit.gate.take()
    line = limit.gate.lines[0]
    before = line.tat
    ended = in_threads(*[start(job, JOBS, share, seed) for seed, start in enumerate(LOOPS[kind])])
    assert [len(each) for each in ended] == [JOBS] * 4
    assert {each for some in ended for each in some} == {DONE, CANCELLED}
    assert sum(each.count(CANCELLED) for each in ended) >= share * JOBS
    assert sum(each.count(DONE) for each in ended) == len(made)
    assert "; 0 waiting" in limit.describe()[0]
    assert line.tat == before + len(made) * line.interval


@pytest.mark.slow
def test_a_partition_that_is_stormed_never_delays_another():
    """Twelve hundred wait for the one, and none of the four hundred of the other waits."""
    limit = ag.rate_limit("1/h burst 400", max_wait=1e6, partition=lambda key, number: key)
    starts = []

    @limit
    async def job(key, number):
        starts.append(key)
        return DONE

    def calling(key):
        async def call(number):
            return await job(key, number)

        return call

    with testing.record_events() as seen:
        ended = in_threads(
            *[start(calling("a"), JOBS, 1.0, seed) for seed, start in enumerate([on_asyncio, on_uvloop, on_trio])],
            on_asyncio(calling("b"), JOBS, 0.0, 4),
        )
    assert ended[3] == [DONE] * JOBS
    assert sum(each.count(DONE) for each in ended[:3]) == starts.count("a") <= 401
    assert {event.partition for event in seen} == {"a"}


@pytest.mark.slow
def test_threads_and_loops_together_sell_no_token_twice():
    limit = ag.rate_limit("1/h burst 1000", max_wait=0.0)
    made = []

    @limit
    async def job(number):
        made.append(number)

    @limit
    def sync_job():
        made.append(None)

    def pound():
        for _ in range(JOBS):
            with contextlib.suppress(ag.RateLimitedError):
                sync_job()

    in_threads(*[start(job, JOBS, SHARE, seed) for seed, start in enumerate(LOOPS["mixed"])], pound, pound)
    assert len(made) == 1000


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_20_per_second_are_20_per_second_whoever_of_30_waiters_is_cancelled(seed, backend):
    """Who is left starts in the order of arrival, every 50 ms: not one slot is lost, whenever the others leave."""
    limit = ag.rate_limit("20/s burst 1")
    rng = random.Random(seed)
    leaves = {number: rng.uniform(0.0, 0.9) for number in rng.sample(range(1, 31), 9)}
    starts = []

    @limit
    async def call(number):
        starts.append((clocks.current().now(), number))

    async def one(number):
        with anyio.move_on_after(leaves.get(number, 60.0)):
            await call(number)

    async def main():
        zero = clocks.current().now()
        async with anyio.create_task_group() as group:
            for number in range(31):
                group.start_soon(one, number)
                await anyio.lowlevel.checkpoint()
        return [when - zero for when, _ in starts]

    times = testing.run(main, backend=backend)
    order = [number for _, number in starts]
    assert order == sorted(order)
    assert set(range(31)) - set(order) <= set(leaves)
    assert times == pytest.approx([0.05 * i for i in range(len(times))], abs=1e-6)


def test_a_partition_with_30_waiters_never_delays_one_with_none(backend):
    limit = ag.rate_limit("20/s burst 1", partition=lambda key: key)
    starts = {"a": [], "b": []}

    @limit
    async def call(key):
        starts[key].append(clocks.current().now())

    async def main():
        zero = clocks.current().now()
        async with anyio.create_task_group() as group:
            for _ in range(31):
                group.start_soon(call, "a")
            for _ in range(10):
                await call("b")
                await anyio.sleep(0.05)
        return zero

    zero = testing.run(main, backend=backend)
    assert [when - zero for when in starts["a"]] == pytest.approx([0.05 * i for i in range(31)])
    assert [when - zero for when in starts["b"]] == pytest.approx([0.05 * i for i in range(10)])


def over_the_rate(times, rate, burst):
    """Return by how many calls the fullest span of time breaks the rule of the page, 0 if none does.

    The rule: in any span no more starts than the burst, what grows back in that span, and one call.
    """
    worst = 0.0
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            allowed = burst + rate * (times[last] - begin) + 1
            worst = max(worst, last - first + 1 - allowed)
    return round(worst, 6)


def queue_then_open(pipeline, *, seed, backend, stall=0.0):
    """A call fills the bulkhead for 5 s while 80 others queue, 24 of which leave; return when calls were made."""
    rng = random.Random(seed)
    leaves = {number: rng.uniform(0.0, 12.0) for number in rng.sample(range(80), 24)}
    times = []

    @pipeline
    async def call(seconds):
        times.append(clocks.current().now())
        if stall and len(times) in {20, 40}:  # the loop is busy
            await asyncio.sleep(0)
            clocks.current().advance(stall)
        await clocks.library_sleep(seconds)

    async def one(number):
        with anyio.move_on_after(leaves.get(number, 600.0)):
            await call(rng.choice([0.0, 0.01, 0.3]))

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(call, 5.0)
            await anyio.sleep(0.1)
            for number in range(80):
                group.start_soon(one, number)

    testing.run(main, backend=backend)
    return times


@pytest.mark.parametrize("burst", [1, 3, 10])
@pytest.mark.parametrize("slots", [1, 3])
def test_behind_a_full_bulkhead_no_second_sees_more_than_the_rate(slots, burst, backend):
    waits = {"max_queue": 200, "max_wait": 600.0}
    for seed in range(3):
        limit = ag.rate_limit(f"10/s burst {burst}", max_wait=600.0)
        gates = [ag.bulkhead(slots, **waits), limit]
        times = queue_then_open(ag.guard(*gates), seed=seed, backend=backend)
        assert len(times) >= 57
        assert over_the_rate(times, 10, burst) == 0.0
        assert over_the_rate(times, 10, burst - 1) <= 0.0  # the one call more is for loops that were busy


@pytest.mark.parametrize("burst", [1, 3])
def test_nor_after_the_loop_was_busy_for_a_while(burst):
    gates = [ag.bulkhead(3, max_queue=200, max_wait=600.0), ag.rate_limit(f"10/s burst {burst}", max_wait=600.0)]
    times = queue_then_open(ag.guard(*gates), seed=1, backend="asyncio", stall=1.0)
    assert over_the_rate(times, 10, burst) == 0.0


def test_tokens_paid_in_front_of_a_queue_do_burst_out_of_it_and_the_order_is_warned_of():
    """What the guard's order is for; also shows that the tests above could fail."""
    limit, slots = ag.rate_limit("10/s burst 1", max_wait=600.0), ag.bulkhead(1, max_queue=200, max_wait=600.0)
    wrong = ag.Pipeline(limit, slots)
    with pytest.warns(UserWarning, match="burst out of it"):
        times = queue_then_open(wrong, seed=0, backend="asyncio")
    assert over_the_rate(times, 10, 1) > 3
