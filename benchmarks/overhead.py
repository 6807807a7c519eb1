"""What a happy call costs through each strategy, over the bare call, beside hand-written code and other libraries.

    python benchmarks/overhead.py [--rounds N] [--calls N] [--only WORD] [--json FILE] [--check]

All contenders of a case run in every round, in random order, with the garbage collector off; the figure is the median
over the rounds of the process's CPU time per call. See benchmarks/README.md for how to read it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import platform
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncguard as ag

sys.path.insert(0, str(Path(__file__).parent))

import hand_written as hand
from peers import peers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Decorate = Callable[[Any], Any]


@dataclass
class Case:
    """One row: a strategy on a function of one colour, which suspends once or not at all."""

    name: str
    colour: str
    ours: Decorate
    by_hand: Decorate
    suspends: bool = False
    goal: float | None = None
    against: str = "hand"


@dataclass
class Row:
    """The medians of a case in ns per call; `ratio` is ours over `against`, both over the bare call."""

    name: str
    colour: str
    suspends: bool
    against: str
    goal: float | None
    ns: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def ratio(self) -> float:
        other = self.ns.get(self.against, self.ns["hand"])
        return (self.ns["asyncguard"] - self.ns["bare"]) / max(1.0, other - self.ns["bare"])

    @property
    def missed(self) -> bool:
        return self.goal is not None and self.ratio > self.goal


def make_async(*, suspends: bool) -> Any:
    if suspends:

        async def call(x: int) -> int:
            await asyncio.sleep(0)
            return x
    else:

        async def call(x: int) -> int:
            return x

    return call


def make_sync() -> Any:
    def call(x: int) -> int:
        return x

    return call


def stack(fn: Any) -> Any:
    return ag.retry()(ag.circuit_breaker()(ag.bulkhead(10)(ag.timeout(30)(fn))))


def strategies() -> Iterator[tuple[str, Decorate, Decorate, Decorate, float | None]]:
    """Yield name, ours, by hand async, by hand sync, and the goal of the async row."""
    yield "retry", ag.retry(max_retries=3), hand.retry_async, hand.retry_sync, 2.0
    yield "circuit_breaker", ag.circuit_breaker(window=100), hand.breaker_async, hand.breaker_sync, 3.0
    yield "bulkhead", ag.bulkhead(10), hand.bulkhead_async, hand.bulkhead_sync, 2.0
    yield "rate_limit", ag.rate_limit("10000000/s burst 10000000"), hand.rate_limit_async, hand.rate_limit_sync, 3.0
    yield "fallback", ag.fallback(None), hand.fallback_async, hand.fallback_sync, None
    yield "cache_result hit", ag.cache_result(600), hand.cache_async, hand.cache_sync, 1.0
    yield "validate_input", ag.validate_input(x=int), hand.validate_async, hand.validate_sync, None
    yield "monitor, nobody listens", ag.monitor("bench"), hand.monitor_async, hand.monitor_sync, None
    yield "memory_guard", ag.memory_guard(), hand.passthrough_async, hand.passthrough_sync, None


def cases() -> Iterator[Case]:
    for name, ours, by_hand, by_hand_sync, goal in strategies():
        against = "async-lru" if name == "cache_result hit" else "hand"
        yield Case(name, "async", ours, by_hand, goal=goal, against=against)
        yield Case(name, "sync", ours, by_hand_sync)
    yield Case("timeout", "async", ag.timeout(30), hand.timeout_async)
    yield Case("timeout", "async", ag.timeout(30), hand.timeout_async, suspends=True, goal=0.5)
    yield Case("timeout", "sync", ag.timeout(30), hand.timeout_sync)
    yield Case("stack of four", "async", stack, hand.stack_async)
    yield Case("stack of four", "async", stack, hand.stack_async, suspends=True, goal=1.2)
    yield Case("stack of four", "sync", stack, hand.stack_sync)


def contenders(case: Case) -> dict[str, Any]:
    is_async = case.colour == "async"

    def make() -> Any:
        return make_async(suspends=case.suspends) if is_async else make_sync()

    passthrough = hand.passthrough_async if is_async else hand.passthrough_sync
    found = {
        "bare": make(),
        "pass-through": passthrough(make()),
        "hand": case.by_hand(make()),
        "asyncguard": case.ours(make()),
    }
    found.update(peers_of(case.name, case.colour, make))
    return found


async def time_async(fn: Any, calls: int) -> float:
    clock = time.process_time_ns
    start = clock()
    for _ in range(calls):
        await fn(1)
    return (clock() - start) / calls


def time_sync(fn: Any, calls: int) -> float:
    clock = time.process_time_ns
    start = clock()
    for _ in range(calls):
        fn(1)
    return (clock() - start) / calls


def run(case: Case, rounds: int, calls: int) -> Row:
    functions = contenders(case)
    with asyncio.Runner() as runner:

        def sample(name: str) -> float:
            if case.colour == "sync":
                return time_sync(functions[name], calls)
            return runner.run(time_async(functions[name], calls))

        medians = interleaved(list(functions), sample, rounds)
    return Row(case.name, case.colour, case.suspends, case.against, case.goal, medians)


def interleaved(names: list[str], sample: Callable[[str], float], rounds: int) -> dict[str, float]:
    samples: dict[str, list[float]] = {name: [] for name in names}
    order = list(names)
    for name in names:
        sample(name)
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            random.shuffle(order)
            for name in order:
                samples[name].append(sample(name))
    finally:
        gc.enable()
    return {name: statistics.median(samples[name]) for name in names}


def line(row: Row) -> str:
    over = {name: ns - row.ns["bare"] for name, ns in row.ns.items()} | {"bare": row.ns["bare"]}
    known = "".join(f"{over.pop(name):>13,.0f}" for name in COLUMNS)
    others = "  ".join(f"{name} {ns:,.0f}" for name, ns in over.items())
    name = f"{row.name}{' (suspends)' if row.suspends else ''}"
    goal = "" if row.goal is None else f"{row.goal:.1f}{'  MISSED' if row.missed else ''}"
    return f"{name:<26}{row.colour:<6}{known}{row.ratio:>8.2f}  {goal:<12}{others}"


COLUMNS = ("bare", "pass-through", "hand", "asyncguard")
HEAD = f"{'ns over the bare call':<32}{''.join(f'{name:>13}' for name in COLUMNS)}{'ratio':>8}  {'goal':<12}peers"


def machine() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "machine": platform.machine(),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--calls", type=int, default=400, help="calls per sample")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--json", type=Path, help="write the medians to this file")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a goal is missed")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    logging.getLogger().setLevel(logging.WARNING)
    print(f"Python {platform.python_version()}, medians of {options.rounds} rounds of {options.calls} calls, CPU time")
    print(HEAD)
    rows: list[Row] = []
    for case in cases():
        if options.only in case.name:
            rows.append(run(case, options.rounds, options.calls))
            print(line(rows[-1]), flush=True)
    if options.json is not None:
        report = {"machine": machine(), "rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    missed = [row.name for row in rows if row.missed]
    print("missed: " + (", ".join(missed) or "none"))
    return int(options.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
