"""How many bytes a call in flight costs: 10,000 calls suspended at once, through each strategy and the stack of four.

    python benchmarks/in_flight.py [--calls N] [--json FILE] [--check]

Each case runs in a process of its own, twice: once under tracemalloc (what Python allocated, exactly), once without
(the growth of the resident set, as the system sees it: whole pages, rounded by the allocators). Figures are bytes per
call over the same number of bare calls. `--check` exits with 1 if the stack of four takes more than 2 KiB.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from overhead import machine

import asyncguard as ag

GOAL = 2048
GOAL_CASE = "stack of four"
RESULTS = Path(__file__).parent / "results" / "in_flight.json"
MANY = 10**6


def stack(fn: Any) -> Any:
    return ag.retry()(ag.circuit_breaker()(ag.bulkhead(MANY)(ag.timeout(600)(fn))))


def stack_at_once(fn: Any) -> Any:
    return ag.guard(ag.retry(), ag.circuit_breaker(), ag.bulkhead(MANY), ag.timeout(600, scope="attempt"))(fn)


def waiting(fn: Any) -> Any:
    return ag.bulkhead(1, max_queue=MANY, max_wait=600)(fn)


def waiting_for_a_rate(fn: Any) -> Any:
    return ag.rate_limit("100/s burst 1", max_wait=600)(fn)


CASES: dict[str, Callable[[Any], Any]] = {
    "bare": lambda fn: fn,
    GOAL_CASE: stack,
    "stack of four, guard()": stack_at_once,
    "retry": ag.retry(),
    "circuit_breaker": ag.circuit_breaker(),
    "bulkhead": ag.bulkhead(MANY),
    "timeout": ag.timeout(600),
    "rate_limit": ag.rate_limit("1000000/s burst 1000000"),
    "adaptive_concurrency": ag.adaptive_concurrency(initial=MANY, max_limit=MANY),
    "memory_guard": ag.memory_guard(),
    "hedge": ag.hedge(),
    "fallback": ag.fallback(None),
    "cache_result, every call a miss": ag.cache_result(600, max_entries=MANY),
    "validate_input": ag.validate_input(x=int),
    "monitor": ag.monitor("in flight"),
    "waiting in the queue of a bulkhead": waiting,
    "waiting for a rate": waiting_for_a_rate,
}


async def in_flight(case: str, calls: int, measure: Callable[[], int]) -> float:
    """Return the bytes per call that is suspended in the function or waits to be let in."""
    loop = asyncio.get_running_loop()
    gate: asyncio.Future[None] = loop.create_future()

    async def function(x: int) -> int:
        if x:
            await gate
        return x

    guarded = CASES[case](function)
    await guarded(0)  # the first result is looked at: `retry` asks whether it is a response with a status
    warm = [asyncio.ensure_future(guarded(-number)) for number in range(1, 51)]
    await turns()
    before = measure()
    tasks = [asyncio.ensure_future(guarded(number)) for number in range(1, calls + 1)]
    await turns()
    after = measure()
    for task in (*warm, *tasks):
        task.cancel()
    await asyncio.gather(*warm, *tasks, return_exceptions=True)
    return (after - before) / calls


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()


def traced() -> int:
    return tracemalloc.get_traced_memory()[0]


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def one(case: str, calls: int, how: str) -> float:
    if how == "tracemalloc":
        tracemalloc.start()
        return asyncio.run(in_flight(case, calls, traced))
    return asyncio.run(in_flight(case, calls, resident))


def spawn(case: str, calls: int, how: str) -> float:
    command = [sys.executable, __file__, "--calls", str(calls), "--one", case, "--how", how]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000, help="calls in flight at once")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to write the figures")
    parser.add_argument("--check", action="store_true", help="exit with 1 if the goal is missed")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--how", default="tracemalloc", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.one is not None:
        print(one(options.one, options.calls, options.how))
        return 0
    hows = ["tracemalloc", "rss"] if Path("/proc/self/statm").exists() else ["tracemalloc"]
    print(
        f"bytes per call, {options.calls:,} in flight, over the bare call{'':>6}{''.join(f'{how:>13}' for how in hows)}"
    )
    bare = {how: spawn("bare", options.calls, how) for how in hows}
    print(f"{'the bare call itself':<54}{''.join(f'{bare[how]:>13,.0f}' for how in hows)}")
    rows: dict[str, dict[str, float]] = {"bare": bare}
    for case in [case for case in CASES if case != "bare"]:
        rows[case] = {how: spawn(case, options.calls, how) - bare[how] for how in hows}
        print(f"{case:<54}{''.join(f'{rows[case][how]:>13,.0f}' for how in hows)}", flush=True)
    report = {"machine": machine(), "calls": options.calls, "goal": GOAL, "bytes": rows}
    options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    missed = max(rows[GOAL_CASE].values()) > GOAL
    print(f"{GOAL_CASE}: at most {GOAL:,} bytes over the bare call: {'MISSED' if missed else 'met'}")
    return int(options.check and missed)


if __name__ == "__main__":
    sys.exit(main())
