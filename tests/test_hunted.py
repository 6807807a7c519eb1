"""Defects that a hunt found, each with the smallest case that shows it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import sys
import threading
import weakref
from types import SimpleNamespace

import pytest

import asyncguard as ag
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import deadlines
from asyncguard.strategies import _timeout_thread


def test_a_loop_that_runs_in_another_thread_is_not_taken_for_ours():
    inside, go = threading.Event(), threading.Event()

    @ag.timeout(60)
    async def is_ours():
        return deadlines.current().task is asyncio.current_task()

    async def busy():
        inside.set()
        assert go.wait(60)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(is_ours())  # the happy path now knows this loop, and this thread
    other = threading.Thread(target=lambda: loop.run_until_complete(busy()))
    other.start()
    assert inside.wait(60)
    try:
        assert asyncio.run(is_ours())
    finally:
        go.set()
        other.join()
        loop.close()


def test_a_timeout_does_not_keep_loops_that_were_left_in_the_middle(caplog):
    limit, loops, tasks = ag.timeout(60), [], weakref.WeakSet()

    @limit
    async def hangs():
        await asyncio.get_running_loop().create_future()

    async def leave_it():
        loops.append(weakref.ref(asyncio.get_running_loop()))
        tasks.add(asyncio.ensure_future(hangs()))
        await asyncio.sleep(0)

    with caplog.at_level(logging.CRITICAL, "asyncio"):  # it says that a task was destroyed
        for _ in range(3):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(leave_it())
            loop.close()
            del loop
        gc.collect()

    assert [loop() for loop in loops] == [None] * 3


def test_a_timer_that_fires_does_not_look_at_every_deadline_again():
    """Many calls hang, each since another moment, so the timer fires for each of them."""
    looked = []

    class Looked(dict):
        def __iter__(self):
            for each in super().__iter__():
                looked.append(each)
                yield each

    class Task:
        def cancelling(self):
            return 0

        def cancel(self):
            """Nothing runs."""

    async def main():
        expiries = deadlines.LoopTimers(clocks.REAL, 60.0).of(asyncio.get_running_loop())
        expiries.tasks = Looked()
        begun = [contextvars.Context().run(expiries.begin, Task()) for _ in range(100)]
        for each in begun:
            each.when = 0.0
            expiries._fire()
        assert all(each.expired for each in begun)
        assert len(looked) <= len(begun)

    asyncio.run(main())


def test_a_chain_of_tasks_does_not_keep_the_deadlines_of_all_those_before_it():
    seen = weakref.WeakSet()

    class Watched(deadlines.LoneDeadline):
        """One that can be referenced weakly."""

    async def link(left):
        deadline = Watched(60.0, clocks.REAL.now(), asyncio.current_task())
        seen.add(deadline)
        following = asyncio.create_task(link(left - 1)) if left else None
        await asyncio.sleep(0)  # the next one begins inside of ours
        deadline.close()
        del deadline
        if following is None:
            gc.collect()
            return len(seen)
        return await following

    assert asyncio.run(link(20)) <= 3


def test_a_time_limit_beyond_what_the_system_can_wait_for_is_no_error():
    waited = []
    work = SimpleNamespace(done=SimpleNamespace(wait=waited.append))
    _timeout_thread._wait_for(work, deadlines.Deadline(1e12, clocks.REAL.now()))
    assert waited == [threading.TIMEOUT_MAX]


def test_a_delay_beyond_what_the_system_can_sleep_is_no_error(monkeypatch):
    slept = []
    monkeypatch.setattr(clocks.time, "sleep", slept.append)
    clocks.REAL.sleep_sync(1e12)
    clocks.REAL.sleep_sync(2.0)
    assert slept == [1e9, 2.0]


class DelegatingError(Exception):
    """As those are that look everything up in a response they do not have yet."""

    def __getattr__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize("strategy", [ag.retry(on=DelegatingError, max_retries=1, initial_delay=0), ag.hedge(delay=0)])
def test_an_error_whose_attributes_cannot_be_read_leaves_as_it_is(strategy):
    @strategy
    def fails():
        raise DelegatingError

    with pytest.raises(DelegatingError):
        fails()


HUGE = 10**400  # no float


@pytest.mark.parametrize(
    "priority", [HUGE, -HUGE, float("nan"), float("inf"), True, "1"], ids=["huge", "less", "nan", "inf", "bool", "text"]
)
def test_a_priority_that_is_no_finite_number_is_said_to_be_none(priority):
    limit = ag.bulkhead(1, priority=lambda: priority)
    with pytest.raises(TypeError, match="what priority= returns must be a finite number"):
        limit(lambda: None)()
    assert limit.describe() == ["0 of 1 permits taken, queue 0/10"]


def test_an_async_function_in_call_sync_is_refused_before_anything_is_taken():
    limit = ag.rate_limit("1/h")

    async def answers():
        return 42

    with pytest.raises(TypeError, match=r"answers is async, and call_sync awaits nothing: await pipeline\.call"):
        ag.guard(limit).call_sync(answers)
    assert limit.describe() == ["1/h: 1 left; 0 waiting"]


BLOCKS = {"deadline": lambda: ag.deadline(60), "detached": ag.detached, "override": ag.retry().override}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_entered_once_and_is_no_decorator(name):
    block = BLOCKS[name]()

    async def work():
        """Would be made within the block, and run outside of it."""

    with pytest.raises(TypeError, match="block"):
        block(work)
    with block:
        pass
    with pytest.raises(RuntimeError, match=rf"entered once: write `with {name}\("), block:
        pass


def test_a_rate_lets_in_who_waits_on_a_loop_that_stood_still_meanwhile():
    limit = ag.rate_limit("50/s burst 1", max_wait=30)
    call = limit(asyncio.sleep)
    still, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        still.run_until_complete(call(0))
        task = still.create_task(call(0))
        still.run_until_complete(asyncio.sleep(0))
        other.run_until_complete(call(0))  # takes the place of who does not move
        still.run_until_complete(task)
    finally:
        still.close()
        other.close()
    assert limit.gate.idle() is False
    assert not limit.gate.queue


@pytest.mark.parametrize("leaves", [0, 1])
def test_who_waits_for_a_rate_that_is_changed_is_let_in_although_another_leaves(leaves):
    limit = ag.rate_limit("100/s burst 1", max_wait=30)
    call = limit(asyncio.sleep)

    async def main():
        await call(0)
        waiting = [asyncio.create_task(call(0, number)) for number in range(3)]
        await asyncio.sleep(0)
        limit.configure(rates="200/s burst 1")
        waiting.pop(leaves).cancel()
        assert await asyncio.gather(*waiting) == [number for number in range(3) if number != leaves]

    asyncio.run(main())


@pytest.mark.parametrize("rates", [("10/s burst 2",), ("10/s", "1000/s", "1000/min")])
def test_a_call_whose_cost_is_asked_while_the_rates_change_is_no_error(rates):
    def cost(tokens):
        limit.configure(rates=rates)  # as another thread may at this moment
        return tokens

    limit = ag.rate_limit("10/s", ag.Rate("100/s", cost=cost), max_wait=0.0)
    call = limit(lambda tokens: tokens)
    assert call(50) == 50
    limit.configure(rates=("10/s", ag.Rate("100/s", cost=lambda tokens: tokens)))
    with pytest.raises(ValueError, match="100/s"):
        call(101)


@pytest.mark.parametrize("strategy", [ag.bulkhead, lambda most: ag.adaptive_concurrency(initial=most, max_limit=most)])
@pytest.mark.parametrize("most", [sys.maxsize, 10**400], ids=["sys.maxsize", "10**400"])
def test_more_slots_than_memory_could_hold_are_refused_before_any_is_made(strategy, most):
    with pytest.raises(ValueError, match=r"an integer at least 1 and at most 1e\+06"):
        strategy(most)
    assert ag.bulkhead(80 * 2**30, weight=lambda: 2**30)(lambda: 1)() == 1, "permits are counted, not made"


LIMITS = {
    "slots": lambda **more: ag.bulkhead(2, max_wait=0, **more),
    "weighted": lambda **more: ag.bulkhead(2, weight=1, max_wait=0, **more),
    "adaptive": lambda **more: ag.adaptive_concurrency(initial=2, max_limit=2, max_wait=0, **more),
}
AROUND = {
    "alone": ag.Pipeline,
    "pair": lambda limit: ag.guard(ag.circuit_breaker(), limit),
    "block": lambda limit: ag.guard(ag.circuit_breaker(), limit, ag.rate_limit("1000/s")),
}


def room(strategy):
    """Return how many more calls the strategy lets in at once."""
    with contextlib.ExitStack() as inside:
        for count in range(9):
            try:
                inside.enter_context(strategy.permit())
            except ag.BulkheadFullError:
                return count
    return 9


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("limit", LIMITS)
def test_calls_of_the_parent_that_end_in_a_forked_child_give_back_nothing_there(limit, around):
    strategy = LIMITS[limit]()
    pipeline = AROUND[around](strategy)
    kept = pipeline(strategy.after_fork)

    @pipeline
    async def kept_async():
        strategy.after_fork()

    @pipeline
    def kept_items():
        yield strategy.after_fork()

    kept()
    assert room(strategy) == 2
    asyncio.run(kept_async())
    assert room(strategy) == 2
    assert len(list(kept_items())) == 1
    assert room(strategy) == 2
    with strategy.permit():
        strategy.after_fork()
    assert room(strategy) == 2
    assert strategy.gate.taken == 0


@pytest.mark.parametrize("limit", LIMITS)
def test_partitions_of_a_forked_child_hear_nothing_of_the_parents_calls(limit):
    strategy = LIMITS[limit](partition=lambda: "all")
    strategy(strategy.after_fork)()
    assert room(strategy) == 2


def test_a_probe_of_the_parent_that_ends_in_a_forked_child_decides_nothing_there():
    breaker = ag.circuit_breaker(half_open_calls=1, open_for=1e-9)
    breaker.open()
    breaker(breaker.after_fork)()
    assert breaker.state == "half_open"
    breaker(lambda: 1)()
    assert breaker.state == "closed"
