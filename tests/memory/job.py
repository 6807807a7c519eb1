"""What the kill test runs inside of its group: concurrent calls that take memory as an embedding does.

    python job.py MODE CALLS SEED

SEED: of the sizes of the calls, or "rising": the first is the smallest, all others are the biggest.
MODE: none (no guard), psutil (the usual loop), check (a loop on the true usage), reserved, learned, process (a ledger
of its own although others are in the group).
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

import asyncguard as ag
from asyncguard._runtime import memory_probe

MIB = 1 << 20
SMALLEST, BIGGEST = 18, 36  # MiB
THRESHOLD = 0.85

Embed = Callable[[int], Awaitable[float]]
running = most = 0


async def embed(mib: int) -> float:
    """Tokens, then the layers' activations, which are most of it, then a vector: threads work, the loop waits."""
    global running, most  # noqa: PLW0603 - a script
    running += 1
    most = max(most, running)
    try:
        tokens = await asyncio.to_thread(touched, mib / 4)
        await asyncio.sleep(0.02)  # the turn in the queue of the device
        hidden = await asyncio.to_thread(touched, mib * 3 / 4)
        await asyncio.sleep(0.05)
        return float(tokens[0] + hidden[-1])
    finally:
        running -= 1


def touched(mib: float) -> Any:
    """An array of so many MiB of which every page is in use."""
    return np.ones(int(mib * MIB) // 8)


def wait_while(full: Callable[[], bool]) -> Embed:
    async def checked(mib: int) -> float:
        while full():  # noqa: ASYNC110 - this is the usual loop
            await asyncio.sleep(0.05)
        return await embed(mib)

    return checked


def psutil_is_full() -> bool:
    import psutil

    return psutil.virtual_memory().percent > 100 * THRESHOLD


def group_is_full() -> bool:
    level = memory_probe.shared().read().binding()
    assert level is not None
    assert level.limit is not None
    return level.used > THRESHOLD * level.limit


def guarded(mode: str) -> Embed:
    """The contenders. All wait long enough for every call to get its turn."""
    if mode == "none":
        return embed
    if mode in {"psutil", "check"}:
        return wait_while(psutil_is_full if mode == "psutil" else group_is_full)
    patience = 600.0
    if mode == "learned":
        return ag.memory_guard(max_wait=patience)(embed)
    if mode == "process":
        return ag.memory_guard(estimate=BIGGEST * MIB, share="process", max_wait=patience)(embed)
    if mode == "constant":
        return ag.memory_guard(estimate=BIGGEST * MIB, max_wait=patience)(embed)
    assert mode == "reserved", mode
    return ag.memory_guard(estimate=lambda mib: mib * MIB, max_wait=patience)(embed)


def sizes_of(calls: int, seed: str) -> list[int]:
    if seed == "rising":
        return [SMALLEST] + [BIGGEST] * (calls - 1)
    sizes = random.Random(int(seed))
    return [sizes.randint(SMALLEST, BIGGEST) for _ in range(calls)]


async def main(mode: str, calls: int, seed: str) -> None:
    call = guarded(mode)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    start = time.perf_counter()
    await asyncio.gather(*(call(size) for size in sizes_of(calls, seed)))
    seconds = round(time.perf_counter() - start, 3)
    sys.stdout.write(json.dumps({"done": calls, "seconds": seconds, "most": most}) + "\n")


asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
