"""A retry storm: a service stands still for five seconds, and its callers' retries keep it from ever coming back.

The service takes 100 calls/s, one after the other, and does not know that a caller has left: whatever lies in its
queue costs ten milliseconds. 50 calls/s arrive, each attempt has a second, and up to five retries. After the outage the
queue is longer than a second: every answer comes too late, and every call is made six times. That is a metastable
failure (Bronson et al., HotOS 2021): the trigger is gone and the overload feeds itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, deque
from dataclasses import dataclass, field

from asyncguard import CallTimeoutError, RetryBudget, guard, retry, testing, timeout

SECONDS, OUTAGE = 80, (10.0, 15.0)
ARRIVALS, CAPACITY = 50, 100  # per second
BACK_AFTER = 45  # seconds from the start until which a system may need to be back


@dataclass
class Storm:
    """Calls that arrived, requests that reached the service, and calls that succeeded, in each second."""

    arrived: Counter[int] = field(default_factory=Counter)
    requests: Counter[int] = field(default_factory=Counter)
    succeeded: Counter[int] = field(default_factory=Counter)

    def row(self) -> dict[str, int | float | None]:
        tail = range(SECONDS - 10, SECONDS)
        return {
            "back_at": self.back_at(),
            "requests_per_call": round(self.requests.total() / self.arrived.total(), 2),
            "succeeded": round(self.succeeded.total() / self.arrived.total(), 3),
            "requests_per_second_at_the_end": sum(self.requests[second] for second in tail) / len(tail),
            "succeeded_per_second_at_the_end": sum(self.succeeded[second] for second in tail) / len(tail),
        }

    def back_at(self) -> int | None:
        """Return the first second from which on at least nine of ten calls succeed; None: never."""
        after = range(int(OUTAGE[1]), SECONDS)
        back = [second for second in after if self.succeeded[second] >= 0.5 * ARRIVALS]
        late = [second for second in after if second not in back]
        return next((second for second in back if not late or second > late[-1]), None)


def recovered(row: dict[str, object]) -> bool:
    return row["back_at"] is not None and row["back_at"] <= BACK_AFTER


def simulate_storm(budget: RetryBudget | None) -> Storm:
    return testing.run(lambda: _simulate(budget))


async def _simulate(budget: RetryBudget | None) -> Storm:
    loop, storm, queue, rng = asyncio.get_running_loop(), Storm(), deque(), random.Random(5)
    start, arrived = loop.time(), asyncio.Event()

    def second() -> int:
        return int(loop.time() - start)

    async def serve() -> None:
        while True:
            while not queue:
                arrived.clear()
                await arrived.wait()
            if OUTAGE[0] <= loop.time() - start < OUTAGE[1]:
                await asyncio.sleep(start + OUTAGE[1] - loop.time())
            await asyncio.sleep(1 / CAPACITY)
            answer = queue.popleft()
            if not answer.done():  # else the caller has left, and the work was for nothing
                answer.set_result(None)

    @guard(retry(budget=budget), timeout(1.0, scope="attempt"))
    async def request() -> None:
        storm.requests[second()] += 1
        queue.append(loop.create_future())
        arrived.set()
        await queue[-1]

    async def call() -> None:
        storm.arrived[second()] += 1
        with contextlib.suppress(CallTimeoutError):
            await request()
            storm.succeeded[second()] += 1

    tasks = [asyncio.create_task(serve())]
    while loop.time() - start < SECONDS:
        tasks.append(asyncio.create_task(call()))
        await asyncio.sleep(rng.expovariate(ARRIVALS))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return storm
