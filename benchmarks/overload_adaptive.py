"""`adaptive_concurrency` on a simulated server, on virtual time: 200 clients that always have another call.

The server works on so many calls at once, each for 50 ms +- 20 %, and queues the rest, first come first served. The
best limit is the number it works on: below it throughput is lost, above it calls only queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

from asyncguard import testing
from asyncguard.strategies.adaptive_concurrency import adaptive_concurrency

CLIENTS, STEP, SETTLING = 200, 0.5, 15.0


@dataclass(frozen=True)
class Phase:
    """So many slots, so many seconds of work per call, until a time in seconds."""

    name: str
    slots: int
    base: float
    until: float


PHASES = [
    Phase("20 slots", 20, 0.05, 60.0),
    Phase("halved", 10, 0.05, 90.0),
    Phase("20 slots again", 20, 0.05, 120.0),
    Phase("half as fast", 20, 0.1, 150.0),
]


class ThrottledError(Exception):
    """The server's 429."""

    status = 429


@dataclass
class Sample:
    """What happened in one step: the limit at its end, calls done, and the seconds they took altogether."""

    at: float
    limit: int
    done: int
    seconds: float


@dataclass
class Run:
    """One simulation, step by step."""

    algorithm: str
    samples: list[Sample] = field(default_factory=list)


@dataclass
class Server:
    """Works on `slots` calls at once; refuses a call if `most_waiting` others wait already."""

    most_waiting: int
    slots: int = PHASES[0].slots
    base: float = PHASES[0].base
    running: int = 0
    queue: deque[asyncio.Future[None]] = field(default_factory=deque)
    random: random.Random = field(default_factory=lambda: random.Random(3))

    async def work(self) -> None:
        if self.running >= self.slots:
            await self._wait()
        else:
            self.running += 1
        await asyncio.sleep(self.base * self.random.uniform(0.8, 1.2))
        self.running -= 1
        while self.queue and self.running < self.slots:
            self.running += 1
            self.queue.popleft().set_result(None)

    async def _wait(self) -> None:
        if len(self.queue) >= self.most_waiting:
            await asyncio.sleep(0.005)
            raise ThrottledError
        turn = asyncio.get_running_loop().create_future()
        self.queue.append(turn)
        await turn


def simulate_adaptive(algorithm: str) -> Run:
    """Run all phases with "vegas", with "aimd" (the server answers 429 if 20 wait), or with "none"."""
    return testing.run(lambda: _simulate(Run(algorithm)))


async def _simulate(run: Run) -> Run:
    loop = asyncio.get_running_loop()
    start, server = loop.time(), Server(20 if run.algorithm == "aimd" else CLIENTS)
    limiter = None if run.algorithm == "none" else adaptive_concurrency(algorithm=run.algorithm, max_wait=60)
    sample = Sample(0.0, 0, 0, 0.0)

    async def timed() -> None:
        begun = loop.time()
        await server.work()
        sample.done, sample.seconds = sample.done + 1, sample.seconds + loop.time() - begun

    async def client(call) -> None:
        while True:
            with contextlib.suppress(ThrottledError):
                await call()

    call = timed if limiter is None else limiter(timed)
    clients = [asyncio.create_task(client(call)) for _ in range(CLIENTS)]
    for phase in PHASES:
        server.slots, server.base = phase.slots, phase.base
        while loop.time() - start < phase.until - 1e-6:
            await asyncio.sleep(STEP)
            sample.at, sample.limit = loop.time() - start, limiter.limit if limiter else CLIENTS
            run.samples.append(sample)
            sample = Sample(0.0, 0, 0, 0.0)
    for task in clients:
        task.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    return run


def summary(run: Run) -> list[dict[str, object]]:
    """One row per phase, of what it settled at: without the first seconds."""
    starts = [0.0, *(phase.until for phase in PHASES)]
    rows = []
    for phase, (begin, end) in zip(PHASES, pairwise(starts), strict=True):
        steps = [sample for sample in run.samples if begin + SETTLING < sample.at <= end + 1e-6]
        done = sum(sample.done for sample in steps)
        rows.append({
            "algorithm": run.algorithm,
            "phase": phase.name,
            "limit": round(sum(sample.limit for sample in steps) / len(steps)),
            "latency": round(1e3 * sum(sample.seconds for sample in steps) / done),
            "share": round(done / (len(steps) * STEP) / (phase.slots / phase.base), 4),
        })  # fmt: skip
    return rows
