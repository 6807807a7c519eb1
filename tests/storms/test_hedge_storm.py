"""Hedged calls whose callers are cancelled at every step, twice too, and in a storm: no attempt is left behind.

Every attempt here awaits something while it cleans up, and every result has to be closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest
import trio

import asyncguard as ag
from asyncguard import testing
from tests.storms.arena import CANCELLED, in_threads, live_timers, on_asyncio, on_trio, on_uvloop, step

TURNS = 60  # after so many turns of the loop every call here is over


class Service:
    """Attempts that take some steps, fail or succeed, and clean up in two steps if they are cancelled.

    It counts the attempts under way, the cleanups that were cut off by another cancellation, and the open results.
    """

    def __init__(self, *plan):
        self.plan = plan  # of each attempt in turn: (steps, whether it fails)
        self._lock = threading.Lock()
        self.begun = self.running = self.cut = self.open = 0

    async def __call__(self, number=0):
        with self._lock:
            steps, fails = self.plan[self.begun % len(self.plan)]
            self.begun += 1
            self.running += 1
        try:
            for _ in range(steps):
                await step()
            if fails:
                raise ConnectionError
        except (asyncio.CancelledError, trio.Cancelled):
            await self._clean_up()
            raise
        finally:
            with self._lock:
                self.running -= 1
        with self._lock:
            self.open += 1
        return Result(self)

    async def _clean_up(self):
        self.cut += 1
        with trio.CancelScope(shield=True) if trio.lowlevel.in_trio_task() else contextlib.nullcontext():
            await step()
            await step()
        self.cut -= 1


class Result:
    def __init__(self, service):
        self._service = service

    async def aclose(self):
        try:
            await step()
        finally:  # a second cancellation of the caller cuts it off, as any cleanup of its own
            with self._service._lock:
                self._service.open -= 1


def always(**options):
    """A hedge whose budget is never what decides."""
    return ag.hedge(**{"delay": 0.0, "max_extra_load": 1.0, **options})


PLANS = {
    "the first wins": [(3, False), (9, False)],
    "the second wins": [(9, False), (3, False)],
    "both at once": [(3, False), (3, False)],
    "the first fails": [(2, True), (5, False)],
    "both fail": [(2, True), (4, True)],
}


async def cancelled_at(plan, first, second=None, **options):
    """Cancel a hedged call after `first` turns, and again after `second` more; tell whether it was still under way."""
    service = Service(*plan)
    task = asyncio.create_task(always(**options)(service.__call__)())
    for turns in (first, second):
        for _ in range(turns or 0):
            await asyncio.sleep(0)
        if turns is not None:
            task.cancel()
    await asyncio.wait([task])
    assert asyncio.all_tasks() == {asyncio.current_task()}, "an attempt was left behind"
    assert not live_timers()
    assert service.running == 0, "an attempt was not awaited"
    assert not service.cut or second is not None or task.cancelled(), "the cleanup of a loser was cut off"
    kept = not task.cancelled() and task.exception() is None
    assert service.open == kept, "a result that nobody got was not closed, or one that somebody got was"
    return task.cancelled()


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("hedges", [1, 3])
def test_cancelled_after_any_number_of_turns_it_leaves_nothing(plan, hedges):
    async def main():
        was = [await cancelled_at(PLANS[plan], turns, max_hedges=hedges) for turns in range(TURNS)]
        assert was[0] is True
        assert was[-1] is False
        assert was == sorted(was, reverse=True), "a cancellation was lost in between"

    testing.run(main)


@pytest.mark.parametrize("plan", PLANS)
def test_cancelled_twice_after_any_number_of_turns_it_leaves_nothing(plan):
    async def main():
        for first in range(16):
            for second in range(9):
                await cancelled_at(PLANS[plan], first, second)

    testing.run(main)


@pytest.mark.parametrize("plan", PLANS)
def test_on_trio_cancelled_at_any_checkpoint_it_leaves_nothing(plan):
    async def main():
        finished = 0
        for steps in range(TURNS):
            service = Service(*PLANS[plan])
            got = await _cancelled_on_trio(service, steps)
            assert service.running == 0
            assert service.open == len(got)
            finished += bool(got)
        assert finished or plan == "both fail"

    trio.run(main)


async def _cancelled_on_trio(service, steps):
    got, scope = [], trio.CancelScope()

    async def call():
        with scope:
            try:
                got.append(await always()(service.__call__)())
            except ConnectionError:
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        scope.cancel()
    return got


LOOPS = {"asyncio": [on_asyncio] * 4, "uvloop": [on_uvloop] * 4, "mixed": [on_asyncio, on_uvloop, on_trio, on_trio]}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOOPS)
def test_in_a_storm_no_attempt_result_or_permit_is_left(kind):
    """Four loops share a hedge around a bulkhead; three in ten of the callers are cancelled."""
    slots = ag.bulkhead(5, max_queue=2_000, max_wait=600.0)
    service = Service(*PLANS["the second wins"], *PLANS["the first fails"], *PLANS["both at once"])
    guarded = ag.guard(always(), slots)(service.__call__)
    kept = []

    async def call(number):
        kept.append(await guarded(number))
        return number

    ended = in_threads(*[start(call, 150, 0.3, seed) for seed, start in enumerate(LOOPS[kind])])
    outcomes = [each for some in ended for each in some]
    assert outcomes.count(CANCELLED) > 50
    assert all(each == CANCELLED or isinstance(each, int | ConnectionError) for each in outcomes)
    assert service.running == 0
    assert service.open == len(kept)
    assert slots.gate.idle()
