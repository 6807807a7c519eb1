"""What tests of stores use in place of a backend and a clock, and a store that is closed at the end."""

from __future__ import annotations

import asyncio
import contextlib


def run(main):
    return asyncio.run(main)


@contextlib.asynccontextmanager
async def closing(store):
    try:
        yield store
    finally:
        await store.aclose()


class Later:
    """A clock that only the test moves on: the circuit's pauses need no waiting, and a machine's pause ends none."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return 1_000.0 + self.ahead


def with_clock(store):
    later = Later()
    store._real.circuit._clock = later
    return later


class Backend:
    def __init__(self):
        self.namespace = None

    async def get(self, key, **options): ...
    async def multi_get(self, keys, **options): ...
    async def set(self, key, value, **options): ...
    async def multi_set(self, pairs, **options): ...
    async def add(self, key, value, **options): ...
    async def delete(self, key, **options): ...
