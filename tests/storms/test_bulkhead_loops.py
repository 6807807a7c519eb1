"""Four event loops in four threads, 400 jobs each, three in ten of them cancelled, and one bulkhead of three."""

from __future__ import annotations

import asyncio
import time

import pytest
import trio

import asyncguard as ag
from tests.storms.arena import (
    CANCELLED,
    DONE,
    Meter,
    in_threads,
    on_asyncio,
    on_trio,
    on_uvloop,
    step,
)

pytestmark = pytest.mark.slow

JOBS, SHARE = 400, 0.3
ROOM = {"max_queue": 4 * JOBS, "max_wait": 600.0}


def on_a_pool(job, jobs, share, seed):
    """Eight threads with their share of the jobs: a thread is not cancelled, so no job is."""
    del share, seed

    def run():
        numbers = [range(first, jobs, 8) for first in range(8)]
        ended = in_threads(*[lambda mine=mine: [job(number) for number in mine] for mine in numbers])
        return [each for some in ended for each in some]

    return run


KINDS = {
    "asyncio": [on_asyncio] * 4,
    "uvloop": [on_uvloop] * 4,
    "mixed": [on_asyncio, on_asyncio, on_trio, on_a_pool],
}


def storm(guard, kinds, weigh=lambda number: 1):
    """Run the jobs in `kinds` of loops at once; return the meter and how the jobs of each loop ended."""
    meter = Meter()

    @guard
    async def job(number):
        with meter.measured(weigh(number)):
            if number % 10 == 0 and not trio.lowlevel.in_trio_task():
                asyncio.current_task().cancel()  # one in ten as soon as it is inside
            for _ in range(1 + number % 3):
                await step()
        return DONE

    @guard
    def sync_job(number):
        with meter.measured(weigh(number)):
            time.sleep(0)
        return DONE

    jobs = [sync_job if kind is on_a_pool else job for kind in kinds]
    return meter, in_threads(*[kind(jobs[at], JOBS, SHARE, at) for at, kind in enumerate(kinds)])


def check_jobs(ended, kinds):
    """No job is lost: each came to its end, or was cancelled because somebody cancelled it."""
    for kind, each in zip(kinds, ended, strict=True):
        assert len(each) == JOBS
        assert set(each) <= {DONE, CANCELLED}
        cancelled = each.count(CANCELLED)
        assert 0 < cancelled <= (SHARE + 0.1) * JOBS if kind is not on_a_pool else not cancelled


def check_gate(gate):
    """Every permit is back, nobody waits, nothing is offered."""
    assert gate.idle()
    assert gate.waiting == len(gate.queue) == len(gate.offered) == len(gate._back) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_bulkhead_of_three_is_used_to_the_full_and_loses_nothing(kind):
    limit = ag.bulkhead(3, **ROOM)
    meter, ended = storm(limit, KINDS[kind])
    assert meter.peak == 3
    assert meter.inside == 0
    assert sorted(limit.gate.free) == [0, 1, 2]
    check_gate(limit.gate)
    check_jobs(ended, KINDS[kind])


@pytest.mark.parametrize("kind", ["asyncio", "mixed"])
def test_weighted_permits_are_all_given_back(kind):
    def weigh(number):
        return 1 + number % 3

    limit = ag.bulkhead(3, weight=weigh, **ROOM)
    meter, ended = storm(limit, KINDS[kind], weigh)
    assert meter.peak == 3
    assert limit.gate.taken == 0
    check_gate(limit.gate)
    check_jobs(ended, KINDS[kind])


@pytest.mark.parametrize("kind", ["asyncio", "mixed"])
def test_the_slots_of_an_adaptive_limit_are_all_given_back(kind):
    limit = ag.adaptive_concurrency(initial=3, min_limit=3, max_limit=3, **ROOM)
    meter, ended = storm(limit, KINDS[kind])
    assert meter.peak == 3
    assert len(limit.gate.free) + limit.gate.surplus == limit.gate.size
    check_gate(limit.gate)
    check_jobs(ended, KINDS[kind])


def test_a_block_of_gates_loses_nothing_of_any_of_them():
    """What the first gates gave comes back when a caller is cancelled at a later one."""
    breaker, outer, inner = ag.circuit_breaker(), ag.bulkhead(5, **ROOM), ag.bulkhead(3, **ROOM)
    rate = ag.rate_limit("1000000/s", max_wait=600.0)
    meter, ended = storm(ag.Pipeline(breaker, outer, inner, rate), KINDS["mixed"])
    assert meter.peak == 3
    for gate in (outer.gate, inner.gate):
        check_gate(gate)
        assert len(gate.free) == gate.size
    assert not rate.gate.queue
    assert breaker.state == "closed"
    check_jobs(ended, KINDS["mixed"])


@pytest.mark.parametrize("kind", ["asyncio", "mixed"])
def test_a_partition_of_each_loop_is_full_at_the_same_time(kind):
    limit = ag.bulkhead(3, partition=lambda number: number % 4, **ROOM)
    meter, ended = storm(limit, KINDS[kind])
    assert 3 < meter.peak <= 12
    for gate in limit.gates():
        check_gate(gate)
        assert sorted(gate.free) == [0, 1, 2]
    check_jobs(ended, KINDS[kind])
