"""Cases of `scale.py`: every strategy that keeps something per partition, with N partitions."""

from __future__ import annotations

import random
from itertools import count, cycle
from typing import TYPE_CHECKING, Any

import asyncguard as ag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Operation = Callable[[], object]
    Make = Callable[[], Any]


def by_key(key: str) -> str:
    return key


def strategies() -> Iterator[tuple[str, Make]]:
    yield "retry", lambda: ag.retry(partition=by_key)
    yield "circuit_breaker", lambda: ag.circuit_breaker(partition=by_key)
    yield "bulkhead", lambda: ag.bulkhead(10, partition=by_key)
    yield "rate_limit", lambda: ag.rate_limit("1000000/s burst 1000000", partition=by_key)
    yield "rate_limit, two rates", lambda: ag.rate_limit("1000000/s", "100000000/min", partition=by_key)
    yield "adaptive_concurrency", lambda: ag.adaptive_concurrency(partition=by_key)
    # Stated: what learns measures the first calls of each partition, which says nothing about how many there are.
    yield "memory_guard", lambda: ag.memory_guard(estimate=1, partition=by_key)
    yield "hedge", lambda: ag.hedge(partition=by_key)


def partition_cases() -> Iterator[tuple[str, Callable[[int], Operation]]]:
    for name, make in strategies():
        yield f"{name}: a call to one of N that are kept", lambda size, make=make: known(size, make())
    for name, make in strategies():
        yield f"{name}: a call to a new one after N", lambda size, make=make: new(size, make())
    yield "bulkhead: a call to a new one beside N that are busy", busy


def calling(strategy: Any) -> Callable[[str], object]:
    @strategy
    def answer(key: str) -> str:
        return key

    return answer


def known(size: int, strategy: Any) -> Operation:
    partitions = strategy.core.partitions
    partitions._sweep_at = 10**9  # all are kept, as they are where none is idle
    call = calling(strategy)
    keys = [f"tenant {number}" for number in range(size)]
    for key in keys:
        call(key)
    random.Random(1).shuffle(keys)
    turn = cycle(keys)
    return lambda: call(next(turn))


def new(size: int, strategy: Any) -> Operation:
    call, numbers = calling(strategy), count()
    for _ in range(max(size, 2048)):  # the map is full in any case
        call(f"tenant {next(numbers)}")
    return lambda: call(f"tenant {next(numbers)}")


def busy(size: int) -> Operation:
    strategy = ag.bulkhead(10, partition=by_key)
    partitions, numbers = strategy.core.partitions, count()
    call = calling(strategy)
    partitions._sweep_at = 10**9
    for _ in range(size):
        partitions.get(f"tenant {next(numbers)}").take()  # held for ever
    partitions._sweep_at = partitions._limit
    for _ in range(2048):
        call(f"tenant {next(numbers)}")
    return lambda: call(f"tenant {next(numbers)}")
