"""Does giving memory back stall the event loop? The worst gap of a 1 ms ticker while 940 MiB go back to the system.

    python benchmarks/reclaim.py [--rounds 5] [--json FILE] [--check]

Each run is a process of its own with a heap of 700,000 objects and 940 MiB of freed small blocks in the allocator. The
control does the same and gives nothing back; contenders and controls take turns. The goal: the median of the worst gaps
is at most 20 ms above that of the control, with the automatic collector frozen. "collector off": nothing was ever
collected, so that the whole heap counts as young. "loop allocates": the ticker takes and frees 64 KiB each time, and so
waits for the lock that `malloc_trim` holds on each heap of the allocator: no goal, but what to expect at worst.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MIB = 1 << 20
OBJECTS = 700_000
GARBAGE, BLOCK = 940 * MIB, 16 * 1024
GOAL = 0.020  # seconds
HEAPS = {"frozen": "collector frozen", "off": "collector off", "allocating": "frozen, loop allocates"}
HERE = Path(__file__).parent


def heap(kind: str) -> list[Any]:
    gc.disable()
    made: list[Any] = [[number] for number in range(OBJECTS)]
    if kind != "off":
        gc.collect()
        gc.freeze()
    return made


def garbage() -> bytearray:
    """Fill the allocator with small blocks and free all but the last, which holds the top of its heap."""
    blocks = [bytearray(b"\1") * BLOCK for _ in range(GARBAGE // BLOCK)]
    return blocks[-1]


class Ticker:
    """Keeps only the worst gap: a list that grows would have to ask the allocator."""

    worst = 0.0

    async def run(self, *, allocates: bool) -> None:
        before = time.perf_counter()
        while True:
            if allocates:
                bytearray(65_536)
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self.worst = max(self.worst, now - before)
            before = now


async def measure(kind: str, *, control: bool) -> dict[str, Any]:
    from asyncguard._runtime import peak, reclaim

    kept = heap(kind), garbage()
    held, ticker, steps = peak.process_bytes(), Ticker(), list[str]()
    task = asyncio.create_task(ticker.run(allocates=kind == "allocating"))
    await asyncio.sleep(0.5)
    ticker.worst = 0.0
    start = time.perf_counter()
    if not control:
        reclaim.shared().ask(lambda method, freed, seconds: steps.append(method), lambda freed: None)
        while reclaim.shared().busy:  # noqa: ASYNC110 - it ends on another thread
            await asyncio.sleep(0.005)
    took = time.perf_counter() - start
    await asyncio.sleep(max(0.5, 1.5 - took))
    task.cancel()
    freed = held - peak.process_bytes()
    assert len(kept[0]) == OBJECTS
    return {"worst": ticker.worst, "freed": freed, "took": took, "steps": steps}


def run(kind: str, *, control: bool) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__)), "--run", kind, *(["--control"] if control else [])]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def compare(kind: str, rounds: int) -> dict[str, Any]:
    pairs = [(run(kind, control=False), run(kind, control=True)) for _ in range(rounds)]
    ours, control = ([pair[at]["worst"] for pair in pairs] for at in (0, 1))
    return {
        "worst_ms": round(1000 * statistics.median(ours), 2),
        "control_ms": round(1000 * statistics.median(control), 2),
        "all_ms": [round(1000 * each, 2) for each in ours],
        "all_control_ms": [round(1000 * each, 2) for each in control],
        "freed_mib": round(statistics.median(pair[0]["freed"] for pair in pairs) / MIB),
        "took_ms": round(1000 * statistics.median(pair[0]["took"] for pair in pairs), 1),
        "steps": pairs[0][0]["steps"],
        "met": None if kind == "allocating" else statistics.median(ours) <= statistics.median(control) + GOAL,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=HERE / "results" / "reclaim.json")
    parser.add_argument(
        "--check", action="store_true", help="exit 1 where the goal is missed with the collector frozen"
    )
    parser.add_argument("--run", choices=HEAPS, help=argparse.SUPPRESS)
    parser.add_argument("--control", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        print(json.dumps(asyncio.run(measure(asked.run, control=asked.control))))
        return 0
    results = {kind: compare(kind, asked.rounds) for kind in HEAPS}
    print(f"{'':<26}{'worst gap':>12}{'control':>12}{'given back':>13}{'it took':>11}   steps")
    for kind, row in results.items():
        print(
            f"{HEAPS[kind]:<26}{row['worst_ms']:>9} ms{row['control_ms']:>9} ms{row['freed_mib']:>9} MiB"
            f"{row['took_ms']:>8} ms   {', '.join(row['steps'])}{'   GOAL MISSED' if row['met'] is False else ''}"
        )
    about = {"python": platform.python_version(), "libc": " ".join(platform.libc_ver()), "goal_ms": 1000 * GOAL}
    asked.json.write_text(json.dumps({**about, "results": results}, indent=2) + "\n")
    return 0 if results["frozen"]["met"] or not asked.check else 1


if __name__ == "__main__":
    sys.exit(main())
