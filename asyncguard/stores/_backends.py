"""Backends of aiocache as a store uses them: bytes in, bytes out, explicit keys, no timeouts and retries of their own.

Only methods are relied on, `get`, `multi_get`, `set`, `multi_set`, `add`, `delete` (and `raw` of Redis for a release):
they are the same in aiocache 0.12 and its successor, constructors are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import importlib
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from asyncguard._machines import checks

METHODS = ("get", "multi_get", "set", "multi_set", "add", "delete")
MOST_TTL = 30 * 24 * 3600 - 1
"""Seconds: memcached takes anything longer for a date. No value outlives an invalidation, which is kept as long."""

_RELEASE = "for i, key in ipairs(KEYS) do if redis.call('get', key) == ARGV[i] then redis.call('del', key) end end"
T = TypeVar("T")
_PLAIN: dict[str, Any] = {"namespace": "", "timeout": 0}  # keys as they are; time is limited by us


def checked(backend: Any) -> Any:
    """Return a backend, or a function that makes one; raises TypeError for anything else."""
    missing = [name for name in METHODS if not callable(getattr(backend, name, None))]
    if isinstance(backend, type) or missing:
        if callable(backend):
            return checks.plain("backend", backend)
        raise TypeError(  # without what it prints itself, which may hold a password
            "backend must be an aiocache backend (RedisCache, MemcachedCache, ...) or a function that makes one, got a "
            f"{type(backend).__qualname__} without {', '.join(missing)}"
        )
    return backend


def is_factory(backend: Any) -> bool:
    """Tell whether it is a function that makes backends."""
    return isinstance(backend, type) or not all(hasattr(backend, name) for name in METHODS)


def _aiocache() -> Any:
    return importlib.import_module("aiocache")


class Client:
    """One backend in one event loop."""

    def __init__(self, backend: Any, *, owned: bool) -> None:
        self._owned = owned
        self._backend = backend = _raw(backend)
        self.kind = str(getattr(backend, "NAME", ""))
        # Of a cluster, keys live on different machines, and commands with several keys are refused.
        self._apart = hasattr(getattr(backend, "client", None), "mget_nonatomic")

    async def read(self, keys: Sequence[str]) -> list[Any]:
        """Return what is under each key, None where there is nothing."""
        if len(keys) == 1:
            return [await self._backend.get(keys[0], **_PLAIN)]
        if self._apart:
            return await _all([self._backend.get(key, **_PLAIN) for key in keys])
        values = list(await self._backend.multi_get(list(keys), **_PLAIN))
        return values if len(values) == len(keys) else [None] * len(keys)  # AIOCACHE_DISABLE=1 answers with []

    async def write(self, pairs: Sequence[tuple[str, bytes]], ttl: float) -> None:
        """Put values under keys, all for the same time."""
        seconds = self._ttl(ttl)
        if len(pairs) == 1 or self._apart or self.kind == "memcached":  # which has no command for several
            await _all([self._backend.set(key, data, ttl=seconds, **_PLAIN) for key, data in pairs])
        else:
            await self._backend.multi_set(list(pairs), ttl=seconds, **_PLAIN)

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove keys; return how many there were."""
        return sum([int(each or 0) for each in await _all(map(self._delete, keys))])

    def _delete(self, key: str) -> Any:
        return self._backend.delete(key, **_PLAIN)

    async def add(self, pairs: Sequence[tuple[str, bytes]], ttl: float) -> list[bool]:
        """Put values under keys that have none; tell of each whether it did."""
        return await _all([self._add(key, token, ttl) for key, token in pairs])

    async def _add(self, key: str, token: bytes, ttl: float) -> bool:
        try:
            return bool(await self._backend.add(key, token, ttl=self._ttl(ttl), **_PLAIN))
        except ValueError:  # how aiocache says that it is there
            return False

    async def release(self, pairs: Sequence[tuple[str, bytes]]) -> None:
        """Remove each key if it still holds its token; memcached has no such command, there it ends by itself."""
        if self.kind in {"redis", "valkey"}:
            await _all(map(self._release, [[each] for each in pairs] if self._apart else [pairs]))

    async def _release(self, pairs: Sequence[tuple[str, bytes]]) -> None:
        keys, tokens = zip(*pairs, strict=True)
        await self._backend.raw("eval", _RELEASE, len(keys), *keys, *tokens, timeout=0)

    async def interrupted(self) -> None:
        """Give up connections after an operation that was cut off.

        aiomcache puts its connection back with the reply still to come, and every later one would get the reply to the
        one before. No other task runs in between: closing what is idle needs no waiting.
        """
        if self.kind == "memcached":
            with contextlib.suppress(Exception):
                await self._backend.close(timeout=0)

    async def close(self) -> None:
        """Close the connections, unless the backend is the user's own."""
        if not self._owned:
            return
        client: Any = getattr(self._backend, "client", None)
        with contextlib.suppress(Exception):  # it is gone either way
            await (client.aclose() if hasattr(client, "aclose") else self._backend.close(timeout=0))

    def _ttl(self, seconds: float) -> float:
        """Return whole seconds, as memcached wants them; as a float for Redis, where aiocache then uses milliseconds.

        (For an int it uses a command that redis-py warns about.)
        """
        whole = max(1, math.ceil(min(seconds, MOST_TTL)))
        return float(whole) if self.kind == "redis" else whole


