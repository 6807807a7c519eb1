"""The caches that are compared: ours, and those of other libraries that are installed here.

Each takes a coroutine function and how many entries it may hold, and returns a coroutine function (for
`functools.lru_cache`, which knows none, a plain one around the result).
"""

from __future__ import annotations

import functools
import itertools
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

import asyncguard as ag

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[Any, int], Any]

SECONDS = 600
PLAIN = "functools.lru_cache"
OURS = "asyncguard"
_names = itertools.count()


def ours(fn: Any, most: int) -> Any:
    return ag.cache_result(SECONDS, max_entries=most)(fn)


def lru_cache(fn: Any, most: int) -> Any:
    """Cache what the coroutine function would return, without a loop: the floor of a cache in C."""

    @functools.lru_cache(maxsize=most)
    def plain(x: Any) -> Any:
        try:
            fn(x).send(None)
        except StopIteration as result:
            return result.value
        raise RuntimeError("it suspended")

    return plain


def async_lru(fn: Any, most: int) -> Any:
    return import_module("async_lru").alru_cache(maxsize=most, ttl=SECONDS)(fn)


def cachebox(fn: Any, most: int) -> Any:
    module = import_module("cachebox")
    return module.cached(module.TTLCache(most, SECONDS))(fn)


def cachetools_and_lock(fn: Any, most: int) -> Any:
    """cachetools knows no coroutine functions: by hand, with a lock around its cache."""
    cachetools = import_module("cachetools")
    keys, cache, lock = import_module("cachetools.keys"), cachetools.TTLCache(most, SECONDS), threading.Lock()

    async def wrapper(*args: Any) -> Any:
        key = keys.hashkey(*args)
        with lock:
            if key in cache:
                return cache[key]
        value = await fn(*args)
        with lock:
            cache[key] = value
        return value

    return wrapper


def aiocache(fn: Any, most: int) -> Any:
    """In memory, where it has no bound; a namespace of its own, since all functions share one store."""
    return import_module("aiocache").cached(ttl=SECONDS, namespace=f"bench{next(_names)}")(fn)


def cashews(fn: Any, most: int) -> Any:
    cache = import_module("cashews").Cache()
    cache.setup("mem://", size=most)
    return cache(ttl=SECONDS)(fn)


CACHES: dict[str, Make] = {
    OURS: ours,
    PLAIN: lru_cache,
    "async-lru": async_lru,
    "cachebox": cachebox,
    "cachetools + lock": cachetools_and_lock,
    "aiocache": aiocache,
    "cashews": cashews,
}


def installed() -> tuple[list[str], list[str]]:
    """Return the names of the caches that are here, and of those that are not."""

    async def nothing(x: Any) -> Any:
        return x

    here: list[str] = []
    missing: list[str] = []
    for name, make in CACHES.items():
        try:
            make(nothing, 1)
        except ModuleNotFoundError:
            missing.append(name)
        else:
            here.append(name)
    return here, missing
