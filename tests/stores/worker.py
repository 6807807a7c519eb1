"""A process of a fleet: it asks for one key with many callers at once, and says how often it computed.

Run as `python -c "from tests.stores import worker; worker.main()" URL NAMESPACE CALLERS LEASE`.
"""

from __future__ import annotations

import asyncio
import json
import sys

from asyncguard import cache_result, pipeline_of
from asyncguard.stores import AiocacheStore
from asyncguard.strategies import CacheResult
from tests.stores import functions


async def fleet(url: str, namespace: str, callers: int, lease: float) -> None:
    if url.startswith("redis"):
        store = AiocacheStore.redis(url, namespace=namespace, timeout=60.0, lease=lease or None)
    else:
        host, port = url.removeprefix("memcached://").split(":")
        store = AiocacheStore.memcached(host, int(port), namespace=namespace, timeout=60.0, lease=lease or None)
    function = cache_result(60, store=store)(functions.slow)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    results = await asyncio.gather(*[function("key") for _ in range(callers)])
    await pipeline_of(function)[CacheResult].aclose()
    info = store.info()
    print(json.dumps({"calls": len(functions.calls), "right": results.count("KEY"), "errors": info.errors}), flush=True)


def main() -> None:
    url, namespace, callers, lease = sys.argv[1:]
    asyncio.run(fleet(url, namespace, int(callers), float(lease)))