async def _all(operations: Iterable[Awaitable[T]]) -> list[T]:
    """Do operations at once; an error of one (a row that is too large) ends none of the others."""
    done = await asyncio.gather(*operations, return_exceptions=True)
    for each in done:
        if isinstance(each, BaseException):
            raise each
    return cast("list[T]", done)


def _raw(backend: Any) -> Any:
    """Return a copy that hands bytes through, on the same client; the user's object stays as it is."""
    made = copy.copy(backend)
    if hasattr(made, "serializer"):
        made.serializer = _aiocache().serializers.NullSerializer(encoding=None)
        made.plugins = []
    if getattr(made, "NAME", "") == "memcached":
        from asyncguard.stores._memcached import guarded

        made.client = guarded(made.client)
    return made


# --- backends that are right for a store ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Redis:
    """Makes backends for Redis and Valkey: callers wait for a connection of a small pool, nothing is tried twice."""

    url: str = field(repr=False)  # it may hold a password
    max_connections: int

    def __post_init__(self) -> None:
        """Check the options."""
        checks.integer("max_connections", self.max_connections, least=1)
        self._pool()

    def __call__(self) -> Any:
        """Return a new backend with a pool of its own."""
        from redis.asyncio import Redis as RedisClient

        backend = _aiocache().RedisCache()
        backend.client = RedisClient(connection_pool=self._pool())
        backend.client.auto_close_connection_pool = True
        return backend

    def _pool(self) -> Any:
        try:
            from redis.asyncio import BlockingConnectionPool
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError:
            raise ImportError('AiocacheStore.redis needs redis: pip install "asyncguard[redis]"') from None
        no_retry: Any = Retry(cast("Any", NoBackoff()), 0)
        pool: Any = BlockingConnectionPool
        try:
            return pool.from_url(
                self.url, max_connections=self.max_connections, timeout=None, retry=no_retry, decode_responses=False
            )
        except Exception as error:  # noqa: BLE001 - its text may hold the password
            kind = type(error).__name__
        raise ValueError(
            f"url must be like redis://user:password@host:6379/0 or rediss://..., it cannot be read ({kind})"
        )


@dataclass(frozen=True, slots=True)
class Memcached:
    """Makes backends for memcached."""

    host: str
    port: int
    pool_size: int

    def __post_init__(self) -> None:
        """Check the options."""
        checks.integer("port", self.port, least=1, most=65535)
        checks.integer("pool_size", self.pool_size, least=1)
        try:
            import aiomcache  # noqa: F401 # pyright: ignore[reportUnusedImport]
        except ImportError:
            raise ImportError('AiocacheStore.memcached needs aiomcache: pip install "asyncguard[memcached]"') from None

    def __call__(self) -> Any:
        """Return a new backend with a pool of its own."""
        return _aiocache().MemcachedCache(endpoint=self.host, port=self.port, pool_size=self.pool_size)


def made(factory: Callable[[], Any]) -> Any:
    """Return a new backend; raises TypeError if the function returns something else."""
    backend = factory()
    if is_factory(backend):
        raise TypeError(f"the function that makes backends returned a {type(backend).__qualname__}")
    return backend
