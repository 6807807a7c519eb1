"""Contention: clients that all write one record with optimistic concurrency control, and back off when they lose.

The model is that of the simulator behind Marc Brooker, "Exponential Backoff And Jitter" (AWS, 2015): each hop takes
N(10, 2) ms, base 5 ms, cap 2,000 ms. The delays are asyncguard's own machine. It differs in one place: a decorrelated
delay is capped before it is drawn and not after, so that delays at the cap stay spread; with many clients that ends
contention earlier than published.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass

from asyncguard._machines.backoff import Backoff

TOLERANCE = 0.05
CAP = 2_000.0
# The simulator doubles its base before the first delay, except for the decorrelated jitter.
BACKOFFS = {
    "no backoff": Backoff(0.0, 1.0, 0.0, "none"),
    "exponential": Backoff(10.0, 2.0, CAP, "none"),
    "equal jitter": Backoff(10.0, 2.0, CAP, "equal"),
    "full jitter": Backoff(10.0, 2.0, CAP, "full"),
    "decorrelated jitter": Backoff(5.0, 2.0, CAP, "decorrelated"),
}
# clients -> (ms until all are done, calls), in the order of BACKOFFS: the simulator's own means of 100 runs.
PUBLISHED = {
    10: [(375, 50.4), (3307, 50.3), (754, 43.2), (455, 38.9), (440, 37.6)],
    50: [(1136, 689.4), (36422, 623.8), (4351, 347.7), (2810, 332.2), (2271, 375.2)],
    100: [(2025, 2420.7), (63512, 1858.3), (6621, 812.2), (4880, 795.0), (4638, 997.2)],
    190: [(3525, 7996.4), (101153, 5169.0), (9405, 1758.5), (7487, 1773.2), (8085, 2426.6)],
}


@dataclass(frozen=True)
class Row:
    """One cell of the table: ours and the published one."""

    clients: int
    backoff: str
    time: float
    calls: float
    published_time: float
    published_calls: float

    @property
    def name(self) -> str:
        return f"{self.clients} clients, {self.backoff}"

    @property
    def off(self) -> float:
        """The larger of the two distances from the published figures, as a fraction of them."""
        return max(abs(self.time / self.published_time - 1), abs(self.calls / self.published_calls - 1))

    @property
    def counts(self) -> bool:
        """Whether it has to be what was published; rows of fewer or more clients show the trend."""
        return self.clients == 100 and self.backoff != "decorrelated jitter"

    def facts(self) -> dict[str, object]:
        return {**vars(self), "off": round(self.off, 4)}


def contention(runs: int) -> list[Row]:
    return [
        Row(clients, name, *means(clients, backoff, runs), *published)
        for clients, row in PUBLISHED.items()
        for (name, backoff), published in zip(BACKOFFS.items(), row, strict=True)
    ]


def means(clients: int, backoff: Backoff, runs: int) -> tuple[float, float]:
    rng = random.Random(7)
    results = [simulate(clients, backoff, rng) for _ in range(runs)]
    return round(sum(time for time, _ in results) / runs), round(sum(calls for _, calls in results) / runs, 1)


def simulate(clients: int, backoff: Backoff, rng: random.Random) -> tuple[float, int]:
    """Return the milliseconds until the last client has written, and how many writes were tried."""
    version, calls, end = 0, 0, 0.0
    retries, previous = [0] * clients, [0.0] * clients
    order, push = itertools.count(), heapq.heappush

    def hop() -> float:
        return max(0.0, rng.gauss(10, 2))

    queue = [(hop(), next(order), client, -1) for client in range(clients)]
    heapq.heapify(queue)
    while queue:
        now, _, client, seen = heapq.heappop(queue)
        if seen < 0:  # a read arrives: its answer travels back, the write there
            push(queue, (now + hop() + hop(), next(order), client, version))
            continue
        calls += 1
        answered = now + hop()
        if seen == version:
            version += 1
            end = max(end, answered)
            continue
        retries[client] += 1
        previous[client] = backoff.delay(retries[client], previous[client], rng.random)
        push(queue, (answered + previous[client] + hop(), next(order), client, -1))
    return end, calls


def table(rows: list[Row]) -> str:
    lines = [f"{'clients':>7}" + "".join(f"{name:>34}" for name in BACKOFFS)]
    for clients in PUBLISHED:
        cells = [
            f"{row.time:.0f}/{row.calls:.0f} ({row.published_time}/{row.published_calls:.0f}, {row.off:.1%})"
            for row in rows
            if row.clients == clients
        ]
        lines.append(f"{clients:>7}" + "".join(f"{cell:>34}" for cell in cells))
    return "\n".join(lines)
