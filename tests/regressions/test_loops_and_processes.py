"""Made at import time, used from many event loops, some of them closed, and from forked processes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import warnings

import pytest

import asyncguard as ag
from asyncguard import events
from tests.drivers.cases import CASES, Case, case_ids


def no_loop(*_args, **_kwargs):
    raise RuntimeError("there is no event loop at import time")


@pytest.mark.parametrize("case", CASES, ids=case_ids)
def test_everything_is_made_at_import_time_without_a_loop(case: Case, monkeypatch):
    with monkeypatch.context() as patch:
        for name in ("get_event_loop", "get_running_loop", "new_event_loop"):
            patch.setattr(asyncio, name, no_loop)
            patch.setattr(asyncio.events, name, no_loop)
        strategy = case.make()

        @strategy
        async def function(x):
            return x

    assert [asyncio.run(function(x)) for x in range(2)] == [0, 1]


@pytest.fixture
def closed_loop():
    """A loop that is closed while tasks still wait in it; they are kept, so that no collector ends them early."""
    kept = []

    def close_with(coroutine, until):
        loop = asyncio.new_event_loop()
        kept.append((loop, loop.create_task(coroutine)))

        def look():
            loop.stop() if until() else loop.call_soon(look)

        loop.call_soon(look)
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        thread.join(60)
        assert not thread.is_alive(), "the task never came to wait"
        loop.close()

    yield close_with
    for _, task in kept:
        task._log_destroy_pending = False
        task.get_coro().close()


GATES = [
    pytest.param(lambda: ag.bulkhead(1, max_wait=600), id="bulkhead"),
    pytest.param(lambda: ag.bulkhead(1, weight=1, max_wait=600), id="weighted"),
    pytest.param(lambda: ag.adaptive_concurrency(initial=1, max_limit=1, max_wait=600), id="adaptive"),
]


@pytest.mark.parametrize("make", GATES)
def test_a_waiter_on_a_closed_loop_neither_raises_nor_keeps_the_permit(make, closed_loop):
    limit = make()

    @limit
    async def call(wait):
        await wait()
        return "served"

    async def main():
        go_on = asyncio.Event()
        first = asyncio.create_task(call(go_on.wait))
        await asyncio.sleep(0)
        await asyncio.to_thread(closed_loop, call(go_on.wait), lambda: limit.core.single.waiting == 1)
        second = asyncio.create_task(call(go_on.wait))
        await asyncio.sleep(0)
        go_on.set()
        assert [await first, await asyncio.wait_for(second, 60)] == ["served"] * 2
        assert await asyncio.wait_for(call(go_on.wait), 60) == "served"

    asyncio.run(main())


def test_a_turn_of_the_rate_on_a_closed_loop_goes_to_the_next(closed_loop):
    limit = ag.rate_limit("1/h burst 1", max_wait=1.5 * 3600)

    @limit
    async def call():
        """Rarely."""

    def waiting(count):
        return f"; {count} waiting" in limit.describe()[0]

    async def main():
        await call()
        await asyncio.to_thread(closed_loop, call(), lambda: waiting(1))
        heir = asyncio.create_task(call())
        await asyncio.sleep(0)
        assert not heir.done(), "the turn after the next is beyond max_wait"
        assert waiting(1)
        heir.cancel()
        await asyncio.wait([heir])

    asyncio.run(main())


def test_four_loops_with_300_calls_each_on_one_rate_all_come_through():
    """Lost wake-ups: 902 of 1,200 elsewhere, and then nothing."""
    limit = ag.rate_limit("100000/s burst 10", max_wait=60)
    made = []

    @limit
    async def call():
        made.append(1)

    async def main():
        await asyncio.gather(*(call() for _ in range(300)))

    threads = [threading.Thread(target=lambda: asyncio.run(main()), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == 1200, "somebody was forgotten"


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_three_forked_children_draw_different_jitter():
    """A generator made before the fork is the same in all of them: the workers come back together."""
    delays = []

    def hook(event):
        if isinstance(event, events.RetryScheduled):
            delays.append(event.delay)

    @ag.retry(max_retries=5, initial_delay=1e-6, max_delay=1e-4, budget=None, on_event=hook)
    def call():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        call()  # the parent has drawn from it already
    drawn = [tuple(_drawn_in_a_child(call, delays)) for _ in range(3)]
    assert [len(each) for each in drawn] == [5, 5, 5]
    assert len(set(drawn)) == 3


def _drawn_in_a_child(call, delays):
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left daemon threads
        child = os.fork()
    if child == 0:
        try:
            delays.clear()
            try:
                call()
            except ConnectionError:
                os.write(writing, json.dumps(delays).encode())
        finally:
            sys.stdout = sys.stderr = None
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)
