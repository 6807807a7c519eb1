"""A cached function over a real Redis and memcached: before, while the server is stopped (SIGSTOP), and after.

    python benchmarks/cache_store.py [redis | memcached]

Fifty callers ask for ever new keys of a function that takes 50 ms; `timeout` of the store is 250 ms. Stopped: no call
may take longer than the function, the timeout and 50 ms. After: the store is written to again. Then one `multi_get` of
64 rows of 768 floats against 64 reads, through the store.
"""

from __future__ import annotations

import asyncio
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from asyncguard import cache_result, pipeline_of
from asyncguard.stores import AiocacheStore
from asyncguard.strategies import CacheResult
from tests.stores import servers
from tests.stores.conftest import store_in

TAKES = 0.05
TIMEOUT = 0.25
CALLERS = 50
PHASES = (("before", 3.0), ("stopped", 8.0), ("after", 15.0))


async def length(text: str) -> int:
    await asyncio.sleep(TAKES)
    return len(text)


length.__module__ = "benchmarks.cache_store"  # as if it were imported: `__main__` has no place in a store


class Load:
    """Callers of ever new keys; latencies by the phase in which a call began."""

    def __init__(self, function) -> None:
        self.function = function
        self.phase = ""
        self.seconds: dict[str, list[float]] = {name: [] for name, _ in PHASES}
        self.number = 0

    async def call(self) -> None:
        while self.phase != "over":
            self.number += 1
            phase, start = self.phase, time.perf_counter()
            await self.function(f"key {self.number}")
            self.seconds[phase].append(time.perf_counter() - start)


async def trouble(kind: str, server: servers.Server) -> None:
    store = store_in(kind, server, timeout=TIMEOUT, namespace="benchmark")
    function = cache_result(600, store=store, max_entries=64)(length)
    load = Load(function)
    await asyncio.gather(*[function(f"warm {each}") for each in range(CALLERS)])
    load.phase = PHASES[0][0]
    tasks = [asyncio.create_task(load.call()) for _ in range(CALLERS)]
    for name, seconds in PHASES:
        load.phase = name
        if name == "stopped":
            server.pause()
        elif name == "after":
            server.resume()
        before = store.info().written
        await asyncio.sleep(seconds)
        report(kind, name, load.seconds[name], store.info().written - before)
    load.phase = "over"
    await asyncio.gather(*tasks)
    await pipeline_of(function)[CacheResult].aclose()


def report(kind: str, phase: str, seconds: list[float], written: int) -> None:
    ordered = sorted(seconds)
    p50, p99 = (1000 * ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.99))
    most = 1000 * (TAKES + TIMEOUT + 0.05)
    verdict = "" if phase != "stopped" else f"  (allowed: {most:.0f} ms) {'ok' if p99 <= most else 'TOO SLOW'}"
    print(
        f"{kind:<10}{phase:<9}{len(ordered):>6} calls  p50 {p50:4.0f} ms  p99 {p99:4.0f} ms  "
        f"longest {1000 * ordered[-1]:4.0f} ms  {written:>6} written{verdict}"
    )


async def batches(kind: str, server: servers.Server) -> None:
    store: AiocacheStore = store_in(kind, server, timeout=5.0, namespace="benchmark")
    pairs = [(f"row-{each}", bytes(3072)) for each in range(64)]
    keys = [key for key, _ in pairs]
    await store.write(pairs, 60.0)

    async def apart() -> None:
        for key in keys:
            await store.read([key])

    async def at_once() -> None:
        await asyncio.gather(*[store.read([key]) for key in keys])

    for name, ask in (("1 read of 64", lambda: store.read(keys)), ("64 reads in turn", apart), ("64 at once", at_once)):
        times = []
        for _ in range(15):
            start = time.perf_counter()
            await ask()
            times.append(time.perf_counter() - start)
        print(f"{kind:<10}{name:<18}{1e6 * sorted(times)[7]:8.0f} us")
    await store.aclose()


def main() -> None:
    for kind in sys.argv[1:] or ("redis", "memcached"):
        command = servers.redis_command() if kind == "redis" else servers.memcached_command()
        ping = b"PING\r\n" if kind == "redis" else b"version\r\n"
        with tempfile.TemporaryDirectory() as folder, servers.running(command, ping, pathlib.Path(folder)) as server:
            asyncio.run(trouble(kind, server))
            asyncio.run(batches(kind, server))


if __name__ == "__main__":
    main()
