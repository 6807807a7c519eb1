"""The same feature from other libraries, for those that are installed here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 600


def tenacity_retry(fn: Any) -> Any:
    tenacity = import_module("tenacity")
    return tenacity.retry(
        stop=tenacity.stop_after_attempt(4),
        retry=tenacity.retry_if_exception_type(ConnectionError),
        wait=tenacity.wait_exponential_jitter(0.1),
        reraise=True,
    )(fn)


def stamina_retry(fn: Any) -> Any:
    return import_module("stamina").retry(on=ConnectionError, attempts=4)(fn)


def aiolimiter_rate(fn: Any) -> Any:
    limiter = import_module("aiolimiter").AsyncLimiter(10_000_000, 1)

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        async with limiter:
            return await fn(*args, **kwargs)

    return wrapper


def circuitbreaker_breaker(fn: Any) -> Any:
    return import_module("circuitbreaker").circuit(failure_threshold=50)(fn)


def async_lru_cache(fn: Any) -> Any:
    return import_module("async_lru").alru_cache(maxsize=1024, ttl=SECONDS)(fn)


def cachetools_cache(fn: Any) -> Any:
    cachetools, threading = import_module("cachetools"), import_module("threading")
    return cachetools.cached(cachetools.TTLCache(1024, SECONDS), lock=threading.Lock())(fn)


PEERS: dict[tuple[str, str], dict[str, Callable[[Any], Any]]] = {
    ("retry", "async"): {"tenacity": tenacity_retry, "stamina": stamina_retry},
    ("retry", "sync"): {"tenacity": tenacity_retry, "stamina": stamina_retry},
    ("circuit_breaker", "async"): {"circuitbreaker": circuitbreaker_breaker},
    ("circuit_breaker", "sync"): {"circuitbreaker": circuitbreaker_breaker},
    ("rate_limit", "async"): {"aiolimiter": aiolimiter_rate},
    ("cache_result hit", "async"): {"async-lru": async_lru_cache},
    ("cache_result hit", "sync"): {"cachetools": cachetools_cache},
}


def peers_of(case: str, colour: str, make: Callable[[], Any]) -> Iterator[tuple[str, Any]]:
    """Yield (name, decorated function) of each peer that is installed."""
    for name, decorate in PEERS.get((case, colour), {}).items():
        try:
            decorated = decorate(make())
        except ModuleNotFoundError:
            continue
        yield name, decorated
