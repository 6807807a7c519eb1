"""A thousand callers of one cold key, some of them cancelled; and what one cancellation costs among ten thousand."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Any

from cache_peers import CACHES, PLAIN

CALLERS = 1000
WAITERS = 10_000
PATIENCE = 3.0
CANCELLED = {"leader cancelled": slice(1), "waiter cancelled": slice(500, 501), "all cancelled": slice(None)}
CASES = ("ok", "raises", "leader cancelled", "waiter cancelled", "all cancelled")


@dataclass
class Outcome:
    """How often the function was called, how many callers were answered, and how the next call went."""

    calls: int
    served: int
    expected: int
    hung: int
    next_call: str

    @property
    def right(self) -> bool:
        return self.calls == 1 and self.served == self.expected and not self.hung and self.next_call == "ok"

    def __str__(self) -> str:
        hung = f", {self.hung} hang" if self.hung else ""
        after = "" if self.next_call == "ok" else f", next call: {self.next_call}"
        return f"{self.calls} / {self.served}{hung}{after}"


class Slow:
    """A function that takes a while, and fails if it is told to."""

    def __init__(self, *, fails: bool) -> None:
        self.calls, self.fails = 0, fails

    async def __call__(self, x: int) -> int:
        self.calls += 1
        await asyncio.sleep(0.05)
        if self.fails:
            raise ValueError(x)
        return x


async def _stampede(name: str, case: str) -> Outcome:
    slow = Slow(fails=case == "raises")

    async def fn(x: int) -> int:
        return await slow(x)

    cached = CACHES[name](fn, 1024)
    tasks = [asyncio.ensure_future(cached(1)) for _ in range(CALLERS)]
    await asyncio.sleep(0.02)
    cancelled = tasks[CANCELLED.get(case, slice(0))]
    for task in cancelled:
        task.cancel()
    done, pending = await asyncio.wait(tasks, timeout=PATIENCE)
    served = sum(_served(task, case) for task in done)
    for task in pending:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    calls, slow.fails = slow.calls, False
    return Outcome(calls, served, CALLERS - len(cancelled), len(pending), await _next(cached))


def _served(task: asyncio.Future[int], case: str) -> bool:
    if task.cancelled():
        return False
    error = task.exception()
    return isinstance(error, ValueError) if case == "raises" else error is None and task.result() == 1


async def _next(cached: Any) -> str:
    """Ask once more: the cancellation or the error of those before must not be what is cached."""
    task = asyncio.ensure_future(cached(1))
    done, _ = await asyncio.wait([task], timeout=PATIENCE)
    if not done:
        task.cancel()
        return "hangs"
    if task.cancelled():
        return "CancelledError"
    return "ok" if task.exception() is None else type(task.exception()).__name__


def stampedes(names: list[str]) -> dict[str, dict[str, Outcome]]:
    found: dict[str, dict[str, Outcome]] = {}
    for name in names:
        if name == PLAIN:
            continue
        found[name] = {}
        for case in CASES:
            with asyncio.Runner() as runner:
                runner.get_loop().set_exception_handler(lambda _loop, _context: None)  # what is left behind is counted
                found[name][case] = runner.run(_stampede(name, case))
    return found


async def _cancellations(name: str, number: int) -> float:
    """Return the microseconds of one cancellation: `cancel()` and the turns of the loop in which it is dealt with."""
    go = asyncio.Event()

    async def fn(x: int) -> int:
        await go.wait()
        return x

    cached = CACHES[name](fn, 1024)
    tasks = [asyncio.ensure_future(cached(1)) for _ in range(WAITERS)]
    for _ in range(5):
        await asyncio.sleep(0)
    samples: list[float] = []
    for task in tasks[WAITERS // 2 :][:number]:
        start = time.perf_counter_ns()
        task.cancel()
        while not task.done():  # noqa: ASYNC110 - the turns of the loop are what is measured
            await asyncio.sleep(0)
        samples.append((time.perf_counter_ns() - start) / 1000)
    go.set()
    await asyncio.wait(tasks, timeout=PATIENCE)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return statistics.median(samples)


def cancellations(names: list[str], number: int = 200) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in names:
        with asyncio.Runner() as runner:
            runner.get_loop().set_exception_handler(lambda _loop, _context: None)
            found[name] = runner.run(_cancellations(name, number))
    return found
