"""Callers' code, checked by mypy --strict and pyright strict and never run: a decorated function keeps its type."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, assert_type

from asyncguard import (
    Pipeline,
    adaptive_concurrency,
    as_async,
    bulkhead,
    cache_items,
    cache_result,
    circuit_breaker,
    fallback,
    guard,
    hedge,
    memory_guard,
    monitor,
    rate_limit,
    retry,
    timeout,
    validate_input,
)
from asyncguard.strategies import AdaptiveConcurrency, CircuitBreaker, Hedge

breaker = circuit_breaker(failure_rate=0.5, window=timedelta(seconds=60))
client = guard(timeout(10), retry(max_retries=3), breaker, timeout(3, scope="attempt"), name="client")


# --- without parentheses, where that makes sense ----------------------------------------------------------------------


@retry
async def bare_retry(text: str, *, model: str = "small") -> list[float]:
    return [float(len(text + model))]


@circuit_breaker()
def with_breaker(text: str) -> int:
    return len(text)


@monitor
async def bare_monitor(text: str) -> int:
    return len(text)


@memory_guard()
def with_memory_guard(text: str) -> int:
    return len(text)


@validate_input
async def bare_validate(text: str) -> int:
    return len(text)


@circuit_breaker
@adaptive_concurrency
@hedge
async def bare_guards(text: str, *, model: str = "small") -> bytes:
    return (text + model).encode()


class Bare:
    @circuit_breaker
    async def method(self, text: str) -> str:
        return text


async def use_bare() -> None:
    assert_type(await bare_guards("a", model="b"), bytes)
    assert_type(await Bare().method("a"), str)
    assert_type(circuit_breaker(minimum_calls=3), CircuitBreaker)
    assert_type(hedge(delay=1), Hedge)
    assert_type(adaptive_concurrency(initial=3), AdaptiveConcurrency)
    assert_type(await bare_retry("a", model="b"), list[float])
    assert_type(with_breaker("a"), int)
    assert_type(await bare_monitor("a"), int)
    assert_type(with_memory_guard("a"), int)
    assert_type(await bare_validate("a"), int)


# --- with parentheses -----------------------------------------------------------------------------------------------


@retry(max_retries=3, on=(ConnectionError, TimeoutError))
@timeout(5.0)
@breaker
@bulkhead(10)
@rate_limit("100/s burst 200")
async def stack(text: str, count: int = 1) -> dict[str, int]:
    return {text: count}


@cache_result(timedelta(minutes=5), max_entries=100)
async def cached(text: str) -> tuple[float, ...]:
    return (float(len(text)),)


@cache_items(60, over="texts")
async def items(texts: list[str]) -> list[list[float]]:
    return [[float(len(text))] for text in texts]


@memory_guard(threshold=0.85)
@monitor("predict")
def sync_stack(text: str) -> bytes:
    return text.encode()


@client
async def through_a_pipeline(text: str) -> str:
    return text


@Pipeline(retry(), breaker)
def through_a_sync_pipeline(text: str) -> str:
    return text


@validate_input(text=str)
async def checked(text: str) -> int:
    return len(text)


async def use_factories() -> None:
    assert_type(await stack("a", count=2), dict[str, int])
    assert_type(await cached("a"), tuple[float, ...])
    assert_type(await items(["a"]), list[list[float]])
    assert_type(sync_stack("a"), bytes)
    assert_type(await through_a_pipeline("a"), str)
    assert_type(through_a_sync_pipeline("a"), str)
    assert_type(await checked("a"), int)


async def wrong_arguments_are_seen() -> None:
    await stack(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await cached()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    sync_stack("a", "b")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# --- methods --------------------------------------------------------------------------------------------------------


class Embedder:
    """Decorators on methods, and on either side of classmethod and staticmethod."""

    @retry
    async def embed(self, text: str) -> list[float]:
        return [float(len(text))]

    @retry(max_retries=2)
    @circuit_breaker()
    def embed_sync(self, text: str) -> list[float]:
        return [float(len(text))]

    @classmethod
    @retry
    async def inside_classmethod(cls, text: str) -> int:
        return len(text)

    @staticmethod
    @timeout(2)
    async def inside_staticmethod(text: str) -> int:
        return len(text)

    @retry()
    @staticmethod
    async def outside_staticmethod(text: str) -> int:
        return len(text)

    @cache_result(60)
    async def cached(self, text: str) -> int:
        return len(text)


async def use_methods(embedder: Embedder) -> None:
    assert_type(await embedder.embed("a"), list[float])
    assert_type(embedder.embed_sync("a"), list[float])
    assert_type(await Embedder.inside_classmethod("a"), int)
    assert_type(await Embedder.inside_staticmethod("a"), int)
    assert_type(await embedder.outside_staticmethod("a"), int)
    assert_type(await embedder.cached("a"), int)


class Service:
    """A pipeline where there is no function to decorate: the client is injected."""

    def __init__(self, create: Callable[[str], Coroutine[Any, Any, bytes]], read: Callable[[str], bytes]) -> None:
        self._guard = guard(retry(), timeout(5))
        self._create = create
        self._read = read

    async def create(self, text: str) -> bytes:
        return assert_type(await self._guard.call(self._create, text), bytes)

    def read(self, text: str) -> bytes:
        return assert_type(self._guard.call_sync(self._read, text), bytes)


# --- other callables ------------------------------------------------------------------------------------------------


def scale(factor: int, value: int) -> int:
    return factor * value


class Model:
    """A callable object."""

    async def __call__(self, text: str) -> float:
        return float(len(text))


def plain_function_that_returns_a_coroutine(text: str) -> Coroutine[Any, Any, int]:
    return bare_monitor(text)


async def use_callables() -> None:
    doubled = retry()(partial(scale, 2))
    assert_type(doubled(21), int)
    model = retry()(Model())
    assert_type(await model("a"), float)
    hidden = retry()(as_async(plain_function_that_returns_a_coroutine))
    assert_type(await hidden("a"), int)


@retry
async def stream(prompt: str) -> AsyncIterator[str]:
    yield prompt


@monitor("lines")
def lines(text: str) -> Iterator[str]:
    yield from text.splitlines()


async def use_generators() -> None:
    async for token in stream("a"):
        assert_type(token, str)
    for line in lines("a"):
        assert_type(line, str)


def generic(call: Callable[[int], str]) -> Callable[[int], str]:
    guarded = fallback_free(call)
    return assert_type(guarded, Callable[[int], str])


def fallback_free(call: Callable[[int], str]) -> Callable[[int], str]:
    return retry(max_retries=1)(call)


def fallback_is_a_decorator_too() -> None:
    assert fallback(None) is not None
