"""What an entry of every cache takes, each in a process of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

import cache_parts as parts
from cache_peers import CACHES, OURS

if TYPE_CHECKING:
    from cache_report import Report

ENTRIES = 100_000


def entry_bytes(report: Report, names: list[str]) -> None:
    """Fill each cache in a process of its own, once for each of the two ways to measure."""
    print(f"\nBytes per entry at {ENTRIES:,} entries of int to int (both included): traced / resident")
    section: dict[str, dict[str, float]] = {}
    report.sections["bytes_per_entry"] = section
    for name in names:
        traced, resident = (float(run_child(name, how)) for how in ("traced", "resident"))
        section[name] = {"traced": traced, "resident": resident}
    print("  " + "  ".join(f"{name} {each['traced']:.0f} / {each['resident']:.0f}" for name, each in section.items()))
    report.goal("bytes of an int entry, traced", section[OURS]["traced"], 450)


def run_child(name: str, how: str) -> str:
    command = [sys.executable, __file__, name, how]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]


def fill(name: str, how: str) -> float:
    async def successor(x: int) -> int:
        return x + 1_000_000

    fn = CACHES[name](successor, ENTRIES)

    async def main() -> float:
        await each_of(fn, 0, 1000)
        if how == "traced":
            tracemalloc.start()
        before = parts.held(how)
        await each_of(fn, 1000, ENTRIES)
        return (parts.held(how) - before) / (ENTRIES - 1000)

    return asyncio.run(main())


async def each_of(fn: Any, first: int, end: int) -> None:
    for number in range(first, end):
        answer = fn(number)
        if hasattr(answer, "__await__"):
            await answer


if __name__ == "__main__":
    print(fill(*sys.argv[1:]))
