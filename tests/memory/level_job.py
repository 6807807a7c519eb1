"""What counts as used: runs inside of a group and reports what the guard makes of it.

python level_job.py cache FILE     read a file that is bigger than the group, then make guarded calls
python level_job.py tmpfs FILE     write 100 MiB to a file in shared memory, then look
python level_job.py leaked CALLS   leak 90 % of the limit, then make guarded calls at once
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

import asyncguard as ag
from asyncguard import events
from asyncguard._runtime import memory_probe

MIB = 1 << 20
NEED = {"cache": 40 * MIB, "tmpfs": 60 * MIB, "leaked": 40 * MIB}
decisions: list[str] = []
running = most = 0


def note(event: events.Event) -> None:
    if isinstance(event, events.MemoryDecided):
        decisions.append(event.decision)


guard = ag.memory_guard(estimate=NEED[sys.argv[1]], max_wait=600.0, reclaim=False, on_event=note)


@guard
async def call(mib: int = 1) -> None:
    global running, most  # noqa: PLW0603 - a script
    running += 1
    most = max(most, running)
    held = np.ones(mib * MIB // 8)  # in this thread: glibc keeps a heap for each, and 90 % leave no room for that
    await asyncio.sleep(0)
    del held
    running -= 1


def used() -> int:
    levels = memory_probe.MemoryProbe().read().levels
    return next(level.used for level in levels if level.name.startswith("cgroup"))


def read_through(path: Path) -> int:
    """Read a file twice, so that the kernel has its pages as often used ones too; return the usage with the cache."""
    for _ in range(2):
        with path.open("rb", buffering=0) as file:
            while file.read(MIB):
                pass
    group = memory_probe.MemoryProbe()
    group.read()
    where = group.container()
    assert where is not None
    name = "memory.current" if (where / "memory.current").exists() else "memory.usage_in_bytes"
    return int((where / name).read_text())


async def calls(many: int, mib: int = 1) -> None:
    await asyncio.gather(*(call(mib) for _ in range(many)))


def main(what: str, argument: str) -> dict[str, Any]:
    if what == "cache":
        with_cache = read_through(Path(argument))
        asyncio.run(calls(4))
        return {"with_cache": with_cache, "used": used(), "decisions": decisions}
    if what == "tmpfs":
        before = used()
        Path(argument).write_bytes(os.urandom(MIB) * 100)
        after = used()
        asyncio.run(calls(4))
        return {"before": before, "after": after, "most": most}
    limit = next(level.limit for level in memory_probe.MemoryProbe().read().levels if level.name.startswith("cgroup"))
    assert limit is not None
    leak = np.ones(int(0.9 * limit - used()) // 8)
    asyncio.run(calls(int(argument), 10))
    return {"leaked": leak.nbytes, "most": most, "decisions": sorted(set(decisions)), "made": len(decisions)}


sys.stdout.write("ready\n")
sys.stdout.flush()
sys.stdin.readline()
sys.stdout.write(json.dumps(main(*sys.argv[1:])) + "\n")
