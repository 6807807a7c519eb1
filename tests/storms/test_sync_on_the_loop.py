"""A sync caller on the thread of a running loop that would have to wait gets an error, not a deadlock."""

from __future__ import annotations

import asyncio

import anyio
import pytest
import trio
import uvloop

import asyncguard as ag
from tests.storms.arena import DONE
from tests.storms.test_stopped_loops import GATES, Work, idle
from tests.strategies.memory_machine import machine

__all__ = ["machine"]  # a fixture

pytestmark = pytest.mark.usefixtures("machine")

SYNC = {**GATES, "rate": lambda: ag.rate_limit("1/h burst 1", max_wait=1e6)}
RUNS = {
    "asyncio": asyncio.run,
    "uvloop": uvloop.run,
    "trio": lambda coroutine: trio.run(_awaited, coroutine),
}


async def _awaited(coroutine):
    return await coroutine


@pytest.mark.parametrize("gate", SYNC)
@pytest.mark.parametrize("run", RUNS)
def test_a_sync_caller_on_the_thread_of_a_loop_gets_an_error_and_no_deadlock(gate, run):
    guard = SYNC[gate]()
    work = Work(guard)

    async def hold(entered):
        with anyio.move_on_after(60) as scope:
            entered.append(scope)
            await work.guarded()

    async def main():
        entered = []
        async with anyio.create_task_group() as group:
            group.start_soon(hold, entered)
            while not work.running:
                await anyio.lowlevel.checkpoint()
            with pytest.raises(ag.BlockingWaitError, match="would block the event loop"):
                work.sync()
            with pytest.raises(ag.BlockingWaitError, match="would block the event loop"):
                work.sync()
            entered[0].cancel()
        return DONE

    assert RUNS[run](main()) == DONE
    if gate == "rate":
        assert "; 0 waiting" in guard.describe()[0]
        assert guard.peek() == pytest.approx(3600, abs=60)
    else:
        assert idle(guard)
