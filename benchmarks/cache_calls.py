"""Hits and misses of every cache, in one interleaved run."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

import cache_parts as parts
from cache_peers import CACHES, OURS, PLAIN
from overhead import interleaved

if TYPE_CHECKING:
    from cache_report import Report

BARE = "bare call"


async def bare(x: Any) -> Any:
    return x


def verdict(runner: asyncio.Runner, cached: Any, one: Any, other: Any, again: Any) -> str:
    """Return "ok", "WRONG", "no hit", or the name of the error with which it refuses such an argument."""

    async def ask(x: Any) -> Any:
        answer = cached(x)
        return await answer if hasattr(answer, "__await__") else answer

    try:
        first, second, third = (runner.run(ask(x)) for x in (one, other, again))
    except TypeError as error:
        return type(error).__name__
    if first is not one and not parts.same(first, one):
        return "WRONG"
    if not parts.same(second, other) or parts.same(second, first):
        return "WRONG"
    return "ok" if parts.is_hit(first, third, again) else "no hit"


def hits(report: Report, names: list[str], rounds: int) -> None:
    print(f"\nHit, ns per call (the bare call in it), medians of {rounds} rounds")
    section: dict[str, dict[str, Any]] = {}
    report.sections["hit_ns"] = section
    for kind, (one, other, again) in parts.arguments().items():
        section[kind] = row = hit_row(names, rounds, one, other, again)
        cells = (f"{name} {ns if isinstance(ns, str) else f'{ns:,.0f}'}" for name, ns in row.items())
        print(f"  {kind:<12}" + "  ".join(cells))
        check_hit(report, kind, row)


def hit_row(names: list[str], rounds: int, one: Any, other: Any, again: Any) -> dict[str, Any]:
    row: dict[str, Any] = {BARE: 0.0}
    functions: dict[str, Any] = {BARE: bare}
    with asyncio.Runner() as runner:
        for name in names:
            row[name] = verdict(runner, CACHES[name](bare, 1024), one, other, again)
            if row[name] == "ok":
                functions[name] = CACHES[name](bare, 1024)
        row.update(time_calls(runner, functions, one, rounds))
    return row


def time_calls(runner: asyncio.Runner, functions: dict[str, Any], argument: Any, rounds: int) -> dict[str, float]:
    def timed(name: str, calls: int) -> float:
        fn = functions[name]
        return plain_calls(fn, argument, calls) if name == PLAIN else runner.run(calls_of(fn, argument, calls))

    counts = {name: parts.calls_for(lambda calls, name=name: timed(name, calls)) for name in functions}
    return interleaved(list(functions), lambda name: timed(name, counts[name]), rounds)


async def calls_of(fn: Any, argument: Any, calls: int) -> float:
    clock = time.process_time_ns
    start = clock()
    for _ in range(calls):
        await fn(argument)
    return (clock() - start) / calls


def plain_calls(fn: Any, argument: Any, calls: int) -> float:
    clock = time.process_time_ns
    start = clock()
    for _ in range(calls):
        fn(argument)
    return (clock() - start) / calls


def check_hit(report: Report, kind: str, row: dict[str, Any]) -> None:
    if kind in {"int", "str"} and "async-lru" in row:
        report.goal(f"hit on {kind}, ratio to async-lru", row[OURS] / row["async-lru"], 0.8)
    limit = {"768-vector": 2.0, "32 x 768": 3.5}.get(kind)
    if limit is not None:
        report.goal(f"hit on {kind}, us over the bare call", (row[OURS] - row[BARE]) / 1000, limit)


# --- misses ---------------------------------------------------------------------------------------------------------


def misses(report: Report, names: list[str], rounds: int) -> None:
    """Every call has a new key, and the caches are full: each miss evicts."""
    print("\nMiss, us per call, each with a new key")
    functions: dict[str, Any] = {BARE: bare, "bare task": in_a_task}
    functions.update((name, CACHES[name](bare, 1024)) for name in names if name != PLAIN)
    nexts = dict.fromkeys(functions, 0)
    with asyncio.Runner() as runner:

        def sample(name: str) -> float:
            nexts[name] += 500
            return runner.run(new_keys(functions[name], nexts[name]))

        for name in functions:
            for _ in range(4):
                sample(name)  # until it is full
        row = {name: ns / 1000 for name, ns in interleaved(list(functions), sample, rounds).items()}
    report.sections["miss_us"] = row
    print("  " + "  ".join(f"{name} {us:.1f}" for name, us in row.items()))
    if "async-lru" in row:
        report.goal("miss, ratio to async-lru", row[OURS] / row["async-lru"], 1.5)


async def in_a_task(x: Any) -> Any:
    return await asyncio.get_running_loop().create_task(bare(x))


async def new_keys(fn: Any, first: int) -> float:
    clock = time.process_time_ns
    start = clock()
    for number in range(first, first + 500):
        await fn(number)
    return (clock() - start) / 500
