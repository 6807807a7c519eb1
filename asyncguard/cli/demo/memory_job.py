"""What runs inside of the container: concurrent calls that take memory as an embedding does, under one of the guards.

    memory_job MODE CALLS SEED LIMIT

It writes one JSON object a line: {"start"} when the calls begin, samples {"at", "promised", "most", "done"} every
10 ms, and {"end", "done", "most", "learned"} if it comes to its end. Times are seconds of the monotonic clock. LIMIT is
the option of the guard in bytes; 0: it finds the limit itself.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import random
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncguard.strategies.memory_guard import MemoryGuard

    Embed = Callable[[int], Awaitable[int]]

MIB = 1 << 20
SMALLEST, BIGGEST = 18, 36  # MiB
THRESHOLD = 0.85
EVERY = 0.01  # seconds
PATIENCE = 600.0  # seconds that a call waits for its turn


@dataclass
class Calls:
    """How many calls run now, ran at most, and are done."""

    running: int = 0
    most: int = 0
    done: int = 0

    async def embed(self, mib: int) -> int:
        """Tokens, then the layers' activations, which are most of it, then a vector: threads work, the loop waits."""
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            tokens = await asyncio.to_thread(touched, mib * MIB // 4)
            await asyncio.sleep(0.02)  # the turn in the queue of the device
            hidden = await asyncio.to_thread(touched, mib * MIB * 3 // 4)
            await asyncio.sleep(0.05)
            self.done += 1
            return tokens[0] + hidden[-1]
        finally:
            self.running -= 1


def touched(size: int) -> bytearray:
    """Return so many bytes of which every page is in use."""
    return bytearray(b"\1") * size


def waiting_while(full: Callable[[], bool], embed: Embed) -> Embed:
    """Return the usual loop: look, and sleep while the memory is full."""

    async def checked(mib: int) -> int:
        while full():  # noqa: ASYNC110 - as it is found everywhere
            await asyncio.sleep(0.05)
        return await embed(mib)

    return checked


def machine_is_full() -> bool:
    """psutil.virtual_memory().percent, or the same from where psutil has it."""
    if importlib.util.find_spec("psutil") is not None:
        import psutil

        return bool(psutil.virtual_memory().percent > 100 * THRESHOLD)
    used, limit = _level("machine")
    return used > THRESHOLD * limit


def container_is_full(limit: int) -> Callable[[], bool]:
    """A look at the number that counts: that of the container, or what this process holds if `limit` is simulated."""

    def full() -> bool:
        used, bound = _level("process" if limit else "cgroup ")
        return used > THRESHOLD * (limit or bound)

    return full


def _level(name: str) -> tuple[int, int]:
    from asyncguard._runtime import memory_probe

    levels = memory_probe.shared().read().levels
    return next(((each.used, each.limit or 0) for each in levels if each.name.startswith(name)), (0, 1))


def guarded(mode: str, calls: Calls, limit: int) -> tuple[Embed, MemoryGuard | None]:
    """Return the contender `mode`, and its guard if it has one."""
    if mode == "none":
        return calls.embed, None
    if mode in {"psutil", "check"}:
        full = machine_is_full if mode == "psutil" else container_is_full(limit)
        return waiting_while(full, calls.embed), None
    from asyncguard import memory_guard

    guard = memory_guard(max_wait=PATIENCE, limit=limit or None, name="embed")
    return guard(calls.embed), guard


def say(**facts: object) -> None:
    """Write a line at once: whoever is killed says nothing later."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _sample(calls: Calls, guard: MemoryGuard | None, over: threading.Event) -> None:
    """Run on a thread: the loop may get no further turn before the end."""
    while not over.wait(EVERY):
        promised = guard.gate.ledger.standing()[0] if guard is not None else 0
        say(at=time.monotonic(), promised=promised, most=calls.most, done=calls.done)


async def _main(mode: str, count: int, seed: int, limit: int) -> None:
    calls, sizes = Calls(), random.Random(seed)
    call, guard = guarded(mode, calls, limit)
    say(start=time.monotonic())
    over = threading.Event()
    sampler = threading.Thread(target=_sample, args=(calls, guard, over), daemon=True)
    sampler.start()
    await asyncio.gather(*(call(sizes.randint(SMALLEST, BIGGEST)) for _ in range(count)))
    over.set()
    await asyncio.to_thread(sampler.join)
    learned = None if guard is None or guard.gate.learner is None else guard.gate.learner.need
    say(end=time.monotonic(), done=calls.done, most=calls.most, learned=learned)


def main() -> None:
    """Run the calls of the command line."""
    mode, count, seed, limit = sys.argv[1:5]
    asyncio.run(_main(mode, int(count), int(seed), int(limit)))


if __name__ == "__main__":
    main()
