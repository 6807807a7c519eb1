"""A permit that comes free in the very moment in which its waiter queues is not left lying.

Taking and giving back take no lock, so that a release may see no queue and a newcomer no permit, each a moment before
the other has done its part.
"""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

import asyncguard as ag
from tests.storms.arena import DONE, in_threads

ALIKE = {
    "bulkhead": lambda: ag.bulkhead(1, max_wait=60.0),
    "adaptive": lambda: ag.adaptive_concurrency(initial=1, max_limit=1, max_wait=60.0),
}
GATES = {
    **ALIKE,
    "weighted": lambda: ag.bulkhead(1, weight=1, max_wait=60.0),
    "block": lambda: ag.guard(ag.circuit_breaker(), ag.bulkhead(1, max_wait=60.0)),
}


class Meanwhile(deque):
    """Where free slots lie; something happens between the look at the queue and the slot's coming back."""

    what = None

    def append(self, slot):
        what, self.what = self.what, None
        if what is not None:
            what()
        super().append(slot)


@pytest.mark.parametrize("kind", ALIKE)
def test_who_queues_while_a_slot_is_given_back_gets_it(kind):
    limit = ALIKE[kind]()
    gate = limit.gate
    gate.free = Meanwhile(gate.free)
    gate.take = gate.free.pop
    work = limit(_done)

    async def main():
        permit, tasks = gate.take(), []

        def queue_up():
            coroutine = work()
            coroutine.send(None)  # it waits now
            tasks.append(coroutine)

        gate.free.what = queue_up
        for spot in gate.release(permit):
            spot.wake()
        assert gate.offered, "nobody told the waiter: it would wait as long as it may"
        (coroutine,) = tasks
        with pytest.raises(StopIteration) as ended:
            coroutine.send(None)
        assert ended.value.value == DONE

    asyncio.run(main())
    assert gate.idle()


async def _done():
    return DONE


@pytest.mark.slow
@pytest.mark.parametrize("kind", GATES)
def test_threads_that_pass_one_permit_to_and_fro_never_stand_still(kind):
    work = GATES[kind]()(lambda: DONE)
    ended = in_threads(*[lambda: [work() for _ in range(2_000)]] * 3)
    assert ended == [[DONE] * 2_000] * 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", GATES)
def test_loops_that_pass_one_permit_to_and_fro_never_stand_still(kind):
    work = GATES[kind]()(_done)

    async def one_after_the_other():
        return [await work() for _ in range(2_000)]

    ended = in_threads(*[lambda: asyncio.run(one_after_the_other())] * 3)
    assert ended == [[DONE] * 2_000] * 3
