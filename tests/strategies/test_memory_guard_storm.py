"""Threads, event loops and processes on one ledger, with calls cancelled and processes killed at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncguard as ag
from asyncguard._machines.ledger import Ledger
from asyncguard._runtime import shared_ledger
from asyncguard._runtime.shared_ledger import SharedLedger
from tests.strategies.memory_machine import LIMIT, Machine, install, machine

__all__ = ["machine"]  # a fixture

ROOT = Path(__file__).parents[2]


def at_rest(ledger: Ledger) -> bool:
    ledger.look(ledger.clock() + 1.0, anew=True)
    return ledger.standing() == (0, 0) and not ledger.queue and not ledger.left and ledger.told == 0


class Load:
    """Counts what is promised by hand, under a lock of its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.held = self.most = 0

    @contextlib.contextmanager
    def hold(self, size: int) -> Any:
        with self.lock:
            self.held += size
            self.most = max(self.most, self.held)
        try:
            yield
        finally:
            with self.lock:
                self.held -= size


def test_threads_and_loops_together_never_hold_more_than_there_is(machine: Machine, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        table = SharedLedger(lambda: "box", tmp_path)
        patch.setattr(shared_ledger, "_shared", table)
        guard = ag.memory_guard(0.9, estimate=lambda size: size, max_wait=60.0)
        load = Load()

        @guard
        def work(size: int) -> None:
            with load.hold(size):
                threading.Event().wait(random.random() / 2000)

        @guard
        async def work_async(size: int) -> None:
            with load.hold(size):
                await asyncio.sleep(random.random() / 500)

        def thread(seed: int) -> None:
            sizes = random.Random(seed)
            for _ in range(30):
                contextvars.Context().run(work, sizes.randint(1, 600))

        async def loop(seed: int) -> None:
            sizes = random.Random(seed)
            tasks = [asyncio.ensure_future(work_async(sizes.randint(1, 600))) for _ in range(60)]
            await asyncio.sleep(0.01)
            for task in sizes.sample(tasks, 30):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        threads = [threading.Thread(target=thread, args=(seed,)) for seed in range(4)]
        threads += [threading.Thread(target=lambda seed=seed: asyncio.run(loop(seed))) for seed in range(2)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(120.0)
        assert not any(each.is_alive() for each in threads)
        assert load.most <= 0.9 * LIMIT
        assert at_rest(guard.gate.ledger)
        near = guard.gate.ledger.near
        assert near is not None
        assert near.total() == 0
        table.close()


@given(st.lists(st.tuples(st.integers(1, 800), st.sampled_from(["end", "fail", "cancel", "leave"])), max_size=40))
def test_however_calls_of_several_threads_end_nothing_is_left(calls: list[tuple[int, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        guard = ag.memory_guard(0.9, estimate=lambda size, _: size, max_wait=60.0)

        @guard
        async def call(size: int, end: str) -> None:
            await asyncio.sleep(0)
            if end == "fail":
                raise ValueError(size)

        async def main(mine: list[tuple[int, str]]) -> None:
            tasks = [asyncio.ensure_future(call(size, end)) for size, end in mine]
            for turn, (task, (_, end)) in enumerate(zip(tasks, mine, strict=True)):
                if turn % 3 == 0:
                    await asyncio.sleep(0)
                if end == "cancel":
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        threads = [threading.Thread(target=lambda part=part: asyncio.run(main(calls[part::3]))) for part in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(60.0)
        assert not any(each.is_alive() for each in threads)
        assert at_rest(guard.gate.ledger)


HOLDER = """
import asyncio, sys
from pathlib import Path
from asyncguard._runtime import shared_ledger
shared_ledger._shared = shared_ledger.SharedLedger(lambda: "box", Path(sys.argv[1]))
import asyncguard as ag
from asyncguard._runtime import memory_probe
half = memory_probe.shared().read().binding().limit // 2
guard = ag.memory_guard(estimate=lambda size: size, max_wait=600.0)
@guard
async def hold(size):
    if size < half:
        print("held", flush=True)
    await asyncio.sleep(600)
async def main():
    await asyncio.gather(hold(1000), *(hold(half) for _ in range(20)))
asyncio.run(main())
"""


def test_processes_killed_while_they_hold_and_wait_leave_nothing(tmp_path: Path) -> None:
    table = SharedLedger(lambda: "box", tmp_path)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        for each in running:
            assert each.stdout is not None
            assert each.stdout.readline() == "held\n"
        near = table.connect()
        assert near is not None
        assert near.elsewhere(0.0).promised >= 3000
        assert table.processes() == 3
    finally:
        for each in running:
            each.send_signal(signal.SIGKILL)
            each.communicate()
    table._due = 0.0
    assert table.connect() is near
    assert (near.total(), table.processes()) == (0, 0)
    table.close()
