"""The kill test as a benchmark: who survives in a container of 256 MiB, how fast, and what the guard costs per call.

    python benchmarks/memory.py [--runs N] [--calls N] [--json FILE] [--check]

Each run is a process of its own in a memory cgroup of its own, with concurrent calls of 18 to 36 MiB, in random order;
the four-process rows have as many calls in all. Needs root and a writable memory controller, and says so where they
are missing; the cost per call is measured anywhere. `--check` exits with 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import asyncguard as ag
from tests.memory.box import MIB, made, why_not

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 256 * MIB
ROWS = {
    "no guard": ("none", 1),
    "psutil.percent > 85": ("psutil", 1),
    "true usage > 85 %": ("check", 1),
    "reserved, size of each call": ("reserved", 1),
    "reserved, size of the biggest": ("constant", 1),
    "learned": ("learned", 1),
    "4 processes, no guard": ("none", 4),
    "4 processes, each for itself": ("process", 4),
    "4 processes, reserved": ("reserved", 4),
    "4 processes, learned": ("learned", 4),
}
SURVIVORS = ("reserved, size of each call", "reserved, size of the biggest", "learned")
BY_HAND = "reserved, size of the biggest"
SHARED_SURVIVORS = ("4 processes, reserved", "4 processes, learned")
CHEAPEST, FASTEST = 2000.0, 0.8  # ns over the bare call; of the throughput of reserved by hand
NEIGHBOUR = (
    "import asyncguard as ag, sys; ag.memory_guard(estimate=1)(lambda: None)(); print(flush=True); sys.stdin.read()"
)


def one_run(mode: str, processes: int, calls: int, seed: int) -> dict[str, Any]:
    """Run once; seconds are those of the slowest process, None if one was killed."""
    with made(LIMIT) as group:
        each = calls // processes
        ended = group.run(*(["job.py", mode, str(each), str(100 * seed + number)] for number in range(processes)))
        killed = sum(one.status != 0 for one in ended)
        said = [json.loads(one.text.splitlines()[-1]) for one in ended if one.status == 0]
        seconds = None if killed else max(one["seconds"] for one in said)
        peak = round(group.peak / MIB)
        return {"killed": killed, "oom_kill": group.kills, "peak": peak, "seconds": seconds}


def survival(runs: int, calls: int) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ROWS}
    for seed in range(runs):
        for name in random.sample(list(ROWS), len(ROWS)):
            found[name].append(one_run(*ROWS[name], calls, seed))
    return found


def line(name: str, runs: list[dict[str, Any]], calls: int) -> str:
    survived = sum(not run["killed"] for run in runs)
    peaks = [run["peak"] for run in runs]
    seconds = [run["seconds"] for run in runs if run["seconds"] is not None]
    rate = f"{calls / statistics.median(seconds):5.1f} calls/s" if seconds else ""
    return f"{name:31} survived {survived} of {len(runs)}, peak {min(peaks):3}-{max(peaks):3} MiB  {rate}"


def throughput(found: dict[str, list[dict[str, Any]]], by_hand: str) -> float:
    """Learned over reserved by hand: the median of the ratios of the runs with the same calls."""
    pairs = zip(found["learned"], found[by_hand], strict=True)
    ratios = [hand["seconds"] / own["seconds"] for own, hand in pairs if own["seconds"] and hand["seconds"]]
    return round(statistics.median(ratios), 2) if ratios else 0.0


def cost_per_call(rounds: int = 201, calls: int = 400) -> float:
    """Nanoseconds over the bare call: the median of interleaved rounds."""

    async def bare(x: int) -> int:
        return x

    guarded = ag.memory_guard(initial_estimate=1024, reclaim=False)(bare)

    async def timed(call: Any) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            await call(1)
        return (time.perf_counter() - start) / calls * 1e9

    async def main() -> float:
        for _ in range(20):
            await timed(guarded)
        gc.collect()
        gc.disable()
        pairs = [(await timed(guarded), await timed(bare)) for _ in range(rounds)]
        gc.enable()
        return statistics.median(pair[0] for pair in pairs) - statistics.median(pair[1] for pair in pairs)

    return round(asyncio.run(main()))


def costs() -> dict[str, float]:
    """With this process alone in the table of the container, and with three others in it."""
    found = {"alone": cost_per_call()}
    others = [
        subprocess.Popen(
            [sys.executable, "-c", NEIGHBOUR], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        for other in others:
            assert other.stdout is not None
            other.stdout.readline()
        found["beside 3 processes"] = cost_per_call()
    finally:
        for other in others:
            other.communicate()
    return found


def missed(found: dict[str, Any]) -> list[str]:
    """Say which goals are missed. Who reserves by hand writes one number, so that is what learning is held against."""
    runs, ratios = found["survival"], found["learned over reserved"]
    killed = [name for name in (*SURVIVORS, *SHARED_SURVIVORS) if any(run["killed"] for run in runs.get(name, ()))]
    ratio = ratios.get(BY_HAND, 1.0)
    slow = [f"learned is {ratio} of {BY_HAND}"] if ratio < FASTEST else []
    dear = [f"{ns} ns per call {where}" for where, ns in found["ns over the bare call"].items() if ns > CHEAPEST]
    return [*(f"killed: {name}" for name in killed), *slow, *dear]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    machine = f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}"
    found: dict[str, Any] = {"machine": machine, "limit": LIMIT, "calls": options.calls}
    found["ns over the bare call"] = costs()
    reason = why_not()
    found["survival"] = {} if reason else survival(options.runs, options.calls)
    by_hand = () if reason else SURVIVORS[:2]
    found["learned over reserved"] = {name: throughput(found["survival"], name) for name in by_hand}
    for name, runs in found["survival"].items():
        print(line(name, runs, options.calls))
    if reason:
        print(f"no containers: {reason}")
    for key in ("learned over reserved", "ns over the bare call"):
        print(f"{key}: {', '.join(f'{name} {value}' for name, value in found[key].items())}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    failures = missed(found)
    for failure in failures:
        print(f"MISSED {failure}")
    return 1 if options.check and failures else 0


if __name__ == "__main__":
    sys.exit(main())
